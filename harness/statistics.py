"""What many seeds say: means, interquartile means, 95 % intervals, pooled curves and the leaderboard.

Intervals: Student's t of the mean below 10 seeds, a stratified percentile bootstrap of the interquartile mean
(IQM) from 10 seeds on (Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical
Precipice"), none from one seed. Everything here is a pure function of arrays and plain rows; the bootstrap's
generator is fixed, so that a page built twice shows the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

__all__ = [
    "BOOTSTRAP_FROM",
    "Group",
    "Pooled",
    "Summary",
    "group_trials",
    "iqm",
    "iqm_interval",
    "pool_lines",
    "summarise",
    "t_interval",
    "thin",
]

LEVEL = 0.95
BOOTSTRAP_FROM = 10  # seeds
REPETITIONS = 2000
TRIM = 0.25

Of = Literal["mean", "iqm"]


@dataclass(frozen=True)
class Summary:
    """What the scores of one group say.

    Attributes:
        n: how many scores.
        mean: their arithmetic mean.
        iqm: their interquartile mean.
        low: lower end of the 95 % interval, None from one seed or where a score is infinite.
        high: upper end.
        of: what the interval is about: "mean" below 10 seeds, "iqm" from 10 on.
    """

    n: int
    mean: float
    iqm: float
    low: float | None
    high: float | None
    of: Of

    @property
    def centre(self) -> float:
        """The estimate that the interval is about."""
        return self.mean if self.of == "mean" else self.iqm


@dataclass(frozen=True)
class Pooled:
    """Curves of several seeds on one progress grid.

    Attributes:
        x: progress [P], strictly increasing.
        centre: mean (below 10 lines) or IQM over the lines that reach x [P].
        low: lower end of the 95 % band [P], NaN where fewer than two lines reach x.
        high: upper end of the band [P].
        n: lines that reach x [P].
        of: what centre and band are about.
    """

    x: np.ndarray
    centre: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray
    of: Of


@dataclass(frozen=True)
class Group:
    """The trials of one learner and label, over seeds.

    Attributes:
        learner: its registered name.
        label: what people call it.
        trials: all rows, in any state.
        scores: (trial id, seed, score) of those that count: done, and diverged ones as the learner's worst.
        summary: of the scores; None when none counts.
    """

    learner: str
    label: str
    trials: tuple[Mapping[str, Any], ...]
    scores: tuple[tuple[str, int, float], ...]
    summary: Summary | None

    @property
    def seeds(self) -> int:
        """How many seeds the group has, counted or not."""
        return len(self.trials)


def iqm(values: Any, axis: int = 0) -> np.ndarray:
    """The interquartile mean: the mean without the lowest and the highest floor(n / 4) values.

    Args:
        values: [..., n, ...], at least one value along `axis`; NaN gives NaN.
        axis: the axis that is averaged away.
    """
    ordered = np.sort(np.moveaxis(np.asarray(values, dtype=np.float64), axis, 0), axis=0)
    cut = int(TRIM * ordered.shape[0])
    kept = ordered[cut : ordered.shape[0] - cut].mean(axis=0)
    return np.where(np.isnan(ordered[-1]), np.nan, kept)  # sort puts NaN last, where trimming would hide it


def t_interval(values: Any, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Student's t interval of the mean over axis 0.

    Args:
        values: [n, ...], n >= 2.
        level: of confidence.

    Raises:
        ValueError: fewer than two values.
    """
    x = np.asarray(values, dtype=np.float64)
    n = x.shape[0]
    if n < 2:
        raise ValueError("an interval needs two values")
    half = stats.t.ppf(0.5 + level / 2, n - 1) * x.std(axis=0, ddof=1) / np.sqrt(n)
    return x.mean(axis=0) - half, x.mean(axis=0) + half


