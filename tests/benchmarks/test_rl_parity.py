"""The verdict on parity: a pure function of scores."""

import json

import numpy as np
import pytest

from benchmarks.rl_parity import (
    FILE,
    Result,
    Side,
    difference,
    line_of,
    read_kept,
    results_of,
    sides_of,
    write_kept,
)
from harness.experiment import load_experiment
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


@pytest.fixture(scope="module")
def planned():
    return load_experiment(FILE).trials


def test_kept_results_belong_to_planned_trials_only(planned, tmp_path):
    file = tmp_path / "kept" / "results.jsonl"
    assert read_kept(file) == {}
    found = {planned[0].id: Result(500.0, 450.0), "0123456789abcdef": Result(1.0, 1.0)}
    write_kept(file, planned, found)
    assert read_kept(file) == {planned[0].id: found[planned[0].id]}


def test_every_planned_trial_has_its_place_and_those_that_ended_are_read(planned):
    ended = next(t for t in planned if t.learner == "dqn")
    sides = sides_of(planned, {ended.id: Result(-100.0, -150.0)})
    assert len(sides) == 10
    assert sum(side.planned for pair in sides.values() for side in pair.values()) == len(planned)
    side = sides["dqn", ended.config["env"]]["ours"]
    assert (side.planned, side.final, side.area, side.versions) == (30, [-100.0], [-150.0], {ended.version})


def test_results_are_the_last_score_and_the_mean_of_the_curve(tmp_path):
    folder = tmp_path / "trials" / "a"
    folder.mkdir(parents=True)
    lines = [{"progress": 1, "eval/return": 1.0}, {"progress": 2}, {"progress": 3, "eval/return": 3.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = {"a": {"state": "done", "score": 3.0}, "b": {"state": "failed", "score": None}}
    assert results_of(rows, tmp_path) == {"a": Result(3.0, 2.0)}
