"""The driver with the toy learner, in this process: decisions, failures, stopping, resuming."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.driver import Driver, Outcome
from harness.experiment import load_experiment
from harness.learner import BUILTIN, LaneError
from harness.ledger import Ledger
from tests.invariants import check_invariants, weights
from tests.toy import Toy


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILTIN, "toy", "tests.toy:Toy")


def run(folder: Path, text: str, root: str = "runs", **options: Any) -> tuple[Outcome, list[dict[str, Any]]]:
    file = folder / "e.yaml"
    file.write_text("name: e\n" + text)
    events: list[dict[str, Any]] = []
    driver = Driver(load_experiment(file), folder / root, executor="inline", on_event=events.append, **options)
    return driver.train(), events


def stop_after(reports: int) -> tuple[Callable[[dict[str, Any]], None], list[Any]]:
    """An event handler that asks the driver in its list to stop after so many reports."""
    driver: list[Any] = []
    seen = []

    def handler(event: dict[str, Any]) -> None:
        seen.append(event)
        if sum(e["kind"] == "report" for e in seen) == reports:
            driver[0].request_stop()

    return handler, driver


def test_every_trial_ends_with_a_result(tmp_path: Path):
    outcome, events = run(tmp_path, "trials: [{learner: toy, steps: 50, seeds: 3, grid: {width: [2, 3]}}]")
    assert outcome.exit_code == 0
    check_invariants(tmp_path / "runs", "e", every=1)
    assert [t["attempts"] for t in outcome.trials] == [1] * 6
    kinds = [e["kind"] for e in events]
    assert kinds.count("trial") == 6
    assert kinds.count("report") == 100


def test_the_plan_is_that_of_the_workers_there_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Cohorts are halved until every worker has one; in this process there is one worker, however many cores."""
    monkeypatch.setattr("harness.driver.os.cpu_count", lambda: 4)
    file = tmp_path / "e.yaml"
    file.write_text("name: e\ntrials: [{learner: toy, steps: 50, seeds: 8}]")
    drivers = [Driver(load_experiment(file), tmp_path / "runs", executor=kind) for kind in ("inline", "ray")]
    assert [len(driver.plan().cohorts) for driver in drivers] == [1, 4]


def test_the_same_command_again_trains_nothing(tmp_path: Path):
    text = "trials: [{learner: toy, steps: 50, seeds: 3}]"
    run(tmp_path, text)
    before = weights(tmp_path / "runs", "e")
    outcome, events = run(tmp_path, text)
    assert outcome.state == "done"
    assert events == []
    assert [t["attempts"] for t in outcome.trials] == [1] * 3
    assert weights(tmp_path / "runs", "e") == before


def test_a_lane_error_fails_those_lanes_and_the_others_go_on(tmp_path: Path):
    text = "trials: [{learner: toy, steps: 50, seeds: 2, grid: {lane_error_at: [-1.0, 23.0]}}]"
    outcome, _ = run(tmp_path, text)
    assert outcome.exit_code == 1
    assert [t["state"] for t in outcome.trials] == ["done", "done", "failed", "failed"]
    failed = tmp_path / "runs" / "trials" / outcome.trials[2]["id"] / "traceback.txt"
    assert "told to" in failed.read_text()
    alone, _ = run(tmp_path, "trials: [{learner: toy, steps: 50, seeds: 2}]", root="alone")
    assert [t["score"] for t in outcome.trials[:2]] == [t["score"] for t in alone.trials]


def test_what_a_learner_notes_is_logged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    advance = Toy.advance

    def noted(self: Toy, state: Any) -> Any:
        if int(state["progress"][0]) == 23:
            self.notes.append("an environment was replaced")
        return advance(self, state)

    monkeypatch.setattr(Toy, "advance", noted)
    _, events = run(tmp_path, "trials: [{learner: toy, steps: 50, seeds: 2}]")
    assert [e["text"] for e in events if e["kind"] == "note"][1:] == ["toy: an environment was replaced"]


def test_a_lane_that_fails_costs_one_retry_from_the_checkpoint_and_is_told_once(tmp_path: Path):
    _, events = run(tmp_path, "trials: [{learner: toy, steps: 50, seeds: 2, grid: {lane_error_at: [-1.0, 23.0]}}]")
    told = [e.get("text") or e.get("reason") for e in events if e["kind"] in ("note", "trial")]
    assert sum("told to" in text for text in told if text) == 2  # once a trial
    cohorts = [(e["state"], e["lanes"], e["progress"]) for e in events if e["kind"] == "cohort"]
    # boundaries at 10, 20, ...; the last checkpoint is at 20
    assert cohorts == [("running", 4, 0), ("retry", 4, 20), ("running", 2, 20), ("done", 2, 50)]


