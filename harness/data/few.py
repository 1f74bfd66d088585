"""The first training rows of a data set: small data that is the same for every learner that asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from harness.data.cards import Card, Rows, hashed_order
from harness.data.sets import card, draw_rows, load

__all__ = ["check_few", "draw_few", "few"]


def check_few(card: Card, count: int) -> None:
    """Refuses a number of training rows that a data set does not have, or that leaves a class without one.

    Raises:
        ValueError: says what there is.
    """
    if count and not card.classes <= count <= card.rows["train"]:
        have = f"{card.rows['train']} training rows and {card.classes} classes"
        raise ValueError(f"train_rows: '{card.name}' has {have}; {count} do not fit (0 is all)")


@cache
def few(name: str, count: int) -> Rows:
    """The first `count` training rows by the sha256 of each, as many of every class (but for a rest), or all for 0.

    Fewer rows are always among more.

    `check_few` says which counts fit.
    """
    train, classes = load(name)["train"], card(name).classes
    if not count:
        return train
    order = hashed_order([row.tobytes() for row in train.x])
    labels = train.y[order] if classes else np.zeros(len(order), np.int64)
    rank = np.empty(len(order), np.int64)  # how many rows of its class come before a row
    for label in np.unique(labels):
        of_it = labels == label
        rank[of_it] = np.arange(of_it.sum())
    picked = order[np.argsort(rank, kind="stable")[:count]]
    return Rows(train.x[picked], train.y[picked])


def draw_few(name: str, count: int, rng: np.random.Generator, shape: Sequence[int]) -> Rows:
    """Training rows with their labels as `draw_rows`, but from the first `count` alone; 0 for all."""
    if not count:
        return draw_rows(name, rng, shape)
    rows = few(name, count)
    picked = rng.integers(len(rows), size=shape)
    return Rows(rows.x[picked], rows.y[picked])
