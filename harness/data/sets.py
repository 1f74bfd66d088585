"""Rows of the data sets, by name."""

from __future__ import annotations

from functools import cache

from harness.data import digits, ring
from harness.data.cards import card
from harness.data.digits import Rows

__all__ = ["load"]

_READERS = {"digits": digits.read, "ring-8": ring.read}


@cache
def load(name: str) -> dict[str, Rows]:
    """The splits of a data set: "train" (60 %), "validation" (20 %) and "test" (20 %), always the same rows.

    The arrays are shared between callers and cannot be written to.

    Raises:
        DataError: there is no such data set, or its file is missing.
    """
    splits = _READERS[card(name).name]()
    for rows in splits.values():
        rows.x.flags.writeable = False
        rows.y.flags.writeable = False
    return splits