def test_the_only_lane_that_fails_is_not_tried_again(tmp_path: Path):
    _, events = run(tmp_path, "trials: [{learner: toy, steps: 50, grid: {lane_error_at: [23.0]}}]")
    assert [e["state"] for e in events if e["kind"] == "cohort"] == ["running", "failed"]


def test_lanes_that_fail_for_different_reasons_tell_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    advance = Toy.advance

    def fail(self, state):
        if len(self.lanes) == 3:
            raise LaneError((0, 2), "both", {0: "the first"})
        return advance(self, state)

    monkeypatch.setattr(Toy, "advance", fail)
    outcome, _ = run(tmp_path, "trials: [{learner: toy, steps: 5, seeds: 3}]")
    assert [t["reason"] for t in outcome.trials] == ["the first", "", "both"]


def test_a_lane_error_that_names_no_lane_of_its_cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(self, state):
        raise LaneError(torch.tensor([5]), "odd")

    monkeypatch.setattr(Toy, "advance", fail)
    outcome, _ = run(tmp_path, "trials: [{learner: toy, steps: 5, seeds: 2}]")
    assert [t["state"] for t in outcome.trials] == ["failed"] * 2
    assert [t["reason"] for t in outcome.trials] == ["LaneError names lane 5, of 1 from 0 on: odd"] * 2


def test_a_lane_error_may_count_as_numpy_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    advance = Toy.advance

    def fail(self, state):
        if len(self.lanes) == 3:
            raise LaneError(torch.tensor([1]), "", {np.int64(1): "its own"})
        return advance(self, state)

    monkeypatch.setattr(Toy, "advance", fail)
    outcome, _ = run(tmp_path, "trials: [{learner: toy, steps: 5, seeds: 3}]")
    assert [t["reason"] for t in outcome.trials] == ["", "its own", ""]


def test_a_warning_is_told_once_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    advance = Toy.advance

    def warned(self, state):
        self.lanes.warnings["a"] = f"seen at {int(state['progress'][0])}"
        return advance(self, state)

    monkeypatch.setattr(Toy, "advance", warned)
    _, events = run(tmp_path, "trials: [{learner: toy, steps: 50, grid: {width: [2, 3]}}]")  # two cohorts
    assert sum(e["kind"] == "note" and e["text"].startswith("seen at ") for e in events) == 1


def test_an_exception_halves_the_cohort_until_the_culprit_stands_alone(tmp_path: Path):
    text = "trials: [{learner: toy, steps: 50, grid: {error_at: [-1.0, -2.0, -3.0, 23.0, -5.0]}}]"
    outcome, events = run(tmp_path, text)
    states = {t["config"]["error_at"]: t["state"] for t in outcome.trials}
    assert states == {-1.0: "done", -2.0: "done", -3.0: "done", 23.0: "failed", -5.0: "done"}
    assert any(e["kind"] == "note" and "goes on from progress 20" in e["text"] for e in events)


def test_failed_trials_run_again_when_asked(tmp_path: Path):
    text = "trials: [{learner: toy, steps: 50, grid: {error_at: [23.0]}}]"
    run(tmp_path, text)
    outcome, events = run(tmp_path, text)
    assert events == []
    assert outcome.exit_code == 1
    outcome, events = run(tmp_path, text, retry_failed=True)
    assert [e["state"] for e in events if e["kind"] == "trial"] == ["failed"]
    assert outcome.trials[0]["attempts"] == 2


def test_a_done_trial_without_results_is_trained_again_when_asked(tmp_path: Path):
    text = "trials: [{learner: toy, steps: 50, seeds: 2}]"
    first, _ = run(tmp_path, text)
    lost, kept = (tmp_path / "runs" / "trials" / t["id"] for t in first.trials)
    shutil.rmtree(lost)
    assert run(tmp_path, text)[1] == []
    assert not lost.exists()
    outcome, events = run(tmp_path, text, retry_failed=True)
    assert [e["trial"] for e in events if e["kind"] == "trial"] == [lost.name]
    assert (lost / "final.safetensors").is_file()
    assert [t["attempts"] for t in outcome.trials] == [2, 1]
    assert [t["score"] for t in outcome.trials] == [t["score"] for t in first.trials]
    assert kept.is_dir()


