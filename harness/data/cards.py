"""What a data set is: its card, its rows, its splits; and `DataSet`, one line of the tables in `sets.py`.

A card is made without torch and without importing the package that ships the data, so that `seedbed plan` stays quick.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

__all__ = [
    "COMPUTED",
    "Card",
    "DataError",
    "DataSet",
    "Kind",
    "Rows",
    "cut",
    "digest",
    "hashed_order",
    "places",
    "split_sizes",
]

Kind = Literal["images", "points", "video", "tokens", "series", "table", "pairs"]
COMPUTED = "computed: nothing to get"
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


class DataError(ValueError):
    """A data set does not exist, or its files are missing or damaged; the text is the complete message.

    A ValueError, so that one raised while a configuration is validated becomes an error of the field.
    """


@dataclass(frozen=True)
class Card:
    """What a data set is.

    Attributes:
        name: as experiment files write it.
        kind: "images" and "video" (pixels in [0, 1]), "points", "tokens", "series", "table" or "pairs" (of texts).
        source: where the data comes from, for people.
        licence: under which it may be used.
        sha256: of the content (files) or of the definition (computed sets); part of a trial's identity.
        shape: of one row: (height, width) or (channels, height, width) of an image, (features,) of a point or of a line
            of a table, (frames, channels, height, width) of a clip, (length,) of tokens, (steps, features) of a series;
            () of a pair.
        classes: how many labels there are (modes, for points), 0 where the target is a number or free text; for tokens,
            the size of the vocabulary.
        rows: how many rows each split has: "train", "validation", "test"; empty where there are none to load.
        get: one sentence on how to get it.
    """

    name: str
    kind: Kind
    source: str
    licence: str
    sha256: str
    shape: tuple[int, ...]
    classes: int
    rows: Mapping[str, int]
    get: str = COMPUTED


@dataclass(frozen=True)
class Rows:
    """Rows of one split.

    Attributes:
        x: float32 [N, *shape] (images and clips in [0, 1]), or int64 [N, length] for tokens.
        y: int64 [N], labels (for points the mode each came from, for tokens the document); numbers to predict [N] where
            the card has no classes, float64 where float32 would not hold all their digits.
    """

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class DataSet:
    """A data set: what it is and how to come by its rows: by one of `read`, `draw`, `combine` and `texts`.

    Attributes:
        card: what it is; the sha256 of a stored set is that of its files' unpacked bytes, one after the other.
        read: makes the splits of a stored set.
        paths: finds its files.
        draw: draws rows of a computed set from (rng, shape): x [*shape, *card.shape], y [*shape].
        combine: the same from (rows, rng, shape), out of the rows of another set's split.
        base: that other set.
        streams: makes the token stream of every split, int64 [n].
        texts: makes the pairs of every split, (source, target).
        alphabet: character i is what token i spells.
    """

    card: Card
    read: Callable[[], dict[str, Rows]] | None = None
    paths: Callable[[], list[Path]] | None = None
    draw: Callable[[np.random.Generator, Sequence[int]], Rows] | None = None
    combine: Callable[[Rows, np.random.Generator, Sequence[int]], Rows] | None = None
    base: str = ""
    streams: Callable[[], dict[str, np.ndarray]] | None = None
    texts: Callable[[], dict[str, list[tuple[str, str]]]] | None = None
    alphabet: str = ""


def digest(definition: str) -> str:
    """The sha256 of a computed set: that of its definition in words."""
    return hashlib.sha256(definition.encode()).hexdigest()


def split_sizes(count: int) -> dict[str, int]:
    """How many of `count` rows each split has; the test split gets what rounding leaves."""
    train, validation = round(SHARES["train"] * count), round(SHARES["validation"] * count)
    return {"train": train, "validation": validation, "test": count - train - validation}


def hashed_order(rows: Sequence[bytes]) -> np.ndarray:
    """Indices that sort rows by the sha256 of their bytes.

    The order of the file does not matter then, no library's shuffling can move a row, and sources are mixed.
    """
    return np.argsort([hashlib.sha256(row).hexdigest() for row in rows], kind="stable")


def places(sizes: Mapping[str, int]) -> dict[str, slice]:
    """Where splits of these sizes lie, one after the other."""
    stops = np.cumsum(list(sizes.values())).tolist()
    return {name: slice(stop - size, stop) for (name, size), stop in zip(sizes.items(), stops, strict=True)}


def cut(x: np.ndarray, y: np.ndarray, sizes: Mapping[str, int]) -> dict[str, Rows]:
    """Splits of these sizes, one after the other."""
    return {name: Rows(x[place], y[place]) for name, place in places(sizes).items()}
