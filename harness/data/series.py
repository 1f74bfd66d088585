"""Time series: MNIST-1D, made here, and sets of the UCR and UEA archives, parsed from aeon's .ts files.

Sources: Greydanus & Kobak 2024 (MNIST-1D; its package `mnist1d` makes the same numbers); Dau et al. 2018 (UCR), Bagnall
et al. 2018 (UEA).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from harness.data.cards import Card, DataError, DataSet, Rows, digest, hashed_order
from harness.data.files import packaged

__all__ = ["SETS", "mnist_1d", "parse_ts"]

# The ten digits drawn with one hand movement: twelve heights each.
TEMPLATES = """
    5 6 6.5 6.75 7 7 7 7 6.75 6.5 6 5     5 3 3 3.4 3.8 4.2 4.6 5 5.4 5.8 5 5     5 6 6.5 6.5 6 5.25 4.75 4 3.5 3.5 4 5
    5 6 6.5 6.5 6 5 5 6 6.5 6.5 6 5       5 4.4 3.8 3.2 2.6 2.6 5 5 5 5 5 5       5 3 3 3 3 5 6 6.5 6.5 6 4.5 5
    5 4 3.5 3.25 3 3 3 3 3.25 3.5 4 5     5 7 7 6.6 6.2 5.8 5.4 5 4.6 4.2 5 5     5 4 3.5 3.5 4 5 5 4 3.5 3.5 4 5
    5 4 3.5 3.5 4 5 5 5 5 4.7 4.3 5
