"""The verdict on parity: a pure function of scores."""

import numpy as np
import pytest

from benchmarks.rl_parity import Side, difference, line_of
from harness.statistics import iqm


def side(scores, planned=None):
    return Side(planned or len(scores), list(scores), list(scores), {1})


def test_the_interval_covers_the_difference_and_shrinks_with_seeds():
    rng = np.random.default_rng(0)
    few, many = (difference(rng.normal(3, 1, n), rng.normal(1, 1, n)) for n in (10, 1000))
    assert few[1] < 2 < few[2]
    assert many[1] < 2 < many[2]
    assert many[2] - many[1] < 0.2 * (few[2] - few[1])


def test_the_difference_is_that_of_the_interquartile_means():
    ours, theirs = [1.0, 2.0, 3.0, 100.0], [0.0, 0.0, 1.0, 1.0]
    assert difference(ours, theirs)[0] == pytest.approx(float(iqm(ours) - iqm(theirs)))
    assert difference([500.0] * 30, [500.0] * 10) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [([500.0] * 30, "met"), ([480.0] * 30, "met"), ([470.0] * 30, "missed"), ([500.0] * 15 + [100.0] * 15, "missed")],
)
def test_verdict(ours, verdict):
    assert line_of(side(ours), side([500.0] * 10), random=20.0)["verdict"] == verdict


def test_a_line_is_open_until_every_seed_is_done():
    assert line_of(side([500.0] * 29, 30), side([500.0] * 10), 20.0)["verdict"] == "open"
    assert line_of(side([]), side([500.0] * 10), 20.0)["verdict"] == "open"
