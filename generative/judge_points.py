"""The judge of points in the plane: known modes, energy distance, neighbours, densities."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from generative.metrics import energy_distance, frechet_distance, mode_metrics, moments
from generative.metrics_neighbours import neighbour_metrics, two_sample_accuracy
from generative.pictures import density
from harness import data
from harness.data import Card
from harness.learner import Media
from harness.randomness import generator
from harness.spec import Score

__all__ = ["PointsJudge"]

NEIGHBOURS = 5
COMPARED = 1000  # rows of either set whose distances are taken: 2,000 would cost a trial a third of a second
SHOWN = 1000


class PointsJudge:
    """Judges points [N, 2] as they are; see `generative.judge.Judge`."""

    fewest = NEIGHBOURS + 1

    def __init__(self, card: Card, extractor: str | nn.Module = "auto") -> None:
        self.card = card
        self.std = data.std(card.name)
        self.centres = None if self.std is None else torch.as_tensor(data.centres(card.name))
        self.reference = torch.tensor(data.load(card.name)["test"].x)
        self.moments = moments(self.reference)

    @staticmethod
    def score(card: Card) -> Score:
        """Overlap with the modes where there are any, else whether nearest neighbours tell samples from the data."""
        if data.std(card.name) is None:
            return Score("two_sample", "min", worst=1.0)
        return Score("overlap", "max", worst=0.0)

    def scores(self, rows: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """The Frechet distance of raw points; and of modes where they are known, else by distances between points."""
        frechet = {"frechet": frechet_distance(moments(rows), self.moments)}
        if self.std is not None and self.centres is not None:
            return frechet | mode_metrics(rows, self.centres, self.std)
        count = min(len(rows), COMPARED)
        few, real = rows[:count], self.reference[:count]
        distances = {"energy": energy_distance(few, real), "two_sample": two_sample_accuracy(few, real)}
        return frechet | distances | neighbour_metrics(few, real, NEIGHBOURS)

    def media(self, rows: Tensor, labels: Tensor | None) -> dict[str, Media]:
        """Points over points, and both densities."""
        samples, reference = rows[:SHOWN].numpy(), self.reference[:SHOWN].numpy()
        caption = f"{len(samples)} generated points beside {len(reference)} held-out ones"
        drawn = f"density of {len(self.reference)} held-out points (left) and {len(rows)} generated ones (right)"
        return {
            "samples": Media("points", samples, reference, caption=caption),
            "density": Media("image", self.frame(rows, labels), caption=drawn),
        }

    def frame(self, rows: Tensor, labels: Tensor | None) -> np.ndarray:
        """The data's density beside the samples'."""
        return density(rows.numpy(), self.reference.numpy())

    def real(self, count: int) -> tuple[Tensor, Tensor | None]:
        """Points drawn afresh."""
        return torch.as_tensor(data.draw(self.card.name, generator(0, "judge/real"), (count,))).float(), None