"""
COUNT, TRAIN, VALIDATION = 5000, 4000, 400
LENGTH = 40


def templates() -> np.ndarray:
    """The ten digits, [10, 12], each standardised, starting at 0 and a sixth as high."""
    x = np.array(TEMPLATES.split(), dtype=np.float64).reshape(10, 12)
    x -= x.mean(1, keepdims=True)
    x /= x.std(1, keepdims=True)
    return (x - x[:, :1]) / 6


def _resampled(x: np.ndarray, length: int) -> np.ndarray:
    """Linear interpolation of evenly spaced values to another number of them."""
    return np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(x)), x)


def _example(template: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """One example, [40]: the digit padded, scaled, moved, with noise, sheared; the procedure of `mnist1d.transform`."""
    from scipy.ndimage import gaussian_filter

    x = np.concatenate([template + 1e-8, np.zeros(36 + int(rng.rand() * 25))])
    x = _resampled(x, 72) * (1 + 0.4 * (rng.rand() - 0.5))
    move = rng.choice(48)
    x = np.concatenate([x[-move:], x[:-move]])
    background = gaussian_filter(0.25 * rng.randn(72), 2)
    x = np.where(x != 0, x, background) + 0.02 * rng.randn(72)
    return _resampled(x - 0.75 * (rng.rand() - 0.5) * np.linspace(-0.5, 0.5, 72), LENGTH)


def mnist_1d(shuffled: bool = False, count: int = COUNT) -> tuple[np.ndarray, np.ndarray]:
    """All examples, float64 [count, 40], and their digits; the first four fifths are the training rows.

    Args:
        shuffled: permute the 40 positions, in all examples alike, which takes away what convolutions rely on.
        count: how many, a tenth of them for each digit.
    """
    rng = np.random.RandomState(42)  # the generator of the package, so that the numbers are its numbers
    x = np.stack([_example(template, rng) for template in templates() for _ in range(count // 10)])
    order = rng.permutation(count)
    x, y = x[order], np.repeat(np.arange(10), count // 10)[order]
    if shuffled:
        x = x[:, rng.permutation(LENGTH)]
    return (x - x.mean()) / x.std(), y


def read_mnist_1d(shuffled: bool) -> dict[str, Rows]:
    """Its own test rows; 400 of its training rows, by the sha256 of their places, validate."""
    x, y = mnist_1d(shuffled)
    return _with_validation(x[:TRAIN, :, None], y[:TRAIN], VALIDATION) | {"test": _rows(x[TRAIN:, :, None], y[TRAIN:])}


def _rows(x: np.ndarray, y: np.ndarray) -> Rows:
    return Rows(x.astype(np.float32), y.astype(np.int64))


def _with_validation(x: np.ndarray, y: np.ndarray, count: int) -> dict[str, Rows]:
    """Training rows cut in two: the first `count` by the sha256 of their places validate."""
    order = hashed_order([str(place).encode() for place in range(len(x))])
    held, kept = order[:count], np.sort(order[count:])
    return {"train": _rows(x[kept], y[kept]), "validation": _rows(x[held], y[held])}


def _mnist_1d_set(name: str, shuffled: bool) -> DataSet:
    extra = ", positions shuffled" if shuffled else ""
    text = f"MNIST-1D (Greydanus and Kobak, 2024): 5,000 examples of its published procedure, seed 42{extra} (computed)"
    card = Card(
        name=name,
        kind="series",
        source=text,
        licence="none needed: computed (the procedure: Apache-2.0)",
        sha256=digest(text),
        shape=(LENGTH, 1),
        classes=10,
        rows={"train": TRAIN - VALIDATION, "validation": VALIDATION, "test": COUNT - TRAIN},
    )
    return DataSet(card, partial(read_mnist_1d, shuffled))


# Files of aeon


def parse_ts(path: Path) -> tuple[np.ndarray, list[str]]:
    """A .ts file of series of one length: float64 [N, T, F], and the label of each.

    After headers (`@...`) and comments (`#...`), one series a line: the features separated by `:`, the numbers of each
    by commas, and the label last (https://www.aeon-toolkit.org, "Data storage and loading").

    Raises:
        DataError: a line cannot be read or differs in length; it names file and line.
    """
    series: list[np.ndarray] = []
    labels: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line or line[0] in "@#%":
            continue
        *features, label = line.split(":")
        try:
            one = np.array([feature.split(",") for feature in features], dtype=np.float64).T
        except ValueError:
            raise DataError(f"{path}, line {number}: its features are not numbers, or differ in length") from None
        if series and one.shape != series[0].shape:
            shapes = f"{one.shape} steps and features, {series[0].shape} above"
            raise DataError(f"{path}, line {number}: series of one length are needed; here {shapes}")
        series.append(one)
        labels.append(label.strip())
    if not series:
        raise DataError(f"{path}: no series in it")
    return np.stack(series), labels


def read_ts(card: Card, file: str) -> dict[str, Rows]:
    """The archive's test rows; a fifth of its training rows, by the sha256 of their places, validate."""
    train, test = ts_paths(card, file)
    (x, labels), (test_x, test_labels) = parse_ts(train), parse_ts(test)
    numbers = {label: number for number, label in enumerate(sorted(set(labels)))}
    y, test_y = (np.array([numbers[label] for label in found]) for found in (labels, test_labels))
    return _with_validation(x, y, card.rows["validation"]) | {"test": _rows(test_x, test_y)}


def ts_paths(card: Card, file: str) -> list[Path]:
    """The two files of an archive's set."""
    return [packaged(card, "aeon", f"datasets/data/{file}_{split}.ts") for split in ("TRAIN", "TEST")]


def _ts_set(
    name: str, source: str, file: str, sha256: str, size: tuple[int, int, int], count: tuple[int, int]
) -> DataSet:
    steps, features, classes = size
    train, test = count
    card = Card(
        name=name,
        kind="series",
        source=f"{source}, aeon's {file}_TRAIN.ts and _TEST.ts",
        licence="free for research (UCR and UEA archives), shipped by aeon (BSD-3-Clause)",
        sha256=sha256,
        shape=(steps, features),
        classes=classes,
        rows={"train": train - round(train / 5), "validation": round(train / 5), "test": test},
        get="make data, or pip install --no-deps aeon==1.6.0",
    )
    return DataSet(card, partial(read_ts, card, file), partial(ts_paths, card, file))


# name, source, file, sha256, (steps, features, classes), rows of the archive's (train, test)
ARCHIVES = (
    (
        "japanese-vowels",
        "Japanese Vowels (Kudo et al., 1999): nine speakers, brought to one length",
        "JapaneseVowels/JapaneseVowels_eq",
        "59707ed1d0db27872aa0fe13ca2d1b52636d8f686c3653339086ce231a1f701a",
        (25, 12, 9),
        (270, 370),
    ),
    (
        "gun-point",
        "GunPoint (Ratanamahatana and Keogh, 2005): a hand that draws a gun or points",
        "GunPoint/GunPoint",
        "56e2a7020f4619179d741ee07df97215192dc1b692e7dde2125189ca6e0facd6",
        (150, 1, 2),
        (50, 150),
    ),
    (
        "arrow-head",
        "ArrowHead (Ye and Keogh, 2009): outlines of arrowheads",
        "ArrowHead/ArrowHead",
        "1940040a412b55f77ad84c803acc68cb22f1bf3320bf2df096de60a25f460b56",
        (251, 1, 3),
        (36, 175),
    ),
    (
        "basic-motions",
        "BasicMotions (UEA, 2018): a watch's accelerometer and gyroscope",
        "BasicMotions/BasicMotions",
        "02492b25cf1523f36f414296656fe1f7ee5f31c0e9b3cda3d1a7450d7d6e1e93",
        (100, 6, 4),
        (40, 40),
    ),
    (
        "italy-power",
        "ItalyPowerDemand (Keogh et al., 2006): winter or summer from a day's demand",
        "ItalyPowerDemand/ItalyPowerDemand",
        "760ffbf403b5ade773b653b7f67e33b5753f96cbff502723f5c61bd5999b9233",
        (24, 1, 2),
        (67, 1029),
    ),
    (
        "osu-leaf",
        "OSULeaf (Gandhi, 2002): outlines of six kinds of leaves",
        "OSULeaf/OSULeaf",
        "47256f1e08e6af092823b340bcfd4b68c4adf962114dc13107825fdf9019001d",
        (427, 1, 6),
        (200, 242),
    ),
    (
        "acsf1",
        "ACSF1 (Gisler et al., 2013): what ten kinds of appliances consume",
        "ACSF1/ACSF1",
        "c0e65a73bc2a4344891e77fec8478980c540401b88a63e68d13ebd3c68a350e7",
        (1460, 1, 10),
        (100, 100),
    ),
)
SETS = {
    "mnist-1d": _mnist_1d_set("mnist-1d", shuffled=False),
    "mnist-1d-shuffled": _mnist_1d_set("mnist-1d-shuffled", shuffled=True),
} | {archive[0]: _ts_set(*archive) for archive in ARCHIVES}
