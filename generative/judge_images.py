"""The judges of images: distances on an extractor's features, neighbours, memorisation, classes; stacked modes.

Legend: N samples, R held-out rows, T training rows, F features, C classes.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from generative import extractors
from generative.extractors import Extractor, features
from generative.metrics import frechet_distance, frechet_of_rows, kernel_distance, moments, reverse_kl
from generative.metrics_neighbours import memorised_share, nearest, neighbour_metrics, radii
from generative.pictures import beside, grid
from harness import data
from harness.data import Card
from harness.learner import Media
from harness.randomness import generator
from harness.spec import Score

__all__ = ["STACKED", "ImagesJudge", "StackedJudge"]

STACKED = {"stacked-digits": "digits", "stacked-mnist": "mnist-5k"}  # -> the set whose images are the channels
NEIGHBOURS = 5  # Naeem et al. 2020
SEARCHED = 256  # samples whose nearest training rows are looked for: all 55,000 x 784 numbers are compared with each
SHOWN = 64
WIDE = 2048  # features: the root of a covariance of more takes minutes


def extractor_for(name: str, extractor: str | nn.Module) -> tuple[str, nn.Module]:
    """The name that stands in metrics, and the module; see `generative.judge.Judge`."""
    if isinstance(extractor, nn.Module):
        return type(extractor).__name__.lower(), extractor
    if extractor == "auto":
        extractor = extractors.extractor_of(name) or "pixels"
    return (extractor, nn.Flatten()) if extractor == "pixels" else (extractor, extractors.extractor(extractor))


def channel_features(module: nn.Module, rows: Tensor) -> Tensor:
    """Features float64 [N, C F] of images whose channels [N, C, H, W] are images of their own."""
    return features(module, rows.flatten(0, 1)).reshape(len(rows), -1)


@lru_cache(maxsize=8)
def held_out(name: str, module: nn.Module) -> Tensor:
    """Features float64 [R, F] of the test split, once a process."""
    rows = torch.tensor(data.load(name)["test"].x)
    return channel_features(module, rows) if name in STACKED else features(module, rows)


@lru_cache(maxsize=8)
def held_out_moments(name: str, module: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and covariance of `held_out`."""
    return moments(held_out(name, module))


@lru_cache(maxsize=8)
def held_out_radii(name: str, module: nn.Module, count: int) -> Tensor:
    """Radii of the first `count` rows of `held_out`."""
    return radii(held_out(name, module)[:count], NEIGHBOURS)


@lru_cache(maxsize=8)
def usual_distance(name: str) -> Tensor:
    """The median distance in pixels from a validation row to its nearest training row."""
    splits = data.load(name)
    found, _ = nearest(torch.tensor(splits["validation"].x[:SEARCHED]), training(name))
    return found.median()


@lru_cache(maxsize=2)
def training(name: str) -> Tensor:
    """The training images."""
    return torch.tensor(data.load(name)["train"].x)


