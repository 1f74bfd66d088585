"""Data sets: cards without heavy imports, splits that never move, real digits, the ring's moments."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from harness import data


def test_cards_load_neither_torch_nor_sklearn():
    code = (
        "import sys; from harness.data import card, names; c = [card(n) for n in names()];"
        "print(sorted({'torch', 'sklearn', 'scipy', 'pandas'} & set(sys.modules)), len(c))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert out.stdout.strip() == "[] 2"


def test_card_tells_the_rows_without_loading():
    for name in data.names():
        card, splits = data.card(name), data.load(name)
        assert {split: len(rows) for split, rows in splits.items()} == dict(card.rows)
        for rows in splits.values():
            assert rows.x.shape == (len(rows), *card.shape)
            assert set(rows.y.tolist()) == set(range(card.classes))
    assert data.card("digits").rows == {"train": 1078, "validation": 359, "test": 360}


def test_unknown_set_is_one_sentence():
    with pytest.raises(data.DataError, match="no data set is called 'digitz'; there are digits, ring-8"):
        data.card("digitz")


def test_digits_are_sklearns_own():
    from sklearn.datasets import load_digits

    reference = load_digits()
    splits = data.load("digits").values()
    ours = {
        (np.round(x * 16).astype(np.uint8).tobytes(), int(y))
        for r in splits
        for x, y in zip(r.x, r.y, strict=True)
    }
    theirs = {
        (x.astype(np.uint8).tobytes(), int(y)) for x, y in zip(reference.data, reference.target, strict=True)
    }
    assert ours == theirs
    assert sum(len(r) for r in splits) == 1797


def test_digit_splits_are_disjoint_and_pinned():
    splits = data.load("digits")
    rows = {name: {x.tobytes() for x in r.x} for name, r in splits.items()}
    assert not rows["train"] & rows["test"]
    assert not rows["train"] & rows["validation"]
    assert not rows["validation"] & rows["test"]
    digest = hashlib.sha256(
        b"".join(np.round(x * 16).astype(np.uint8).tobytes() for x in splits["test"].x)
    ).hexdigest()
    assert digest.startswith("0e1ea00faa7ac682")


def test_every_label_is_in_every_split_in_fair_share():
    for rows in data.load("digits").values():
        share = np.bincount(rows.y, minlength=10) / len(rows)
        assert share.min() > 0.05
        assert share.max() < 0.16


def test_rows_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        data.load("digits")["train"].x[0] = 0


def test_ring_has_its_radius_shares_and_spread():
    rows = data.load("ring-8")["train"]
    centres = data.ring_centres()
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 2.0)
    offset = rows.x - centres[rows.y]
    assert abs(offset.std() / 0.02 - 1) < 0.03
    np.testing.assert_allclose(np.bincount(rows.y) / len(rows), 1 / 8, atol=0.02)


def test_ring_points_follow_from_noise():
    uniform = np.array([0.0, 0.25, 0.999])
    points = data.ring_points(uniform, np.zeros((3, 2)))
    np.testing.assert_allclose(points, data.ring_centres()[[0, 2, 7]])
    np.testing.assert_allclose(data.ring_points(uniform, np.ones((3, 2))) - points, 0.02)