def test_a_nan_ends_its_lane_alone(tmp_path: Path):
    outcome, _ = run(tmp_path, "trials: [{learner: toy, steps: 50, seeds: 2, grid: {nan_at: [-1.0, 7.0]}}]")
    assert outcome.exit_code == 0
    assert [t["state"] for t in outcome.trials] == ["done", "done", "diverged", "diverged"]
    assert [t["score"] for t in outcome.trials[2:]] == [-1e9, -1e9]
    alone, _ = run(tmp_path, "trials: [{learner: toy, steps: 50, seeds: 2}]", root="alone")
    assert [t["score"] for t in outcome.trials[:2]] == [t["score"] for t in alone.trials]


def test_patience_ends_a_lane_with_its_last_line_there(tmp_path: Path):
    text = "trials: [{learner: toy, steps: 200, seeds: 4, lr: 0.5, patience: 2, evaluate_every: 5, report_every: 5}]"
    outcome, _ = run(tmp_path, text)
    assert {t["state"] for t in outcome.trials} == {"done"}
    ended = [t["progress"] for t in outcome.trials]
    assert min(ended) < 200
    assert all("in 2 evaluations" in t["reason"] for t in outcome.trials if t["progress"] < 200)
    decisions = Ledger(tmp_path / "runs" / "ledger.sqlite").decisions(outcome.trials[0]["cohort"])
    assert {d["trial"] for d in decisions} == {t["id"] for t in outcome.trials if t["progress"] < 200}
    for trial in outcome.trials:
        lines = (tmp_path / "runs" / "trials" / trial["id"] / "metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["progress"] == trial["progress"]


@pytest.mark.parametrize("reports", [1, 7, 13, 26, 49])
def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path, reports: int):
    text = "trials: [{learner: toy, steps: 50, seeds: 3, lr: 0.3, evaluate_every: 1}]"
    run(tmp_path, text, root="whole")
    handler, driver = stop_after(reports)
    driver.append(Driver(load_experiment(tmp_path / "e.yaml"), tmp_path / "runs", executor="inline", on_event=handler))
    stopped = driver[0].train()
    assert stopped.exit_code == 130
    assert {t["state"] for t in stopped.trials} == {"stopped"}
    assert {t["progress"] for t in stopped.trials} == {reports}
    outcome, events = run(tmp_path, text)
    assert outcome.exit_code == 0
    assert any(e["kind"] == "note" and f"goes on from progress {reports}" in e["text"] for e in events)
    check_invariants(tmp_path / "runs", "e", every=1)
    assert weights(tmp_path / "runs", "e") == weights(tmp_path / "whole", "e")


def test_trials_taken_out_of_the_file_are_not_trained_on(tmp_path: Path):
    run(tmp_path, "trials: [{learner: toy, steps: 50, seeds: [0, 2]}]", root="whole")
    text = "trials: [{learner: toy, steps: 50, seeds: 3}]"
    (tmp_path / "e.yaml").write_text("name: e\n" + text)
    handler, driver = stop_after(20)
    driver.append(Driver(load_experiment(tmp_path / "e.yaml"), tmp_path / "runs", executor="inline", on_event=handler))
    driver[0].train()
    outcome, events = run(tmp_path, "trials: [{learner: toy, steps: 50, seeds: [0, 2]}]")
    assert len(outcome.trials) == 2
    assert any(e["kind"] == "note" and "goes on from progress 20" in e["text"] for e in events)
    check_invariants(tmp_path / "runs", "e", every=1)
    assert weights(tmp_path / "runs", "e") == weights(tmp_path / "whole", "e")


def test_a_damaged_checkpoint_costs_one_generation(tmp_path: Path):
    text = "trials: [{learner: toy, steps: 50, seeds: 2}]"
    run(tmp_path, text, root="whole")
    handler, driver = stop_after(33)
    driver.append(Driver(load_experiment(tmp_path / "e.yaml"), tmp_path / "runs", executor="inline", on_event=handler))
    driver[0].train()
    newest = max((tmp_path / "runs").glob("cohorts/*/ckpt-*"))
    assert "000033" in newest.name
    (newest / "state.safetensors").write_bytes(b"x" * 100)
    _, events = run(tmp_path, text)
    notes = [e["text"] for e in events if e["kind"] == "note"]
    assert any("damaged" in n for n in notes)
    assert any("goes on from progress 30" in n for n in notes)
    check_invariants(tmp_path / "runs", "e", every=1)
    assert weights(tmp_path / "runs", "e") == weights(tmp_path / "whole", "e")