class ImagesJudge:
    """Judges images [N, *shape] in [0, 1]; see `generative.judge.Judge`."""

    fewest = NEIGHBOURS + 1

    def __init__(self, card: Card, extractor: str | nn.Module = "auto") -> None:
        self.card = card
        self.name, self.module = extractor_for(card.name, extractor)

    @staticmethod
    def score(card: Card) -> Score:
        """The Frechet distance on the data set's own extractor."""
        return Score(f"frechet_{extractors.extractor_of(card.name) or 'pixels'}", "min", worst=1e6)

    def scores(self, rows: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """Distances and neighbours in feature space, memorisation in pixels, classes where they can be told.

        "frechet_<extractor>" and "kernel_<extractor>"; "precision", "recall", "density" and "coverage" on as many
        held-out rows as there are samples; "memorised" and "nearest_ratio" (the median distance to the nearest training
        row over that of validation rows: below 1 samples lie nearer to the training rows than new rows do), both of the
        first 256; "modes" (classes with a hundredth of the samples' equal part) and "reverse_kl" of the classifier's
        labels; "label_accuracy" where labels were asked for.
        """
        found, real = features(self.module, rows), held_out(self.card.name, self.module)
        count = min(len(rows), len(real))
        scores = {
            f"frechet_{self.name}": self._frechet(found, real),
            f"kernel_{self.name}": kernel_distance(found[:count], real[:count]),
            **neighbour_metrics(
                found[:count], real[:count], NEIGHBOURS, held_out_radii(self.card.name, self.module, count)
            ),
            **self._copies(rows[:SEARCHED]),
        }
        if isinstance(self.module, Extractor):
            scores |= self._classes(self.module.logits(found.float()).argmax(-1), labels)
        return scores

    def _frechet(self, found: Tensor, real: Tensor) -> Tensor:
        if found.shape[1] > WIDE:
            return frechet_of_rows(found, real)
        return frechet_distance(moments(found), held_out_moments(self.card.name, self.module))

    def _copies(self, rows: Tensor) -> dict[str, Tensor]:
        distance, _ = nearest(rows, training(self.card.name), k=2)
        ratio = distance[:, 0].median() / usual_distance(self.card.name)
        return {"memorised": memorised_share(distance), "nearest_ratio": ratio}

    def _classes(self, guess: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        classes = self.card.classes
        counts = torch.bincount(guess, minlength=classes)
        shares = np.bincount(data.load(self.card.name)["test"].y, minlength=classes)
        scores = {
            "modes": (counts >= 0.01 * len(guess) / classes).sum().double(),
            "reverse_kl": reverse_kl(counts, torch.as_tensor(shares / shares.sum())),
        }
        return scores if labels is None else scores | {"label_accuracy": (guess == labels).double().mean()}

    def media(self, rows: Tensor, labels: Tensor | None) -> dict[str, Media]:
        """Samples beside real images, and beside the training images nearest to them."""
        test, columns = data.load(self.card.name)["test"], self._columns(labels)
        shown = rows[: SHOWN - SHOWN % columns]
        order = np.arange(min(len(shown), len(test)))  # there may be fewer images than are shown
        if labels is not None:
            order = _by_label(test.y, labels[: len(shown)].numpy())
        real = np.where((order >= 0).reshape(-1, *[1] * (test.x.ndim - 1)), test.x[order], np.float32(0))
        asked = "" if labels is None else ", both with the labels that were asked for"
        few = rows[:8]
        _, index = nearest(few, training(self.card.name), k=3)
        return {
            "samples": Media(
                "image",
                self.frame(rows, labels),
                grid(real, columns),
                caption=f"{len(shown)} generated images beside {(order >= 0).sum()} held-out ones{asked}",
            ),
            "neighbours": Media(
                "image",
                beside(few.numpy(), training(self.card.name)[index].numpy()),
                caption=f"{len(few)} generated images (top row) and below each the 3 nearest training images",
            ),
        }

    def frame(self, rows: Tensor, labels: Tensor | None) -> np.ndarray:
        """A grid of the first samples; a class a column where labels were asked for."""
        columns = self._columns(labels)
        return grid(rows[: SHOWN - SHOWN % columns].numpy(), columns)

    def _columns(self, labels: Tensor | None) -> int:
        return 8 if labels is None or self.card.classes > 16 else self.card.classes

    def real(self, count: int) -> tuple[Tensor, Tensor | None]:
        """Validation rows, at most as many as there are."""
        rows = data.load(self.card.name)["validation"]
        return torch.tensor(rows.x[:count]), None


def _by_label(y: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Indices of rows with the wanted labels, a row taken once where there are enough; -1 for a label without any."""
    rows = {label: np.flatnonzero(y == label) for label in np.unique(wanted)}
    places = {label: iter(np.resize(found if len(found) else -1, len(wanted))) for label, found in rows.items()}
    return np.array([next(places[label]) for label in wanted])


class StackedJudge:
    """Judges stacks of three digits [N, 3, H, W]: 1,000 modes, by the classifier of one channel.

    Protocol: Metz et al. 2017 (unrolled GANs): 26,000 samples; a mode counts as covered by one sample. The data's own
    reverse KL is (M - 1) / 2N in expectation, 0.0192, and what the classifier mistakes (`Judge.ceiling`).
    """

    fewest = 2

    def __init__(self, card: Card, extractor: str | nn.Module = "auto") -> None:
        self.card, self.base = card, STACKED[card.name]
        self.name, self.module = extractor_for(self.base, extractor)
        if not isinstance(self.module, Extractor):
            raise ValueError(f"{card.name} is judged by a classifier of {self.base}: take the extractor 'auto'")
        self.classifier: Extractor = self.module
        digits = np.bincount(data.load(self.base)["train"].y, minlength=10)
        one = torch.as_tensor(digits / digits.sum())
        self.probabilities = (one[:, None, None] * one[:, None] * one).flatten()  # of 100 a + 10 b + c

    @staticmethod
    def score(card: Card) -> Score:
        """Reverse KL over modes; the worst is that of a single mode."""
        return Score("reverse_kl", "min", worst=math.log(1000))

    def scores(self, rows: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """Modes that hold a sample, reverse KL from the training digits' shares, Frechet distance of all channels."""
        found = channel_features(self.module, rows)
        digits = self.classifier.logits(found.reshape(len(found), 3, -1).float()).argmax(-1)  # [N, 3]
        counts = torch.bincount(digits @ torch.tensor([100, 10, 1]), minlength=1000)
        return {
            "modes": (counts > 0).sum().double(),
            "reverse_kl": reverse_kl(counts, self.probabilities),
            f"frechet_{self.name}": frechet_distance(moments(found), held_out_moments(self.card.name, self.module)),
        }

    def media(self, rows: Tensor, labels: Tensor | None) -> dict[str, Media]:
        """Samples beside real stacks, the three digits as red, green and blue."""
        test = data.load(self.card.name)["test"].x[:SHOWN]
        caption = f"{min(SHOWN, len(rows))} generated stacks beside {len(test)} held-out ones; a digit in each colour"
        return {"samples": Media("image", self.frame(rows, labels), grid(test), caption=caption)}

    def frame(self, rows: Tensor, labels: Tensor | None) -> np.ndarray:
        """A grid of the first samples."""
        return grid(rows[:SHOWN].numpy())

    def real(self, count: int) -> tuple[Tensor, Tensor | None]:
        """Stacks of training digits drawn afresh."""
        return torch.as_tensor(data.draw(self.card.name, generator(0, "judge/real"), (count,))).float(), None
