"""Data sets: cards without heavy imports, splits that never move, real digits, the ring's moments."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from harness import data


def here(name: str) -> data.Card:
    """The card; skips the test where the files are not here, with the sentence that says how to get them."""
    try:
        return data.card(name)
    except data.DataError as error:
        pytest.skip(str(error))


def test_cards_load_neither_torch_nor_sklearn():
    code = (
        "import sys; from harness.data import card, names; c = [card(n) for n in ('digits', 'ring-8')];"
        "print(sorted({'torch', 'sklearn', 'scipy', 'pandas'} & set(sys.modules)), len(c))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert out.stdout.strip() == "[] 2"


@pytest.mark.parametrize("name", [name for name in data.names() if name != "oracle-5000"])
def test_card_tells_the_rows_without_loading(name):
    card = here(name)
    if card.kind == "pairs":
        assert {split: len(pairs) for split, pairs in data.pairs(name).items()} == dict(card.rows)
        return
    splits = data.load(name)
    assert {split: len(rows) for split, rows in splits.items()} == dict(card.rows)
    for split, rows in splits.items():
        assert rows.x.shape == (len(rows), *card.shape)
        assert rows.x.dtype == (np.int64 if card.kind == "tokens" else np.float32)
        assert rows.y.dtype == (np.int64 if card.classes else np.float32)
        assert not rows.x.flags.writeable
        assert not rows.y.flags.writeable
        if card.kind == "tokens":
            assert rows.x.min() >= 0
            assert rows.x.max() < card.classes
        elif split == "train" and card.classes:
            assert set(rows.y.tolist()) == set(range(card.classes))


def test_digits_keep_their_splits():
    assert data.card("digits").rows == {"train": 1078, "validation": 359, "test": 360}


def test_unknown_set_is_one_sentence():
    with pytest.raises(data.DataError, match=r"no data set is called 'digitz'; there are .*, digits, "):
        data.card("digitz")


def test_digits_are_sklearns_own():
    from sklearn.datasets import load_digits

    reference = load_digits()
    splits = data.load("digits").values()
    ours = {
        (np.round(x * 16).astype(np.uint8).tobytes(), int(y)) for r in splits for x, y in zip(r.x, r.y, strict=True)
    }
    theirs = {(x.astype(np.uint8).tobytes(), int(y)) for x, y in zip(reference.data, reference.target, strict=True)}
    assert ours == theirs
    assert sum(len(r) for r in splits) == 1797


def test_digit_splits_are_disjoint_and_pinned():
    splits = data.load("digits")
    rows = {name: {x.tobytes() for x in r.x} for name, r in splits.items()}
    assert not rows["train"] & rows["test"]
    assert not rows["train"] & rows["validation"]
    assert not rows["validation"] & rows["test"]
    digest = hashlib.sha256(b"".join(np.round(x * 16).astype(np.uint8).tobytes() for x in splits["test"].x)).hexdigest()
    assert digest.startswith("0e1ea00faa7ac682")


def test_every_label_is_in_every_split_in_fair_share():
    for rows in data.load("digits").values():
        share = np.bincount(rows.y, minlength=10) / len(rows)
        assert share.min() > 0.05
        assert share.max() < 0.16


def test_rows_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        data.load("digits")["train"].x[0] = 0


MODES = ("ring-8", "grid-25")


def test_ring_keeps_its_rows_and_hash():
    """Trials are named by them."""
    assert data.card("ring-8").sha256.startswith("2c3d1def00eadafd")
    rows = data.load("ring-8")
    digests = [hashlib.sha256(r.x.tobytes() + r.y.tobytes()).hexdigest()[:16] for r in rows.values()]
    assert digests == ["bb6e607b4d518660", "cc5bb9621e85a5ac", "663764be47d2ee82"]


@pytest.mark.parametrize("name", MODES)
def test_modes_have_their_shares_and_spread(name):
    rows, centres, std = data.load(name)["train"], data.centres(name), data.std(name)
    assert (rows.x - centres[rows.y]).std() == pytest.approx(std, rel=0.03)
    np.testing.assert_allclose(np.bincount(rows.y) / len(rows), 1 / len(centres), atol=0.02)


def test_centres_are_those_of_the_papers():
    ring, grid = data.centres("ring-8"), data.centres("grid-25")
    np.testing.assert_allclose(np.linalg.norm(ring, axis=1), 2.0)
    np.testing.assert_allclose(ring[[0, 2]], [[2, 0], [0, 2]], atol=1e-12)
    assert {tuple(c) for c in grid} == {(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)}
    assert (data.std("ring-8"), data.std("grid-25")) == (0.02, 0.05)


def test_sets_without_modes_say_so():
    assert data.std("spirals") is None
    assert data.std("checkerboard") is None
    with pytest.raises(data.DataError, match="spirals has no modes"):
        data.centres("spirals")
    with pytest.raises(data.DataError, match="no set of points is called 'digits'; there are ring-8, grid-25"):
        data.std("digits")


def test_points_follow_from_noise():
    uniform = np.array([0.0, 0.25, 0.999])
    points = data.points("ring-8", uniform, np.zeros((3, 2)))
    np.testing.assert_allclose(points, data.centres("ring-8")[[0, 2, 7]])
    np.testing.assert_allclose(data.points("ring-8", uniform, np.ones((3, 2))) - points, 0.02)


def test_spirals_are_two_arms_of_even_density():
    rows = data.load("spirals")["train"]
    radius = np.linalg.norm(rows.x, axis=1)
    arms = [np.sort(radius[rows.y == arm]) for arm in (0, 1)]
    assert max(abs(np.median(arm) - np.pi / np.sqrt(2)) for arm in arms) < 0.05  # half of the area
    clean = data.points("spirals", np.array([0.3, 0.8]), np.zeros((2, 2)))
    np.testing.assert_allclose(clean[0], -clean[1])


def test_checkerboard_fills_its_dark_squares_evenly():
    rows = data.load("checkerboard")["train"]
    cell = np.floor((rows.x + 4) / 2).astype(int)
    assert set(cell.sum(1) % 2) == {0}
    assert cell.min() == 0
    assert cell.max() == 3
    np.testing.assert_allclose(np.bincount(rows.y) / len(rows), 1 / 8, atol=0.02)
    place = (rows.x + 4) / 2 - cell
    np.testing.assert_allclose(place.mean(0), 0.5, atol=0.015)
    np.testing.assert_allclose(place.var(0), 1 / 12, atol=0.003)


@pytest.mark.parametrize("name", ["ring-8", "checkerboard", "digits"])
def test_draws_follow_from_the_generator_and_are_training_rows(name):
    drawn = data.draw_rows(name, np.random.default_rng(3), (5, 4))
    again = data.draw(name, np.random.default_rng(3), (5, 4))
    assert drawn.x.shape == (5, 4, *data.card(name).shape)
    assert drawn.x.dtype == np.float32
    assert drawn.y.shape == (5, 4)
    np.testing.assert_array_equal(drawn.x, again)
    if name == "digits":
        train = {(x.tobytes(), int(y)) for x, y in zip(*vars(data.load(name)["train"]).values(), strict=True)}
        flat = drawn.x.reshape(20, -1)
        assert {(x.tobytes(), int(y)) for x, y in zip(flat, drawn.y.ravel(), strict=True)} <= train
