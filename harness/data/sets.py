"""All data sets by name: cards, rows, draws."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache

import numpy as np

from harness.data import digits, moving, plane
from harness.data.cards import Card, DataError, DataSet, Kind, Rows

__all__ = ["card", "draw", "draw_rows", "load", "names"]

# A module of data sets is one line here.
_SETS: dict[str, DataSet] = {
    **plane.SETS,
    **digits.SETS,
    **moving.SETS,
}


def names(kind: Kind | None = None) -> list[str]:
    """Names of all data sets, or of those of one kind."""
    return sorted(name for name, found in _SETS.items() if kind in (None, found.card.kind))


def _set(name: str) -> DataSet:
    if name not in _SETS:
        raise DataError(f"no data set is called {name!r}; there are {', '.join(names())}")
    return _SETS[name]


@cache
def card(name: str) -> Card:
    """The card of a data set whose files are here and are what the card says.

    Raises:
        DataError: there is no such data set, or its files are missing or others.
    """
    found = _set(name)
    if found.content and hashlib.sha256(found.content()).hexdigest() != found.card.sha256:
        raise DataError(f"the files of data set {name!r} are damaged or of another version: {found.card.get}")
    return found.card


@cache
def load(name: str) -> dict[str, Rows]:
    """The splits of a data set, "train", "validation" and "test": always the same rows.

    The arrays are shared between callers and cannot be written to.

    Raises:
        DataError: there is no such data set, or its files are missing or others.
    """
    splits = _set(card(name).name).read()
    for rows in splits.values():
        rows.x.flags.writeable = False
        rows.y.flags.writeable = False
    return splits


def draw_rows(name: str, rng: np.random.Generator, shape: Sequence[int]) -> Rows:
    """Training rows with their labels: afresh for computed sets, picked with replacement from stored ones.

    Args:
        name: of the data set.
        rng: where all randomness comes from.
        shape: how many; x is [*shape, *card.shape] and y [*shape].
    """
    found = _set(card(name).name)
    if found.draw:
        return found.draw(rng, shape)
    train = load(name)["train"]
    picked = rng.integers(len(train), size=shape)
    return Rows(train.x[picked], train.y[picked])


def draw(name: str, rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Training rows [*shape, *card.shape], as `draw_rows` without the labels."""
    return draw_rows(name, rng, shape).x
