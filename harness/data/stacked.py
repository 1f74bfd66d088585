"""Three digits as the channels of one image: 1,000 modes, one for every number of three digits.

Training rows are triples of training digits drawn afresh. Sources of the protocol: Metz et al. 2017 (unrolled GANs),
Srivastava et al. 2017 (VEEGAN).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.data import digits, images
from harness.data.cards import Card, DataSet, Rows, digest

__all__ = ["SETS"]

ROWS = {"train": 10_000, "validation": 2_000, "test": 10_000}


def stack(rows: Rows, rng: np.random.Generator, shape: Sequence[int]) -> Rows:
    """Triples of rows with replacement, x [*shape, 3, H, W]; the label is the number that the digits spell."""
    picked = rng.integers(len(rows), size=(*shape, 3))
    return Rows(rows.x[picked], rows.y[picked] @ np.array([100, 10, 1]))


def _set(name: str, base: Card) -> DataSet:
    card = Card(
        name=name,
        kind="images",
        source=f"triples of {base.name} as three channels, 1,000 modes (computed)",
        licence=base.licence,
        sha256=digest(f"triples of {base.sha256} as three channels"),
        shape=(3, *base.shape),
        classes=1000,
        rows=ROWS,
        get=base.get,
    )
    return DataSet(card, combine=stack, base=base.name)


SETS = {
    "stacked-digits": _set("stacked-digits", digits.CARD),
    "stacked-mnist": _set("stacked-mnist", images.MNIST),
}
