"""harness.statistics against scipy, closed forms and synthetic normals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from harness import statistics


@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e6, 1e6)))
def test_iqm_is_the_trimmed_mean(values):
    np.testing.assert_allclose(statistics.iqm(values), stats.trim_mean(values, 0.25), rtol=1e-12, atol=1e-9)


def test_iqm_over_an_axis_and_with_nan():
    table = np.random.default_rng(1).normal(size=(3, 11, 5))
    np.testing.assert_allclose(statistics.iqm(table, axis=1), stats.trim_mean(table, 0.25, axis=1))
    assert np.isnan(statistics.iqm([1.0, 2.0, 3.0, np.nan]))
    assert statistics.iqm([0.0, 10.0, 11.0, 1000.0]) == 10.5


@given(hnp.arrays(np.float64, st.integers(2, 30), elements=st.floats(-1e3, 1e3), unique=True))
def test_t_interval_is_scipys(values):
    low, high = statistics.t_interval(values)
    want = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    np.testing.assert_allclose([low, high], [want.low, want.high], rtol=1e-9, atol=1e-9)


def test_t_interval_in_closed_form():
    low, high = statistics.t_interval([0.0, 2.0])  # mean 1, standard error 1, t(0.975, 1) = tan(0.475 pi)
    np.testing.assert_allclose(high - low, 2 * np.tan(0.475 * np.pi), rtol=1e-9)


@pytest.mark.parametrize("n", [10, 13, 32])
def test_the_rank_weights_are_the_iqm_of_the_redrawn_samples(n):
    values = np.random.default_rng(n).normal(size=n)
    weights = statistics._rank_weights(np.random.default_rng(0), n, 200)
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=200)
    ordered = np.sort(values)
    direct = [stats.trim_mean(np.repeat(ordered, row), 0.25) for row in counts]
    np.testing.assert_allclose(weights @ ordered, direct, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [10, 30])
def test_the_bootstrap_agrees_with_scipys(n):
    values = np.random.default_rng(n).gumbel(size=n)
    low, high = statistics.iqm_interval(values)

    def trimmed(x, axis):
        return stats.trim_mean(x, 0.25, axis=axis)

    many = stats.bootstrap((values,), trimmed, n_resamples=20_000, method="percentile", rng=3)
    theirs = many.confidence_interval
    width = theirs.high - theirs.low
    assert abs(low - theirs.low) < 0.06 * width
    assert abs(high - theirs.high) < 0.06 * width


def test_the_bootstrap_is_deterministic_and_columns_are_independent_of_each_other():
    table = np.random.default_rng(0).normal(size=(12, 7))
    low, high = statistics.iqm_interval(table)
    for k in range(7):
        np.testing.assert_allclose(statistics.iqm_interval(table[:, k]), (low[k], high[k]), rtol=1e-12)


def test_strata_are_redrawn_within_themselves():
    values = [0.0] * 10 + [100.0] * 10  # within a stratum nothing varies, so neither does the IQM
    strata = ["a"] * 10 + ["b"] * 10
    assert tuple(map(float, statistics.iqm_interval(values, strata))) == (50.0, 50.0)
    low, high = statistics.iqm_interval(values)
    assert low < 40 < 60 < high


COVERAGE = [(2, 0.93, 0.97), (5, 0.93, 0.97), (12, 0.85, 0.96), (30, 0.90, 0.97)]


@pytest.mark.parametrize(("n", "least", "most"), COVERAGE)
def test_coverage_on_normals(n, least, most):
    """95 % intervals contain the truth about that often (bootstraps of few values fall a little short)."""
    table = np.random.default_rng(7).normal(3.0, 2.0, size=(n, 4000))
    few = n < statistics.BOOTSTRAP_FROM
    low, high = statistics.t_interval(table) if few else statistics.iqm_interval(table)
    assert least < np.mean((low <= 3.0) & (high >= 3.0)) < most


def test_summarise_picks_the_method_by_the_number_of_seeds():
    one = statistics.summarise([0.5])
    assert (one.n, one.mean, one.iqm, one.low, one.high) == (1, 0.5, 0.5, None, None)
    nine, ten = statistics.summarise(range(9)), statistics.summarise(range(10))
    assert (nine.of, ten.of) == ("mean", "iqm")
    assert nine.low == pytest.approx(statistics.t_interval(np.arange(9))[0])
    assert ten.low == pytest.approx(statistics.iqm_interval(np.arange(10))[0])
    assert statistics.summarise([1.0, np.inf]).low is None
    for bad in ([], [1.0, np.nan]):
        with pytest.raises(ValueError, match="at least one"):
            statistics.summarise(bad)


def test_pooled_lines_on_a_common_grid():
    lines = [([0, 10, 20], [0.0, 1.0, 2.0]), ([0, 20], [2.0, 4.0]), ([0, 10], [1.0, np.nan])]
    pooled = statistics.pool_lines(lines)
    assert pooled.x.tolist() == [0, 10, 20]
    assert pooled.n.tolist() == [3, 2, 2]
    np.testing.assert_allclose(pooled.centre, [1.0, 2.0, 3.0])
    low, high = statistics.t_interval([1.0, 3.0])
    np.testing.assert_allclose([pooled.low[1], pooled.high[1]], [low, high])


def test_a_line_is_not_carried_beyond_its_end():
    pooled = statistics.pool_lines([([1, 2, 3], [1.0, 1.0, 1.0]), ([1], [5.0])])
    assert pooled.n.tolist() == [2, 1, 1]
    assert np.isnan(pooled.low).tolist() == [False, True, True]
    with pytest.raises(ValueError, match="finite"):
        statistics.pool_lines([([1], [np.nan])])


def test_many_lines_pool_by_the_iqm_and_long_ones_are_thinned():
    lines = [(np.arange(1, 3001), np.arange(1, 3001) + float(k)) for k in range(12)]
    pooled = statistics.pool_lines(lines, most=500)
    assert pooled.of == "iqm"
    assert pooled.x.size == 500
    assert (pooled.x[0], pooled.x[-1]) == (1, 3000)
    np.testing.assert_allclose(pooled.centre, pooled.x + 5.5)


def _row(identity: str, label: str, seed: int, state: str, score: float | None) -> dict:
    return {"id": identity, "learner": "ppo", "label": label, "seed": seed, "state": state, "score": score}


def test_groups_count_done_and_diverged_trials_only():
    rows = [
        _row("a1", "ppo a", 1, "done", 10.0),
        _row("b0", "ppo b", 0, "running", None),
        _row("a0", "ppo a", 0, "diverged", 7.0),
        _row("a2", "ppo a", 2, "failed", None),
        _row("a3", "ppo a", 3, "pruned", 9.0),
    ]
    first, second = statistics.group_trials(rows, lambda row: -1.0)
    assert first.scores == (("a0", 0, -1.0), ("a1", 1, 10.0))
    assert first.summary.mean == 4.5
    assert first.seeds == 4
    assert second.summary is None
    unknown = statistics.group_trials(rows, lambda row: None)[0]
    assert unknown.scores == (("a1", 1, 10.0),)
