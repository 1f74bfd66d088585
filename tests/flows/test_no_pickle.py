"""No run, resume, transfer or export unpickles anything, whichever learner and mode: an audit hook listens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nets.lanes import has_compiler

ROOT = Path(__file__).parents[2]
DIGITS = {
    "learner": "classifier",
    "data": "digits",
    "net": {"kind": "mlp", "hidden_features": 8, "depth": 1},
    "batch": 16,
    "train_rows": 64,
    "epochs": 4,
    "checkpoint_every": 64,
    "seeds": 2,
}
FUNCTION = {"learner": "function", "call": "tests.own_function:train", "config": {"steps": 30}}
PPO = {"learner": "ppo", "env": "CartPole-v1", "steps": 1024, "checkpoint_every": 512, "eval_episodes": 1}
SB3 = {"learner": "sb3", "algo": "PPO", "env": "CartPole-v1", "steps": 4096, "checkpoint_every": 2048}


def watched(steps: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """What each step heard, and its exit status."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.pickle_watch", json.dumps(steps)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"status"')]
    assert len(found) == len(steps), done.stdout + done.stderr
    return found


def run_twice(folder: Path, *trials: dict[str, Any], tracker: str = "files") -> list[dict[str, Any]]:
    """A run that is killed after its first checkpoint, and the same command again."""
    (folder / "e.yaml").write_text(json.dumps({"name": "e", "trials": list(trials)}))
    argv = ["run", "e.yaml", "--no-prefect", "--executor", "inline", "--tracker", tracker, "--root", "runs"]
    found = watched([{"argv": argv, "kill_after": 1}, {"argv": argv}], folder)
    assert [step["status"] for step in found] == [9, 0], found
    log = "".join(path.read_text() for path in (folder / "runs").rglob("*.log"))
    assert "goes on from progress" in log  # it did resume
    return found


SLOW = pytest.mark.slow
COMPILED = [SLOW, pytest.mark.skipif(not has_compiler(), reason="no C++ compiler with Python headers on this machine")]


@pytest.mark.parametrize(
    "trial",
    [
        pytest.param(DIGITS, id="eager"),
        pytest.param(DIGITS | {"resources": {"mode": "loop"}}, id="loop", marks=SLOW),
        pytest.param(DIGITS | {"resources": {"mode": "compiled"}}, id="compiled", marks=COMPILED),
        pytest.param(PPO, id="agent", marks=SLOW),
        pytest.param(SB3, id="sb3", marks=SLOW),
        pytest.param(FUNCTION, id="function", marks=SLOW),
    ],
)
def test_a_killed_run_and_its_resumption_unpickle_nothing(trial, tmp_path):
    if trial is FUNCTION:
        trial = FUNCTION | {"config": {"steps": 30, "starts": str(tmp_path / "starts")}}
    assert [step["heard"] for step in run_twice(tmp_path, trial)] == [{}, {}]


@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler with Python headers on this machine")
@pytest.mark.slow
def test_a_warm_compile_cache_unpickles_nothing_and_lies_outside_the_run_root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    steps = []
    for name, seeds in (("cold", [1, 2]), ("warm", [3, 4])):
        trial = DIGITS | {"seeds": seeds, "resources": {"mode": "compiled"}}
        (tmp_path / f"{name}.yaml").write_text(json.dumps({"name": name, "trials": [trial]}))
        steps.append({"argv": ["run", f"{name}.yaml", "--no-prefect", "--executor", "inline", "--tracker", "files"]})
    assert watched(steps, tmp_path) == [{"status": 0, "heard": {}}] * 2
    assert list((tmp_path / "cache/seedbed/compiled/programs").rglob("*.txt"))
    code = (".so", ".py", ".cpp", ".pkl", ".pickle")
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.suffix in code]


@pytest.mark.slow
def test_transfer_offline_tracking_and_export_unpickle_nothing(tmp_path):
    child = DIGITS | {"encoder_from": "trials.0", "seeds": 1}
    (tmp_path / "e.yaml").write_text(json.dumps({"name": "e", "trials": [DIGITS | {"seeds": 1}, child]}))
    run = ["run", "e.yaml", "--no-prefect", "--executor", "inline", "--tracker", "offline"]
    assert watched([{"argv": run}], tmp_path) == [{"status": 0, "heard": {}}]
    trial = next((tmp_path / "runs/trials").iterdir()).name
    steps = [["export", trial, "--output", "net.safetensors"], ["report", "e"], ["status"], ["logs", trial]]
    assert [step["heard"] for step in watched([{"argv": argv} for argv in steps], tmp_path)] == [{}] * len(steps)
    assert (tmp_path / "net.safetensors").exists()
