"""The first rows of a data set."""

from __future__ import annotations

import numpy as np
import pytest

from harness import data
from harness.randomness import generator


def test_few_rows_are_balanced_training_rows_and_among_more():
    small, more = (data.few("digits", count) for count in (25, 100))
    assert sorted(np.bincount(small.y)) == [2] * 5 + [3] * 5
    assert np.bincount(more.y).tolist() == [10] * 10
    train = {row.tobytes() for row in data.load("digits")["train"].x}
    keys = [{row.tobytes() for row in rows.x} for rows in (small, more)]
    assert keys[0] < keys[1] < train
    assert data.few("digits", 0) is data.load("digits")["train"]


def test_rows_are_drawn_from_the_few_alone():
    few = {row.tobytes(): label for row, label in zip(*vars(data.few("digits", 10)).values(), strict=True)}
    drawn = data.draw_few("digits", 10, generator(0, "test"), (40, 3))
    assert drawn.x.shape == (40, 3, 8, 8)
    found = {row.tobytes(): label for row, label in zip(drawn.x.reshape(120, 8, 8), drawn.y.flatten(), strict=True)}
    assert found == few
    all_rows = data.draw_few("digits", 0, generator(0, "test"), (5,))
    assert np.array_equal(all_rows.x, data.draw("digits", generator(0, "test"), (5,)))


@pytest.mark.parametrize("count", [9, 1079])
def test_what_a_set_does_not_have_is_refused(count):
    data.check_few(data.card("digits"), 0)
    with pytest.raises(ValueError, match=f"1078 training rows and 10 classes; {count} do not fit"):
        data.check_few(data.card("digits"), count)
