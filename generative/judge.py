"""Judges rows by what is known of their data."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from generative.metrics import frechet_distance, mode_metrics, moments
from harness import data
from harness.data import Card
from harness.learner import Media
from harness.spec import Score

__all__ = ["Judge", "judge_score"]


def judge_score(card: Card) -> Score:
    """The headline metric of generated rows."""
    if card.kind == "points":
        return Score("overlap", "max", worst=0.0)
    return Score("frechet", "min", worst=1e6)


class Judge:
    """Compares rows with held-out ones."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.reference = data.load(card.name)["test"].x
        self.moments = moments(torch.as_tensor(self.reference.copy()))

    def scores(self, rows: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Rows [N, *row] in the data's own range to 0-dim float64 tensors."""
        scores = {"frechet": frechet_distance(moments(rows), self.moments)}
        std = data.std(self.card.name) if self.card.kind == "points" else None
        if std is not None:
            scores |= mode_metrics(rows, torch.as_tensor(data.centres(self.card.name)), std)
        return scores

    def media(self, rows: Tensor, labels: Tensor | None = None) -> dict[str, Media]:
        """The rows beside as many held-out ones."""
        samples, reference = rows.numpy(), self.reference[: len(rows)]
        if self.card.kind == "points":
            caption = f"{len(rows)} points of the average generator beside {len(rows)} of the data"
            return {"samples": Media("points", samples, reference, caption=caption)}
        caption = f"{len(rows)} images of the average generator beside {len(rows)} held-out ones"
        return {"samples": Media("image", _grid(samples), _grid(reference), caption=caption)}


def _grid(images: np.ndarray, columns: int = 8, scale: int = 4) -> np.ndarray:
    """Images [N, H, W] in [0, 1] as one uint8 picture: a pixel is `scale` wide, a black line lies between."""
    count, height, width = images.shape
    padded = np.pad(images, ((0, -count % columns), (0, 1), (0, 1)))
    rows = padded.reshape(-1, columns, height + 1, width + 1).transpose(0, 2, 1, 3)
    picture = rows.reshape(-1, columns * (width + 1)).repeat(scale, 0).repeat(scale, 1)
    return np.round(255 * picture).astype(np.uint8)
