"""`learner: function`: a user's own training function as a trial."""

from __future__ import annotations

import difflib
import json
import subprocess
import sys
from pathlib import Path

from harness.driver import Driver, Outcome
from harness.experiment import load_experiment
from tests.invariants import check_invariants, weights

PROJECT = Path(__file__).parents[2]


def write(folder: Path, call: str = "train", **config: object) -> Path:
    file = folder / "e.yaml"
    config = {"steps": 35, "starts": str(folder / "starts"), **config}
    call = f"tests.own_function:{call}"
    trial = {"learner": "function", "call": call, "steps": 35, "config": config}
    file.write_text(json.dumps({"name": "e", "trials": [trial]}))
    return file


def drive(file: Path, root: Path) -> Outcome:
    return Driver(load_experiment(file), root, executor="inline").train()


def test_a_function_is_logged_scored_and_its_network_kept(tmp_path: Path):
    outcome = drive(write(tmp_path), tmp_path / "runs")
    assert [(t["state"], t["score"], t["attempts"]) for t in outcome.trials] == [("done", 35.0, 1)]
    check_invariants(tmp_path / "runs", "e", every=1)
    assert (tmp_path / "starts").read_text() == "0 0\n"


def test_after_a_kill_it_goes_on_from_its_own_checkpoint(tmp_path: Path):
    drive(write(tmp_path, die_at=0), tmp_path / "whole")
    (tmp_path / "starts").unlink()
    file = write(tmp_path, die_at=27)
    command = [sys.executable, "-m", "tests.drive", str(file), str(tmp_path / "runs"), "inline"]
    assert subprocess.run(command, cwd=PROJECT, capture_output=True, check=False, timeout=60).returncode == -9
    outcome = drive(file, tmp_path / "runs")
    assert [(t["state"], t["score"], t["attempts"]) for t in outcome.trials] == [("done", 35.0, 2)]
    assert (tmp_path / "starts").read_text() == "0 0\n0 20\n"
    check_invariants(tmp_path / "runs", "e", every=1)
    assert list(weights(tmp_path / "runs", "e").values()) == list(weights(tmp_path / "whole", "e").values())


def test_its_exception_fails_the_trial_with_the_traceback(tmp_path: Path):
    outcome = drive(write(tmp_path, raise_at=5), tmp_path / "runs")
    assert outcome.exit_code == 1
    assert outcome.trials[0]["reason"] == "RuntimeError: told to raise"
    text = (tmp_path / "runs" / "trials" / outcome.trials[0]["id"] / "traceback.txt").read_text()
    assert "own_function.py" in text


def test_a_function_that_never_logs_its_score_is_told(tmp_path: Path):
    outcome = drive(write(tmp_path, call="silent"), tmp_path / "runs")
    assert outcome.exit_code == 1
    assert "run.log(step, score=...)" in outcome.trials[0]["reason"]


def test_the_example_takes_at_most_ten_changed_lines():
    folder = PROJECT / "experiments" / "own_function"
    plain, tracked = ((folder / name).read_text().splitlines() for name in ("plain.py", "tracked.py"))
    body = plain[: plain.index('if __name__ == "__main__":')]
    changed = [line for line in difflib.ndiff(body, tracked) if line.startswith("+ ") and line[2:].strip()]
    changed = [line for line in changed if '"""' not in line]
    assert 5 <= len(changed) <= 10
    assert 80 <= len(plain) <= 110
