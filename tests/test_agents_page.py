"""docs/agents.md: its experiments are sound, its code runs, its files exist, and it names every learner of `agents`."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agents.envs.wrappers import WRAPPERS
from flows.cli import app
from harness.experiment import load_experiment
from harness.learner import BUILTIN

PROJECT = Path(__file__).parents[1]
PAGE = (PROJECT / "docs" / "agents.md").read_text()
ZOO = "CartPole-v1:\n  n_timesteps: !!float 1e5\n  policy: 'MlpPolicy'\nAcrobot-v1: {n_timesteps: 1000, n_envs: 16}\n"


def blocks(language: str) -> list[str]:
    """Code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.S | re.M)


@pytest.mark.parametrize("text", blocks("yaml"), ids=lambda text: text.split("\n", 1)[0])
def test_its_experiments_are_sound(tmp_path: Path, text: str) -> None:
    for mark, package in (("ALE/", "ale_py"), ("MiniGrid-", "minigrid")):
        if mark in text and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package}, which this experiment needs, is not installed")
    (tmp_path / "e.yaml").write_text(text)
    assert load_experiment(tmp_path / "e.yaml").trials


def test_its_table_has_every_wrapper_with_its_options() -> None:
    table = PAGE.split("| wrapper |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (`.*?) \| .*? \|(.*)\|$", table, flags=re.M)
    told = {name: options for names, options in rows for name in re.findall("`(.*?)`", names)}
    assert sorted(told) == sorted(WRAPPERS)
    for name, wrapper in WRAPPERS.items():
        for option in list(inspect.signature(wrapper).parameters.values())[1:]:
            default = "" if option.default is option.empty else f": {str(option.default).lower()}"
            assert f"{option.name}{default}" in told[name], (name, option)


def test_its_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for code in blocks("python"):
        exec(compile(code, "agents.md", "exec"), names)
    assert "CartPole-v1" in capsys.readouterr().out
    assert names["spec"].obs_shape == (2,)
    assert names["shares"].tolist() == [0.0, 1.0]
    assert names["video"].kind == "video"


def test_its_commands_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ppo.yml").write_text(ZOO)
    commands = re.findall(r"^seedbed (zoo .*?) *(?:#.*)?$", PAGE, flags=re.M)
    assert len(commands) == 2
    for command in commands:
        assert CliRunner().invoke(app, command.split()).exit_code == 0, command
    assert load_experiment(tmp_path / "acrobot.yaml").name == "acrobot"


def test_every_file_it_names_exists_and_every_agent_is_named() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", PAGE)
    assert links
    for link in links:
        assert (PROJECT / "docs" / link).exists(), link
    for name, target in BUILTIN.items():
        if target.startswith("agents."):
            assert re.search(rf"^\| .*`{name}`.* \|", PAGE, flags=re.M), name
