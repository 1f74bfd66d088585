"""A judge of a data set's kind: which metrics generated rows get, on which features, and what is shown of them.

    judge = Judge(data.card("fashion-mnist"))
    judge.scores(samples)["frechet_fashion_cnn"]
    judge.ceiling(2000)                            # the same of real rows: what the best generator can reach

Real rows are the held-out test split; memorisation alone looks at the training split. What is computed from real rows
is computed once a process.
"""

from __future__ import annotations

import importlib
from typing import Protocol

import numpy as np
from torch import Tensor, nn

from generative.judge_images import STACKED
from harness import data
from harness.data import Card
from harness.learner import Media
from harness.spec import Score

__all__ = ["JUDGES", "Judge", "check_held_out", "judge_score"]

HELD = 0.2  # share of a data set that is held out
JUDGES = {  # by kind of data; imported when needed
    "points": "generative.judge_points:PointsJudge",
    "images": "generative.judge_images:ImagesJudge",
    "stacked": "generative.judge_images:StackedJudge",
    "video": "generative.video_judge:VideoJudge",
}


class Judging(Protocol):
    """What a judge of one kind can do; see `Judge` for the methods.

    Attributes:
        fewest: rows that `scores` needs at least.
    """

    fewest: int

    def __init__(self, card: Card, extractor: str | nn.Module) -> None: ...

    @staticmethod
    def score(card: Card) -> Score: ...

    def scores(self, rows: Tensor, labels: Tensor | None) -> dict[str, Tensor]: ...

    def media(self, rows: Tensor, labels: Tensor | None) -> dict[str, Media]: ...

    def frame(self, rows: Tensor, labels: Tensor | None) -> np.ndarray: ...

    def real(self, count: int) -> tuple[Tensor, Tensor | None]: ...


class Judge:
    """Judges generated rows of one data set.

    Args:
        card: the data set's.
        extractor: "auto" takes the one that was trained on the data set (`generative.extractors`), or raw pixels where
            there is none; another's name; or any module from rows [B, *shape] in [0, 1] to features [B, F], whose class
            then gives the metrics their name.

    Raises:
        ValueError: there is no judge for such data.
        ExtractorError: there is no such extractor, or its file is damaged.
    """

    def __init__(self, card: Card, extractor: str | nn.Module = "auto") -> None:
        self.card = card
        self._of: Judging = _judge_class(card)(card, extractor)

    def scores(self, rows: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """The metrics of samples, 0-dim float64 tensors on the CPU; NaN samples give NaN or the worst value.

        Args:
            rows: [N, *card.shape] in the data's range.
            labels: int64 [N], those that the rows were asked for; None without conditions.

        Raises:
            ValueError: too few rows, or rows of another shape.
        """
        rows = rows.detach().cpu()
        if tuple(rows.shape[1:]) != self.card.shape:
            raise ValueError(
                f"{self.card.name} has rows of shape {self.card.shape}, the samples' is {tuple(rows.shape[1:])}"
            )
        if len(rows) < self._of.fewest:
            raise ValueError(
                f"judging samples of {self.card.name} takes at least {self._of.fewest} of them, there are {len(rows)}: "
                "raise the field `samples`"
            )
        return self._of.scores(rows, None if labels is None else labels.cpu())

    def media(self, rows: Tensor, labels: Tensor | None = None) -> dict[str, Media]:
        """Pictures of samples beside real rows, by name; arguments as for `scores`."""
        return self._of.media(rows.detach().cpu(), None if labels is None else labels.cpu())

    def frame(self, rows: Tensor, labels: Tensor | None = None) -> np.ndarray:
        """One picture, uint8, of samples of fixed noise: over training they become a video."""
        return self._of.frame(rows.detach().cpu(), None if labels is None else labels.cpu())

    def ceiling(self, count: int) -> dict[str, Tensor]:
        """The scores of as many real rows that are neither in the reference nor, where stored, in training."""
        return self.scores(*self._of.real(count))


def check_held_out(card: Card) -> None:
    """Refuses data of which too few rows are held out to judge by.

    Raises:
        ValueError: says how many are needed; or there is no judge for such data.
    """
    fewest, count = _judge_class(card).fewest, sum(card.rows.values())
    held = min(card.rows.values(), default=fewest)
    if held < fewest:
        raise ValueError(
            f"data: '{card.name}' has {count} rows, of which {held} are held out; a generator is judged by at least"
            f" {fewest}, so give it about {round(fewest / HELD)} rows"
        )


def judge_score(card: Card) -> Score:
    """The headline metric of a generator for a data set.

    Raises:
        ValueError: there is no judge for such data.
    """
    return _judge_class(card).score(card)


def _judge_class(card: Card) -> type[Judging]:
    kind = "stacked" if card.name in STACKED else card.kind
    if kind not in JUDGES:
        raise ValueError(
            f"field data: {card.name} is of kind '{card.kind}', which no judge can look at; "
            f"take one of {', '.join(name for kind in ('points', 'images', 'video') for name in data.names(kind))}"
        )
    module, _, name = JUDGES[kind].partition(":")
    return getattr(importlib.import_module(module), name)
