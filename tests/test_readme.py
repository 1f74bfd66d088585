"""The README's code works as it stands."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from harness.driver import Driver
from harness.experiment import load_experiment

PROJECT = Path(__file__).parents[1]
TEXT = (PROJECT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.S | re.M)


@pytest.mark.parametrize("text", blocks("yaml"), ids=lambda t: t.split("\n", 1)[0])
def test_its_experiments_are_valid(tmp_path: Path, text: str):
    file = tmp_path / "e.yaml"
    file.write_text(text)
    for code in (PROJECT / "experiments" / "own_function").glob("*.py"):  # what the README says lies beside the file
        shutil.copy(code, tmp_path)
    assert load_experiment(file).trials


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "e.yaml").write_text("name: quickstart\ntrials: [{learner: classifier, epochs: 1, seeds: 2}]\n")
    Driver(load_experiment(tmp_path / "e.yaml"), tmp_path / "runs", executor="inline").train()
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    results = names["results"]
    assert len(results.trials) == 2  # type: ignore[attr-defined]
    assert len(results.metrics())  # type: ignore[attr-defined]


def test_every_file_it_names_exists():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    assert len(links) >= 8
    for link in links:
        assert (PROJECT / link).exists(), link
