"""What a plan expects: unknown before a shape was trained on this machine, then what that took."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import typer
from rich.console import Console

from flows import showing
from flows.cli import plan as plan_command
from flows.steps import Options, Steps
from harness import durations
from harness.driver import Driver
from harness.experiment import load_experiment
from harness.learner import BUILTIN


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(BUILTIN, "toy", "tests.toy:Toy")


def write(folder: Path, seeds: int, **more: object) -> Path:
    file = folder / "e.yaml"
    file.write_text(json.dumps({"name": "e", "trials": [{"learner": "toy", "steps": 50, "seeds": seeds, **more}]}))
    return file


def plan(file: Path, root: Path):
    return Driver(load_experiment(file), root, executor="inline").plan()


def test_unknown_then_within_a_factor_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root, clock = tmp_path / "runs", [0.0]
    monkeypatch.setattr("harness.cohort_run.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("tests.toy.Toy.evaluate", slow(clock, 3.0))  # evaluations count, not only updates
    assert plan(write(tmp_path, 4), root).expected == (None,)
    Driver(load_experiment(write(tmp_path, 4)), root, executor="inline").train()
    took = clock[0]
    assert took == 30.0
    again = write(tmp_path, [10, 11, 12, 13])
    assert plan(again, root).expected == pytest.approx((took,))
    assert plan(write(tmp_path, [10, 11]), root).expected == pytest.approx((took / 2,))
    assert plan(write(tmp_path, 4, steps=60), root).expected == (None,)
    monkeypatch.setattr("harness.durations.facts", lambda: {"machine": {"cpu": "other", "cores": 1, "gpu": None}})
    assert plan(again, root).expected == (None,)


def slow(clock: list[float], seconds: float):
    from tests.toy import Toy

    original = Toy.evaluate

    def evaluate(self, state):
        clock[0] += seconds
        return original(self, state)

    return evaluate


def test_the_nearest_number_of_lanes_counts(tmp_path: Path):
    trials = load_experiment(write(tmp_path, 8)).trials
    durations.remember(tmp_path, trials[:1], 10.0, 50)
    durations.remember(tmp_path, trials, 16.0, 50)
    assert durations.expected(tmp_path, trials) == pytest.approx(16.0)
    assert durations.expected(tmp_path, trials[:6]) == pytest.approx(12.0)
    assert durations.expected(tmp_path, trials[:2]) == pytest.approx(20.0)
    (file,) = (tmp_path / "cache" / "durations").iterdir()
    file.write_text("{")
    assert durations.expected(tmp_path, trials) is None


def test_a_cohort_of_several_workers_can_be_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trial = {"learner": "classifier", "epochs": 1, "resources": {"workers": 2}}
    (tmp_path / "e.yaml").write_text(json.dumps({"name": "e", "trials": [trial]}))
    with pytest.raises(typer.Exit) as left:
        plan_command(tmp_path / "e.yaml", root=tmp_path / "runs", as_json=True)
    assert left.value.exit_code == 0
    assert len(json.loads(capsys.readouterr().out)["due"]) == 1


def test_the_plan_prints_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    out = io.StringIO()
    monkeypatch.setattr(showing, "Console", lambda **_: Console(file=out, width=150))
    options = Options(str(tmp_path / "runs"), "inline", tracker="files")
    file = write(tmp_path, 2)
    showing.show_plan(file, [], options, as_json=False)
    assert "worker time unknown until one of each shape was trained on this machine" in out.getvalue()
    assert out.getvalue().splitlines()[1].endswith("unknown")
    showing.show_plan(file, [], options, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["seconds"], found["cohorts"][0]["seconds"]) == (None, None)
    trials = Steps.load(file, [], options).experiment.trials
    durations.remember(tmp_path / "runs", trials, 65.0, 50)
    showing.show_plan(file, [], options, as_json=True)
    assert json.loads(capsys.readouterr().out)["seconds"] == 65.0
