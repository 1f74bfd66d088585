"""Cards: what a data set is, where it comes from, its licence, and the sha256 in a trial's identity.

A card is made without torch and without importing scikit-learn, so that `seedbed plan` stays quick.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from harness.data import digits, ring
from harness.data.digits import DataError

__all__ = ["Card", "DataError", "card", "names"]


@dataclass(frozen=True)
class Card:
    """What a data set is.

    Attributes:
        name: as experiment files write it.
        kind: "images" or "points".
        source: where the data comes from, for people.
        licence: under which it may be used.
        sha256: of the content (files) or of the definition (procedural sets); part of a trial's identity.
        shape: of one row: (height, width) of an image, (features,) of a point.
        classes: how many labels there are (modes, for points).
        rows: how many rows each split has: "train", "validation", "test".
    """

    name: str
    kind: Literal["images", "points"]
    source: str
    licence: str
    sha256: str
    shape: tuple[int, ...]
    classes: int
    rows: Mapping[str, int]


def _digits() -> Card:
    content = digits.content()
    return Card(
        name="digits",
        kind="images",
        source=digits.SOURCE,
        licence="CC BY 4.0 (UCI Machine Learning Repository), shipped by scikit-learn (BSD-3-Clause)",
        sha256=hashlib.sha256(content).hexdigest(),
        shape=digits.SHAPE,
        classes=10,
        rows=digits.split_sizes(content.count(b"\n")),
    )


def _ring() -> Card:
    return Card(
        name="ring-8",
        kind="points",
        source=ring.DEFINITION,
        licence="none needed: computed",
        sha256=hashlib.sha256(ring.DEFINITION.encode()).hexdigest(),
        shape=(2,),
        classes=ring.MODES,
        rows=ring.ROWS,
    )


_CARDS: dict[str, Callable[[], Card]] = {"digits": _digits, "ring-8": _ring}


def names() -> list[str]:
    """Names of all data sets."""
    return sorted(_CARDS)


@cache
def card(name: str) -> Card:
    """The card of a data set.

    Raises:
        DataError: there is no such data set, or its file is missing.
    """
    if name not in _CARDS:
        raise DataError(f"no data set is called {name!r}; there are {', '.join(names())}")
    return _CARDS[name]()