def test_a_full_disk_stops_the_run_with_that_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = "trials: [{learner: toy, steps: 50, seeds: 2}]"
    calls = []

    def full(*args: Any) -> None:
        calls.append(args)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("harness.checkpoint.write_tensors", full)
        outcome, _ = run(tmp_path, text)
    assert calls
    assert outcome.exit_code == 130
    assert "no space left" in outcome.reason
    outcome, _ = run(tmp_path, text)
    assert outcome.exit_code == 0
    check_invariants(tmp_path / "runs", "e", every=1)


def test_a_lane_that_ended_before_the_stop_is_not_trained_again(tmp_path: Path):
    text = "trials: [{learner: toy, steps: 60, seeds: 4, lr: 0.5, patience: 8, evaluate_every: 1}]"
    whole, _ = run(tmp_path, text, root="whole")
    ends = sorted(t["progress"] for t in whole.trials)
    assert ends[0] < ends[-1]
    handler, driver = stop_after((ends[0] + ends[-1]) // 2)
    driver.append(Driver(load_experiment(tmp_path / "e.yaml"), tmp_path / "runs", executor="inline", on_event=handler))
    assert {t["state"] for t in driver[0].train().trials} == {"done", "stopped"}
    outcome, _ = run(tmp_path, text)
    attempts = {t["progress"]: t["attempts"] for t in outcome.trials}
    assert attempts[ends[0]] == 1
    assert attempts[ends[-1]] == 2
    check_invariants(tmp_path / "runs", "e", every=1)
    assert weights(tmp_path / "runs", "e") == weights(tmp_path / "whole", "e")


def test_past_the_grace_time_a_stop_falls_back_to_the_last_checkpoint(tmp_path: Path):
    text = "trials: [{learner: toy, steps: 50, seeds: 2, sleep: 0.02, report_every: 25, checkpoint_every: 25}]"
    run(tmp_path, text, root="whole")
    handler, driver = stop_after(1)
    experiment = load_experiment(tmp_path / "e.yaml")
    driver.append(Driver(experiment, tmp_path / "runs", executor="inline", on_event=handler, grace=0.1))
    driver[0]._executor.call = lambda slot, method, argument: _late(driver[0], method, argument)
    stopped = driver[0].train()
    assert {t["state"] for t in stopped.trials} == {"stopped"}
    assert {t["progress"] for t in stopped.trials} == {25}
    run(tmp_path, text)
    check_invariants(tmp_path / "runs", "e", every=25)
    assert weights(tmp_path / "runs", "e") == weights(tmp_path / "whole", "e")


def _late(driver: Any, method: str, argument: Any) -> None:
    """Hands the call on without the stop, so that only the grace time can end it."""
    if method == "advance":
        argument = type(argument)(end=argument.end)
    driver._executor._pending = (method, argument)


def test_what_another_experiment_trains_is_waited_for_and_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("harness.driver.WAITING_SECONDS", 0.01)
    text = "trials: [{learner: toy, steps: 20, seeds: 2}]"
    other = Ledger(tmp_path / "runs" / "ledger.sqlite")
    file = tmp_path / "e.yaml"
    file.write_text("name: e\n" + text)
    trials = load_experiment(file).trials
    looks = []
    claim = Ledger.claim

    def claimed(self: Ledger, name: str, ids: list[str], fence_out: Any) -> list[str]:
        looks.append(name)
        if len(looks) == 6:
            first.close()  # its driver ends
        return claim(self, name, ids, fence_out)

    with contextlib.ExitStack() as first:
        first.enter_context(other.drive("first", "first.yaml"))
        other.register("first", trials, {t.id: (20, "steps") for t in trials})
        other.claim("first", [t.id for t in trials])
        other.open_cohort("c", "first", [t.id for t in trials], (), [trials[0].id])  # the other one is queued
        monkeypatch.setattr(Ledger, "claim", claimed)
        outcome, events = run(tmp_path, text)
    other.close()
    assert outcome.state == "done"
    assert len(looks) == 6
    said = [e["text"] for e in events if "waiting" in e.get("text", "")]
    assert said == ["2 trials belong to first, which trains now: waiting for the result"]


def test_an_executor_that_does_not_exist_is_an_error_that_names_those_that_do(tmp_path: Path):
    file = tmp_path / "e.yaml"
    file.write_text("name: e\ntrials: [{learner: toy}]")
    for name in ("rey", "Ray", "local", ""):
        with pytest.raises(ValueError, match=f"unknown executor '{name}'; known are inline, ray"):
            Driver(load_experiment(file), tmp_path / "runs", executor=name)
    assert not (tmp_path / "runs").exists()