def iqm_interval(
    values: Any, strata: Sequence[Any] | None = None, level: float = LEVEL, repetitions: int = REPETITIONS
) -> tuple[np.ndarray, np.ndarray]:
    """Stratified percentile bootstrap of the IQM over axis 0: seeds are redrawn within their stratum.

    Without strata (one task) the redrawn ranks are the same for every column, and the IQM of a redrawn sample
    is a weighted sum of the sorted values; one matrix of weights then serves all columns.

    Args:
        values: [n] or [n, columns], n >= 2, finite.
        strata: n names (tasks); None is one stratum.
        level: of confidence.
        repetitions: bootstrap samples.

    Raises:
        ValueError: fewer than two values.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.shape[0] < 2:
        raise ValueError("an interval needs two values")
    rng = np.random.default_rng(0)
    if strata is None or len(set(strata)) == 1:
        estimates = _rank_weights(rng, x.shape[0], repetitions) @ np.sort(x, axis=0)
    else:
        names = np.asarray([str(s) for s in strata])
        drawn = [_redraw(rng, np.flatnonzero(names == name), repetitions) for name in sorted(set(names))]
        estimates = iqm(x[np.concatenate(drawn, axis=1)], axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(estimates, [tail, 1 - tail], axis=0)
    return low, high


def _redraw(rng: np.random.Generator, members: np.ndarray, repetitions: int) -> np.ndarray:
    return rng.choice(members, size=(repetitions, members.size), replace=True)


def _rank_weights(rng: np.random.Generator, n: int, repetitions: int) -> np.ndarray:
    """Weights [repetitions, n] on sorted values that give the IQM of each bootstrap sample."""
    counts = rng.multinomial(n, np.full(n, 1 / n), size=repetitions)
    upto = np.cumsum(counts, axis=1)
    cut = int(TRIM * n)
    kept = np.minimum(upto, n - cut) - np.maximum(upto - counts, cut)
    return np.maximum(kept, 0) / (n - 2 * cut)


def summarise(scores: Sequence[float], strata: Sequence[Any] | None = None) -> Summary:
    """Mean, IQM and 95 % interval of one score a seed.

    Args:
        scores: at least one; an infinite one gives no interval.
        strata: the scores' tasks, where they come from several.

    Raises:
        ValueError: no score, or one is NaN.
    """
    x = np.asarray(scores, dtype=np.float64)
    if x.size == 0 or np.isnan(x).any():
        raise ValueError("scores must be at least one, none of them NaN")
    of: Of = "iqm" if x.size >= BOOTSTRAP_FROM else "mean"
    low: float | None = None
    high: float | None = None
    if x.size > 1 and np.isfinite(x).all():
        ends = iqm_interval(x, strata) if of == "iqm" else t_interval(x)
        low, high = float(ends[0]), float(ends[1])
    return Summary(x.size, float(x.mean()), float(iqm(x)), low, high, of)


def thin(count: int, most: int) -> np.ndarray:
    """Indices of at most `most` of `count` points, evenly spread, the first and the last among them."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.round(np.linspace(0, count - 1, most)).astype(np.int64))


def pool_lines(lines: Sequence[tuple[Any, Any]], most: int = 500) -> Pooled:
    """Several seeds' curves as one line with a 95 % band.

    A line is interpolated between its own points and not carried beyond them: a lane that ended early leaves
    the pool there, and `n` says so. Points whose value is not finite are left out.

    Args:
        lines: (progress [p], values [p]) a seed, progress strictly increasing; one value at least is finite.
        most: largest number of grid points.

    Raises:
        ValueError: no line has a finite value.
    """
    kept = []
    for progress, values in lines:
        x, y = np.asarray(progress, dtype=np.float64), np.asarray(values, dtype=np.float64)
        finite = np.isfinite(y)
        if finite.any():
            kept.append((x[finite], y[finite]))
    if not kept:
        raise ValueError("no line has a finite value")
    grid = np.unique(np.concatenate([x for x, _ in kept]))
    grid = grid[thin(grid.size, most)]
    table = np.stack([np.interp(grid, x, y, left=np.nan, right=np.nan) for x, y in kept])  # [lines, P]
    return _pool(grid, table)


def _pool(grid: np.ndarray, table: np.ndarray) -> Pooled:
    of: Of = "iqm" if table.shape[0] >= BOOTSTRAP_FROM else "mean"
    present = np.isfinite(table)
    n = present.sum(axis=0)
    centre, low, high = (np.full(grid.size, np.nan) for _ in range(3))
    for count in np.unique(n[n > 0]):  # all columns with equally many lines at once
        columns = n == count
        block = np.sort(np.where(present, table, np.inf)[:, columns], axis=0)[:count]
        centre[columns] = iqm(block) if of == "iqm" else block.mean(axis=0)
        if count > 1:
            low[columns], high[columns] = iqm_interval(block) if of == "iqm" else t_interval(block)
    used = n > 0
    return Pooled(grid[used], centre[used], low[used], high[used], n[used], of)


def group_trials(
    trials: Sequence[Mapping[str, Any]], worst: Callable[[Mapping[str, Any]], float | None]
) -> list[Group]:
    """The trials of the same learner and label, in order of first appearance, with what their scores say.

    Done trials count with their score, diverged ones with the learner's worst; planned, running, pruned,
    failed and stopped ones do not count.

    Args:
        trials: ledger rows (id, learner, label, seed, state, score).
        worst: the worst score of a row's learner, None where it is unknown (such a row does not count).
    """
    grouped: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in trials:
        grouped.setdefault((row["learner"], row["label"]), []).append(row)
    return [_group(learner, label, rows, worst) for (learner, label), rows in grouped.items()]


def _group(
    learner: str,
    label: str,
    rows: Sequence[Mapping[str, Any]],
    worst: Callable[[Mapping[str, Any]], float | None],
) -> Group:
    ordered = sorted(rows, key=lambda row: row["seed"])
    scores = []
    for row in ordered:
        score = worst(row) if row["state"] == "diverged" else row["score"] if row["state"] == "done" else None
        if score is not None and not np.isnan(score):
            scores.append((row["id"], int(row["seed"]), float(score)))
    summary = summarise([s for _, _, s in scores]) if scores else None
    return Group(learner, label, tuple(ordered), tuple(scores), summary)
