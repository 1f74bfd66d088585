"""Moving clips: what moves where, evenly over cells, and never the same digit image in two splits."""

import hashlib

import numpy as np
import pytest

from harness import data
from harness.data.moving import CLIPS, DIGITS, SHAPES
from harness.randomness import generator

PINNED = {"moving-shapes": "df2df9c504d5da90", "moving-digits": "0cce0be6c153a26c"}  # the test split, in hundredths
NAMES = pytest.mark.parametrize("name", sorted(CLIPS))


def clips(name, count=400):
    return data.draw_rows(name, generator(3, "test"), (count,))


def centres(x):
    """Centres of mass (x, y) of every frame, [N, T, 2]."""
    mass = x[:, :, 0]
    total = mass.sum((-2, -1))
    across = (mass.sum(-2) * np.arange(x.shape[-1])).sum(-1) / total
    down = (mass.sum(-1) * np.arange(x.shape[-2])).sum(-1) / total
    return np.stack([across, down], -1)


@NAMES
def test_the_card_tells_of_the_rows_and_they_stay(name):
    card, loaded = data.card(name), data.load(name)
    assert {split: len(found) for split, found in loaded.items()} == dict(card.rows)
    assert hashlib.sha256(np.round(100 * loaded["test"].x).astype(np.uint8)).hexdigest()[:16] == PINNED[name]
    assert loaded["train"].x.shape[1:] == card.shape == CLIPS[name].shape
    assert loaded["train"].x.dtype == np.float32
    assert loaded["train"].x.min() == 0
    assert loaded["train"].x.max() == 1
    assert card.kind == "video"


@NAMES
def test_cells_are_even(name):
    counts = np.bincount(clips(name, 6000).y, minlength=CLIPS[name].classes)
    expected = 6000 / CLIPS[name].classes
    assert ((counts - expected) ** 2 / expected).sum() < CLIPS[name].classes + 4 * np.sqrt(2 * CLIPS[name].classes)


@NAMES
def test_draws_have_the_asked_shape(name):
    found = data.draw_rows(name, generator(1, "test"), (2, 3))
    flat = data.draw_rows(name, generator(1, "test"), (6,))
    assert found.x.shape == (2, 3, *CLIPS[name].shape)
    assert np.array_equal(found.x.reshape(flat.x.shape), flat.x)
    assert np.array_equal(found.y.ravel(), flat.y)


def test_a_shape_moves_as_its_label_says_and_stays_whole_and_as_it_is():
    rows = clips("moving-shapes")
    steps = np.diff(centres(rows.x), axis=1)
    expected = SHAPES.steps[rows.y % len(SHAPES.motions)]
    np.testing.assert_allclose(steps, np.broadcast_to(expected[:, None], steps.shape), atol=1e-2)
    mass = rows.x.sum((2, 3, 4))
    np.testing.assert_allclose(mass, mass[:, :1].repeat(mass.shape[1], 1), rtol=1e-4)


def test_contents_differ_in_shade_and_form():
    rows = clips("moving-shapes", 2000)
    content = rows.y // len(SHAPES.motions)
    brightest = rows.x.max((1, 2, 3, 4))
    for index, name in enumerate(SHAPES.contents):
        assert brightest[content == index].max() == pytest.approx(0.5 if name.startswith("dim") else 1.0)
    mass = [rows.x[content == index].sum((2, 3, 4)).mean() for index in range(len(SHAPES.contents))]
    assert mass[1] == pytest.approx(2 * mass[0], rel=0.01)
    assert mass[0] == pytest.approx(0.5 * 49, rel=0.02)  # a square of side 7


def test_a_digit_takes_its_first_step_as_labelled_bounces_and_stays_as_it_is():
    rows = clips("moving-digits")
    steps = np.diff(centres(rows.x), axis=1)
    np.testing.assert_allclose(np.abs(steps), 1, atol=1e-4)
    np.testing.assert_allclose(steps[:, 0], DIGITS.steps[rows.y % len(DIGITS.motions)], atol=1e-4)
    turned = (steps[:, 0] != steps[:, -1]).any(-1)
    assert 0.5 < turned.mean() < 1
    mass = rows.x.sum((2, 3, 4))
    np.testing.assert_allclose(mass, mass[:, :1].repeat(mass.shape[1], 1), rtol=1e-5)


def test_splits_share_no_digit_image():
    images: dict[str, set[bytes]] = {"train": set(), "test": set()}
    for split, seen in images.items():
        for frame in data.load("moving-digits")[split].x[:300, 0, 0]:
            filled = np.argwhere(frame)
            (top, left), (bottom, right) = filled.min(0), filled.max(0) + 1
            seen.add(frame[top:bottom, left:right].tobytes())
    assert images["train"].isdisjoint(images["test"])
