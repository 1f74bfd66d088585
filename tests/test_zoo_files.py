"""Every file of experiments/zoo is ready to run, says where it comes from, and its two learners get the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import yaml_lines
from harness.experiment import load_experiment

ZOO = Path(__file__).parents[1] / "experiments" / "zoo"
FILES = sorted(ZOO.glob("*.yaml"))
BOTH = [file for file in FILES if (ZOO / f"sb3-{file.name}").is_file()]


def entry(file: Path) -> dict:
    (trial,) = yaml_lines.parse(file.read_text())[0]["trials"]
    return trial


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_is_a_sound_experiment_with_its_source(file: Path) -> None:
    experiment = load_experiment(file)
    assert experiment.name == file.stem
    assert len(experiment.trials) >= 3
    first, second, *_ = file.read_text().splitlines()
    assert "rl-baselines3-zoo" in first
    assert "@22e3ff2" in first
    assert second.startswith("# Published there")


def test_they_cover_what_was_published() -> None:
    names = ("ppo", "a2c", "dqn", "sac", "td3")
    found = {name: sum(file.stem.startswith(f"{name}-") for file in FILES) for name in names}
    assert found == {"ppo": 8, "a2c": 8, "dqn": 4, "sac": 4, "td3": 4}


@pytest.mark.parametrize("file", BOTH, ids=lambda file: file.stem)
def test_ours_and_theirs_train_on_the_same(file: Path) -> None:
    ours, theirs = entry(file), entry(ZOO / f"sb3-{file.name}")
    assert (ours["learner"].upper(), theirs["learner"]) == (theirs["algo"], "sb3")
    for field in ("env", "n_envs", "steps", "wrappers", "eval_episodes"):
        assert ours.get(field) == theirs.get(field)
    assert file.stem.split("-")[0] == ours["learner"]


def test_what_ours_cannot_says_why() -> None:
    alone = [file for file in FILES if not file.stem.startswith("sb3-") and file not in BOTH]
    assert len(alone) == 8
    for file in alone:
        assert entry(file)["learner"] == "sb3"
        assert "gSDE" in file.read_text()
        assert entry(file)["hyper"]["use_sde"] is True
