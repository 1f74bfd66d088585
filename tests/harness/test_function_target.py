"""`learner: function`: the plan finds a target that is missing, raises, exits, or is not a function of one argument."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from harness.driver import Driver
from harness.experiment import load_experiment
from harness.spec_errors import SpecError

CODE = """
import functools

def train(run):
    run.log(1, score=1.0)

number = 3

def nothing():
    pass

def two(run, other):
    pass

async def later(run):
    pass

def some(run):
    yield 1

class Net:
    pass

half = functools.partial(two, other=1)
"""


def plan(folder: Path, call: str):
    file = folder / "e.yaml"
    file.write_text(json.dumps({"name": "e", "trials": [{"learner": "function", "call": call}]}))
    return load_experiment(file)


def write(folder: Path, name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    (folder / f"{name}.py").write_text(code)
    return name


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("trian", r"unknown function `trian`; did you mean `train`\?"),
        ("number", r"own_code_a\.py: `number` is a int, not a function; write def number\(run\): \.\.\."),
        ("nothing", r"own_code_a\.py, line 9: `nothing` does not take the one argument .*too many positional"),
        ("two", r"line 12: `two` does not take the one argument .*missing a required argument: 'other'"),
        ("later", r"line 15: `later` is a coroutine or a generator"),
        ("some", r"line 18: `some` is a coroutine or a generator"),
        ("Net", r"line 21: `Net` does not take the one argument"),
    ],
)
def test_what_is_not_a_function_of_one_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name, sentence):
    module = write(tmp_path, "own_code_a", CODE, monkeypatch)
    with pytest.raises(SpecError, match=rf"e\.yaml:1: trials\.0\.call: .*{sentence}") as caught:
        plan(tmp_path, f"{module}:{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("x = 1\nraise RuntimeError('no\\nway')", r"own_code_b\.py, line 2: RuntimeError: no way, while"),
        ("import sys\nsys.exit(0)", r"own_code_b\.py, line 2: the module exits when it is imported; put what runs it"),
        ("def f(:\n  pass", r"own_code_b\.py, line 1: SyntaxError"),
        ("import no_such_package_x", r"own_code_b\.py, line 1: ModuleNotFoundError: No module named 'no_such"),
        ("import json\njson.loads('{')", r"own_code_b\.py, line 2: JSONDecodeError"),
    ],
    ids=["raises", "exits", "syntax", "imports", "deep"],
)
def test_a_module_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code, sentence):
    module = write(tmp_path, "own_code_b", code, monkeypatch)
    with pytest.raises(SpecError, match=rf"trials\.0\.call: .*{sentence}"):
        plan(tmp_path, f"{module}:train")


def test_a_missing_module(tmp_path: Path):
    with pytest.raises(SpecError, match=r"call: there is no module `own_nowhere` beside the experiment file"):
        plan(tmp_path, "own_nowhere.inner:train")


def test_a_partial_of_a_function_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = CODE.replace("def two(run, other):\n    pass", "def two(run, other):\n    run.log(1, score=other)")
    module = write(tmp_path, "own_code_c", code, monkeypatch)
    outcome = Driver(plan(tmp_path, f"{module}:half"), tmp_path / "runs", executor="inline").train()
    assert [(t["state"], t["score"]) for t in outcome.trials] == [("done", 1.0)]
