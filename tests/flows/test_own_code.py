"""A user's own modules are found from the experiment file's folder and from the working folder, by every command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import harness
from flows.exporting import find_trial
from flows.steps import Options, Steps
from harness.experiment import load_experiment
from harness.spec_errors import SpecError

MODULE = """
from torch import nn

def train(run):
    run.log(1, score=4.0)
    return nn.Linear(2, 1)
"""


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders, in the second of which we are; what a test adds to Python's path is forgotten."""
    for name in ("files", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def write(places: Path, call: str) -> Path:
    file = places / "files" / "e.yaml"
    file.write_text(json.dumps({"name": "e", "trials": [{"learner": "function", "call": call}]}))
    return file


@pytest.mark.parametrize("where", ["files", "here"])
def test_a_function_is_found_by_plan_run_load_and_export(places: Path, where: str):
    (places / where / f"own_{where}.py").write_text(MODULE)
    file = write(places, f"own_{where}:train")
    load_experiment(Path("..") / "files" / "e.yaml")
    before = list(sys.path)
    steps = Steps.load(file, [], Options(str(places / "runs"), "inline", tracker="files"))
    assert steps.train().exit_code == 0
    (trial,) = steps.train().trials
    assert trial["score"] == 4.0
    added = {str(places / "files"), str(places / "here")}
    assert added <= set(before)
    sys.path[:] = [place for place in sys.path if place not in added]
    find_trial(places / "runs", trial["id"])
    assert added <= set(sys.path)
    sys.path[:] = [place for place in sys.path if place not in added]
    harness.load("e", places / "runs")
    assert added <= set(sys.path)


def test_an_environment_beside_the_file_is_found_by_the_plan(places: Path):
    (places / "files" / "own_corridor.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "gymnasium.register('Corridor-v0', CartPoleEnv, max_episode_steps=9)\n"
    )
    file = write(places, "")
    trial = {"learner": "a2c", "env": "own_corridor:Corridor-v0", "steps": 100}
    file.write_text(json.dumps({"name": "e", "trials": [trial]}))
    assert len(load_experiment(file).trials) == 1
    file.write_text(json.dumps({"name": "e", "trials": [{**trial, "env": "own_nowhere:Corridor-v0"}]}))
    with pytest.raises(SpecError, match="own_nowhere"):
        load_experiment(file)


def test_an_installed_package_is_not_replaced_by_a_module_beside_the_file(places: Path):
    (places / "files" / "yaml_of_mine.py").write_text(MODULE)
    before = list(sys.path)
    load_experiment(write(places, "yaml_of_mine:train"))
    assert sys.path[: len(before)] == before
