"""The 1,797 scanned digits of 8 x 8 pixels that scikit-learn ships, read from its file without importing it.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
1998.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

__all__ = ["SHAPE", "SOURCE", "DataError", "Rows", "content", "read", "split_sizes"]

SHAPE = (8, 8)
SOURCE = "Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998), scikit-learn's digits.csv.gz"
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


class DataError(Exception):
    """A data set does not exist or its files are missing; the text is the complete message."""


@dataclass(frozen=True)
class Rows:
    """Rows of one split.

    Attributes:
        x: float32 [N, *shape]; images in [0, 1].
        y: int64 [N], labels (for points: the mode each came from).
    """

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)


@lru_cache(maxsize=1)
def content() -> bytes:
    """The text of the file: 1,797 lines of 64 pixels in 0..16 and a label.

    Raises:
        DataError: scikit-learn or its file is missing.
    """
    found = importlib.util.find_spec("sklearn")
    folders = list(found.submodule_search_locations or ()) if found else []
    for folder in folders:
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return gzip.decompress(path.read_bytes())
    raise DataError("data set 'digits' needs scikit-learn's digits.csv.gz: pip install scikit-learn")


def split_sizes(count: int) -> dict[str, int]:
    """How many of `count` rows each split has; the test split gets what rounding leaves."""
    train, validation = round(SHARES["train"] * count), round(SHARES["validation"] * count)
    return {"train": train, "validation": validation, "test": count - train - validation}


def read() -> dict[str, Rows]:
    """The splits "train", "validation" and "test" (a fifth).

    A row's place follows from the sha256 of its pixels, so that the order of the file does not matter, no
    library's shuffling can move a row, and the writers are mixed.
    """
    table = np.loadtxt(content().decode().splitlines(), delimiter=",", dtype=np.float32)
    pixels = table[:, :-1].astype(np.uint8)
    order = np.argsort([hashlib.sha256(row.tobytes()).hexdigest() for row in pixels], kind="stable")
    images = (pixels[order].astype(np.float32) / 16).reshape(-1, *SHAPE)
    labels = table[order, -1].astype(np.int64)
    sizes = split_sizes(len(table))
    stops = np.cumsum(list(sizes.values()))
    return {
        name: Rows(images[stop - size : stop], labels[stop - size : stop])
        for (name, size), stop in zip(sizes.items(), stops, strict=True)
    }
