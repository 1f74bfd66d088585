"""Cohorts: lanes share a shape, workers stay busy, the plan is the same every time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from harness import learner as learners
from harness.learner import Learner
from harness.planning import expected_seconds, plan_cohorts, shape_key
from harness.spec import LearnerConfig, PerLaneFloat, Resources, Score, Trial, trial_id


class PlainConfig(LearnerConfig):
    """One field of the shape, one per lane."""

    steps: int = Field(1000, ge=1, description="updates")
    lr: PerLaneFloat = Field(0.01, gt=0, description="learning rate")

    @property
    def budget(self) -> int:
        return self.steps

    @property
    def seconds_per_progress(self) -> float:
        return 0.5


class Plain(Learner):
    """A learner that is never started."""

    Config = PlainConfig
    unit = "steps"
    score = Score("loss", "min", worst=1e9)


class Foreign(Plain):
    """One lane a cohort."""

    foreign = True


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(learners.BUILTIN, "plain", f"{__name__}:Plain")
    monkeypatch.setitem(learners.BUILTIN, "foreign", f"{__name__}:Foreign")


def trials(count: int, learner: str = "plain", lanes: int = 64, **config: float) -> list[Trial]:
    full = PlainConfig(**config).model_dump(mode="json")
    resources = Resources(lanes=lanes)
    ids = [trial_id(learner, 1, full, seed, {}) for seed in range(count)]
    return [Trial(ids[seed], learner, 1, full, seed, learner, resources) for seed in range(count)]


def sizes(cohorts: Sequence[Sequence[Trial]]) -> list[int]:
    return [len(cohort) for cohort in cohorts]


def test_seeds_and_per_lane_fields_share_a_shape_and_nothing_else_does() -> None:
    base = trials(2)
    key = shape_key(base[0], Plain)
    assert len(key) == 16
    assert shape_key(base[1], Plain) == key
    assert shape_key(trials(1, lr=0.5)[0], Plain) == key
    assert shape_key(trials(1, steps=7)[0], Plain) != key
    assert shape_key(trials(1, lanes=3)[0], Plain) != key
    assert shape_key(trials(1, evaluate_every=9)[0], Plain) != key
    assert shape_key(trials(1, learner="foreign")[0], Foreign) != key


def test_one_worker_trains_one_shape_in_one_cohort() -> None:
    due = trials(8, lr=0.1) + trials(3, lr=0.2)
    assert plan_cohorts(due, workers=1) == [due]


def test_the_longest_is_halved_until_every_worker_has_a_cohort() -> None:
    long, short = trials(5, steps=900), trials(4, steps=100)
    assert plan_cohorts(long + short, workers=2) == [long, short]
    assert plan_cohorts(long + short, workers=3) == [long[2:], long[:2], short]
    assert sizes(plan_cohorts(long, workers=64)) == [1] * 5


def test_lanes_are_limited_and_balanced() -> None:
    assert sizes(plan_cohorts(trials(10, lanes=4), workers=1)) == [4, 3, 3]
    assert sizes(plan_cohorts(trials(8, lanes=4), workers=1)) == [4, 4]


def test_foreign_learners_train_alone() -> None:
    assert sizes(plan_cohorts(trials(3, learner="foreign"), workers=1)) == [1, 1, 1]


def test_the_longest_comes_first_and_equal_ones_keep_their_order() -> None:
    short, long, also_short = trials(2, steps=10), trials(1, steps=100), trials(2, steps=10, evaluate_every=5)
    assert plan_cohorts(short + long + also_short, workers=3) == [long, short, also_short]


def test_nothing_due_gives_no_cohorts() -> None:
    assert plan_cohorts([], workers=4) == []


def test_expected_seconds_are_measured_or_the_learners_own() -> None:
    cohort = trials(4, steps=100)
    key = shape_key(cohort[0], Plain)
    assert expected_seconds(cohort) == 0.5 * 100 * 4
    assert expected_seconds(cohort, {"plain": 200.0}) == 100 * 4 / 200
    assert expected_seconds(cohort, {"plain": 200.0, key: 50.0}) == 100 * 4 / 50
    assert expected_seconds(cohort, {key: 0.0}) == 0.5 * 100 * 4


def test_measured_rates_decide_the_order() -> None:
    quick, slow = trials(2, steps=1000), trials(2, steps=10)
    rates = {shape_key(quick[0], Plain): 1e6}
    assert plan_cohorts(quick + slow, workers=2) == [quick, slow]
    assert plan_cohorts(quick + slow, workers=2, rates=rates) == [slow, quick]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 4)), max_size=5), st.integers(1, 9))
def test_every_trial_is_planned_once(groups: list[tuple[int, int, int]], workers: int) -> None:
    due = [t for steps, count, lanes in dict.fromkeys(groups) for t in trials(count, steps=steps, lanes=lanes)]
    due = list({(t.id, t.resources.lanes): t for t in due}.values())
    cohorts = plan_cohorts(due, workers)
    assert sorted((t.id, t.resources.lanes) for c in cohorts for t in c) == sorted(
        (t.id, t.resources.lanes) for t in due
    )
    assert all(len({shape_key(t, Plain) for t in c}) == 1 and len(c) <= c[0].resources.lanes for c in cohorts)
    assert len(cohorts) >= min(workers, len(due))
    assert cohorts == plan_cohorts(due, workers)
