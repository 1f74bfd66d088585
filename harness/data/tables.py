"""Tables that scikit-learn ships, read from its files without importing it; columns standardised by the training rows.

Sources: Fisher 1936 (iris), Aeberhard et al. 1992 (wine), Wolberg, Street, Mangasarian 1995 (breast cancer), Efron et
al. 2004 (diabetes: a number to predict).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from harness.data.cards import Card, DataSet, Rows, cut, hashed_order, split_sizes
from harness.data.files import packaged, unpacked

__all__ = ["SETS", "spread", "standardised"]


def standardised(splits: dict[str, Rows]) -> dict[str, Rows]:
    """Every column (the last axis) with mean 0 and variance 1 over the training rows; a constant one is 0 there."""
    train = splits["train"].x
    mean, scale = train.mean(tuple(range(train.ndim - 1))), spread(train)
    return {split: Rows(((rows.x - mean) / scale).astype(np.float32), rows.y) for split, rows in splits.items()}


def spread(train: np.ndarray) -> np.ndarray:
    """The standard deviation of every column (the last axis), 1 of a constant one: its rounded mean leaves a rest."""
    axes = tuple(range(train.ndim - 1))
    return np.where(train.max(axes) > train.min(axes), train.std(axes), 1)


def read_classes(card: Card, paths: Callable[[], list[Path]]) -> dict[str, Rows]:
    """A heading, then lines of features and a label; the splits by the sha256 of each line."""
    lines = unpacked(paths()).decode().splitlines()[1:]
    table = np.loadtxt(lines, delimiter=",")[hashed_order([line.encode() for line in lines])]
    return standardised(cut(table[:, :-1], table[:, -1].astype(np.int64), card.rows))


def read_diabetes(card: Card, paths: Callable[[], list[Path]]) -> dict[str, Rows]:
    """Lines of features in one file, lines of targets in another; the splits by the sha256 of each line of features."""
    lines, targets = (unpacked([path]).decode().splitlines() for path in paths())
    order = hashed_order([line.encode() for line in lines])
    return standardised(cut(np.loadtxt(lines)[order], np.array(targets, dtype=np.float32)[order], card.rows))


def _set(name: str, source: str, sha256: str, size: tuple[int, int, int], files: tuple[str, ...]) -> DataSet:
    features, classes, count = size
    card = Card(
        name=name,
        kind="table",
        source=f"{source}, scikit-learn's {' and '.join(files)}",
        licence="CC BY 4.0 (UCI Machine Learning Repository), shipped by scikit-learn (BSD-3-Clause)",
        sha256=sha256,
        shape=(features,),
        classes=classes,
        rows=split_sizes(count),
        get="comes with scikit-learn",
    )

    def paths() -> list[Path]:
        return [packaged(card, "sklearn", f"datasets/data/{file}") for file in files]

    return DataSet(card, partial(read_classes if classes else read_diabetes, card, paths), paths)


# name, source, sha256, (features, classes, rows), files
TABLES = (
    (
        "breast-cancer",
        "Breast Cancer Wisconsin (Wolberg et al., 1995): malignant 0, benign 1",
        "fed3eb72d0575ef6192293f5093c6e801b1476b577d0386bf4455504522172ed",
        (30, 2, 569),
        ("breast_cancer.csv",),
    ),
    (
        "diabetes",
        "Diabetes (Efron et al., 2004): progression after a year from ten measures",
        "5445f854eeaa6db415a8b02c33e87c81e41ed1d57e2de61641e6e7bf43af4b15",
        (10, 0, 442),
        ("diabetes_data_raw.csv.gz", "diabetes_target.csv.gz"),
    ),
    (
        "iris",
        "Iris (Fisher, 1936)",
        "f13ffa8fdd56fd8e6c8d16d4081a3fbd3114bcd0aae4256c43205169cd9d1449",
        (4, 3, 150),
        ("iris.csv",),
    ),
    (
        "wine",
        "Wine (Aeberhard et al., 1992)",
        "10e8a802908b34f86e5da8ce962f3c806694bc98450a18f61851af59f324bede",
        (13, 3, 178),
        ("wine_data.csv",),
    ),
)
SETS = {table[0]: _set(*table) for table in TABLES}
