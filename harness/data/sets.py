"""All data sets by name: cards, rows, draws."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from harness.data import (
    bilingual,
    digits,
    images,
    moving,
    office,
    oracle,
    own,
    plane,
    series,
    stacked,
    stories,
    tables,
    text,
)
from harness.data.cards import Card, DataError, DataSet, Kind, Rows
from harness.data.files import unpacked
from harness.randomness import generator

__all__ = ["about", "card", "draw", "draw_rows", "lacking", "load", "names", "pairs", "spelled", "tokens"]

# A module of data sets is one line here.
_SETS: dict[str, DataSet] = {
    **plane.SETS,
    **digits.SETS,
    **images.SETS,
    **stacked.SETS,
    **moving.SETS,
    **text.SETS,
    **oracle.SETS,
    **tables.SETS,
    **series.SETS,
    **bilingual.SETS,
    **office.SETS,
    **stories.SETS,
}


def names(kind: Kind | None = None) -> list[str]:
    """Names of all data sets, or of those of one kind."""
    return sorted(name for name, found in _SETS.items() if kind in (None, found.card.kind))


def _set(name: str) -> DataSet:
    if own.is_path(name):
        return own.opened(name)
    if name not in _SETS:
        here = f"; for the file or folder of that name write ./{name}" if _is_here(name) else ""
        raise DataError(f"no data set is called {name[:200]!r}{here}; there are {', '.join(names())}")
    return _SETS[name]


def _is_here(name: str) -> bool:
    try:
        return bool(name) and Path(name).exists()
    except (OSError, ValueError):  # no name of a file either
        return False


def about(name: str) -> Card:
    """The card of a data set, whether its files are here or not.

    Raises:
        DataError: there is no such data set.
    """
    return _set(name).card


def lacking(name: str) -> str | None:
    """Why a data set cannot be used here and what to do; None if it can."""
    try:
        card(name)
    except DataError as error:
        return str(error)
    return None


@cache
def card(name: str) -> Card:
    """The card of a data set whose files are here and are what the card says.

    Raises:
        DataError: there is no such data set, or its files are missing or others.
    """
    found = _set(name)
    if found.base:
        card(found.base)
    if found.paths:
        paths = found.paths()
        if hashlib.sha256(unpacked(paths)).hexdigest() != found.card.sha256:
            where = paths[0] if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} files)"
            raise DataError(f"data set {name!r}: {where} is damaged or of another version: {found.card.get}")
    return found.card


def _fresh(found: DataSet, split: str, rng: np.random.Generator, shape: Sequence[int]) -> Rows:
    """Rows of a computed set."""
    if found.combine:
        return found.combine(load(found.base)[split], rng, shape)
    if found.draw:
        return found.draw(rng, shape)
    raise _rowless(found.card)


def _rowless(card: Card) -> DataError:
    return DataError(f"data set {card.name!r} has no rows of numbers: it is {card.source}")


@cache
def load(name: str) -> dict[str, Rows]:
    """The splits of a data set, "train", "validation" and "test": always the same rows.

    The arrays are shared between callers and cannot be written to.

    Raises:
        DataError: there is no such data set, its files are missing or others, or it has no rows.
    """
    found = _set(card(name).name)
    if found.read:
        splits = found.read()
    else:
        splits = {
            split: _fresh(found, split, generator(0, f"data/{name}/{split}"), (count,))
            for split, count in found.card.rows.items()
        }
    if not splits:
        raise _rowless(found.card)
    for rows in splits.values():
        rows.x.flags.writeable = False
        rows.y.flags.writeable = False
    return splits


@cache
def tokens(name: str) -> dict[str, np.ndarray]:
    """The token stream of every split, int64 [n]: whole documents one after the other; read-only.

    Raises:
        DataError: there is no such data set, its files are missing or others, or it is no text.
    """
    streams = _set(card(name).name).streams
    if not streams:
        having = ", ".join(other for other, found in sorted(_SETS.items()) if found.streams)
        raise DataError(f"data set {name!r} has no token streams; sets that have: {having}")
    splits = streams()
    for stream in splits.values():
        stream.flags.writeable = False
    return splits


@cache
def pairs(name: str) -> dict[str, list[tuple[str, str]]]:
    """The pairs (source, target) of every split.

    Raises:
        DataError: there is no such data set, its files are missing or others, or it has no pairs of texts.
    """
    texts = _set(card(name).name).texts
    if not texts:
        raise DataError(f"data set {name!r} has no pairs of texts; sets that have: {', '.join(names('pairs'))}")
    return texts()


def spelled(name: str, ids: np.ndarray) -> str:
    """The text of tokens [n] of a set of characters."""
    alphabet = _set(name).alphabet
    return "".join(alphabet[token] for token in ids.tolist())


def draw_rows(name: str, rng: np.random.Generator, shape: Sequence[int]) -> Rows:
    """Training rows with their labels: afresh for computed sets, picked with replacement from stored ones.

    Args:
        name: of the data set.
        rng: where all randomness comes from.
        shape: how many; x is [*shape, *card.shape] and y [*shape].
    """
    found = _set(card(name).name)
    if not found.read:
        return _fresh(found, "train", rng, shape)
    train = load(name)["train"]
    picked = rng.integers(len(train), size=shape)
    return Rows(train.x[picked], train.y[picked])


def draw(name: str, rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Training rows [*shape, *card.shape], as `draw_rows` without the labels."""
    return draw_rows(name, rng, shape).x
