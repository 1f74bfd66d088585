"""The 1,797 scanned digits of 8 x 8 pixels that scikit-learn ships, read from its file without importing it.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
1998.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.data.cards import Card, DataSet, Rows, cut, hashed_order, split_sizes
from harness.data.files import packaged, unpacked

__all__ = ["SETS", "SHAPE"]

SHAPE = (8, 8)
CARD = Card(
    name="digits",
    kind="images",
    source="Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998), scikit-learn's digits.csv.gz",
    licence="CC BY 4.0 (UCI Machine Learning Repository), shipped by scikit-learn (BSD-3-Clause)",
    sha256="6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8",
    shape=SHAPE,
    classes=10,
    rows=split_sizes(1797),
    get="comes with scikit-learn",
)


def paths() -> list[Path]:
    """The file: 1,797 lines of 64 pixels in 0..16 and a label."""
    return [packaged(CARD, "sklearn", "datasets/data/digits.csv.gz")]


def read() -> dict[str, Rows]:
    """The splits, by the sha256 of each row's pixels."""
    table = np.loadtxt(unpacked(paths()).decode().splitlines(), delimiter=",", dtype=np.float32)
    pixels = table[:, :-1].astype(np.uint8)
    order = hashed_order([row.tobytes() for row in pixels])
    images = (pixels[order].astype(np.float32) / 16).reshape(-1, *SHAPE)
    return cut(images, table[order, -1].astype(np.int64), CARD.rows)


SETS = {"digits": DataSet(CARD, read, paths)}
