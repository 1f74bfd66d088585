"""What `status`, `report`, `stop` and `logs` say of an experiment, in this process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from flows.cli import app
from harness.driver import Driver
from harness.experiment import load_experiment
from harness.learner import BUILTIN
from harness.ledger import Ledger
from harness.processes import started_at
from harness.results import load


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run root with the experiment e of two trials of the toy learner, one of them done."""
    monkeypatch.setitem(BUILTIN, "toy", "tests.toy:Toy")
    monkeypatch.setenv("COLUMNS", "200")
    file = tmp_path / "e.yaml"
    file.write_text("name: e\ntrials: [{learner: toy, steps: 10, seeds: 2}]\n")
    Driver(load_experiment(file), tmp_path / "runs", executor="inline").train()
    return tmp_path / "runs"


def seedbed(*arguments: str | Path) -> str:
    """What a command prints; it has to succeed."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return done.stdout


def drive(root: Path, pid: int) -> str:
    """Marks the experiment and its first trial as running under a process; returns the trial's id."""
    ledger = Ledger(root / "ledger.sqlite")
    first, second = (t["id"] for t in ledger.trials("e"))
    with ledger.drive("e", "e.yaml"):
        ledger.set_trials([first], state="running", trained_by="e", progress=5, score=None)
        row = ledger.experiment("e")
    ledger.close()
    engine = sa.create_engine(f"sqlite:///{root / 'ledger.sqlite'}")
    with engine.begin() as connection:
        values = {"pid": pid, "host": row["host"], "started": started_at(pid)}
        text = "update experiments set pid = :pid, host = :host, started = :started, state = 'running'"
        connection.execute(sa.text(text), values)
    engine.dispose()
    assert second != first
    return str(first)


@pytest.mark.parametrize("living", [True, False])
def test_text_json_page_and_stop_agree_on_whether_a_driver_lives(root: Path, living: bool) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pid = child.pid
    trial = drive(root, pid)
    if not living:
        child.communicate(b"\n")
    try:
        _agree(root, living, pid, trial)
    finally:
        child.communicate(b"\n" if living else None)


def _agree(root: Path, living: bool, pid: int, trial: str) -> None:
    state = "running" if living else "stopped"
    text = seedbed("status", "e", "--root", root)
    assert text.splitlines()[0].startswith(f"e: {state}")
    assert f"process {pid}" in text.splitlines()[0]
    assert ("is gone, `seedbed run` resumes" in text) is not living
    summary = json.loads(seedbed("status", "e", "--root", root, "--json"))
    assert summary["state"] == state
    assert {t["id"]: t["state"] for t in summary["trials"]}[trial] == state
    page = Path(seedbed("report", "e", "--root", root).strip()).read_text()
    assert f'<span class="state {state}">{state}</span>' in page
    if not living:
        assert seedbed("stop", "e", "--root", root) == "e is not running\n"


def test_the_log_of_a_trial_has_what_its_worker_and_its_learner_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shown_train.py").write_text(
        "import sys\n"
        "def train(run):\n"
        "    print('seed', run.seed, 'begins')\n"
        "    print('to stderr', file=sys.stderr)\n"
        "    run.log(1, score=0.5)\n"
        "    if run.seed: raise ValueError('told to')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "f.yaml"
    file.write_text("name: f\ntrials: [{learner: function, call: 'shown_train:train', seeds: 2}]\n")
    outcome = Driver(load_experiment(file), tmp_path / "runs", executor="inline").train()
    good, bad = (seedbed("logs", t["id"], "--root", tmp_path / "runs") for t in outcome.trials)
    assert "attempt 1, 1 lane: function" in good
    assert "seed 0 begins\nto stderr\n" in good
    assert "done, score 0.5" in good
    assert "seed 1 begins" not in good
    assert "seed 1 begins\nto stderr\n" in bad
    assert bad.count("ValueError: told to") == 2  # the sentence, and the last line of the traceback
    assert bad.count("Traceback") == 1
    ids = [t["id"] for t in outcome.trials]
    assert seedbed("logs", ids[0][:8], "--root", tmp_path / "runs") == good
    monkeypatch.setenv("COLUMNS", "60")
    table = seedbed("status", "f", "--root", tmp_path / "runs")
    assert all(trial in table for trial in ids)  # whole, however narrow the terminal


@pytest.mark.parametrize("command", ["status", "report", "stop", "logs", "export"])
def test_a_missing_ledger_is_named_with_its_mend_not_a_missing_experiment(root: Path, command: str) -> None:
    for file in root.glob("ledger.sqlite*"):
        file.unlink()
    trial = next(p.name for p in (root / "trials").iterdir())
    name = trial if command in ("logs", "export") else "e"
    done = CliRunner().invoke(app, [command, name, "--root", str(root)], catch_exceptions=False)
    assert done.exit_code != 0
    assert f"seedbed repair --root {root}" in done.output + str(done.exception)
    with pytest.raises(FileNotFoundError, match="seedbed repair"):
        load("e", root)


def test_a_plan_names_results_that_were_deleted(root: Path) -> None:
    file = root.parent / "e.yaml"
    assert "no results on disk" not in seedbed("plan", file, "--root", root)
    trial = min((root / "trials").iterdir())
    shutil.rmtree(trial)
    text = seedbed("plan", file, "--root", root)
    assert "0 to train in 0 cohorts" in text
    assert f"1 done trial has no results on disk any more (trials/{trial.name})" in text
    assert "1 to train in 1 cohort" in seedbed("plan", file, "--root", root, "--retry-failed")


@pytest.mark.parametrize(
    "place", ["ledger.sqlite", "trials/{0}/final.safetensors", "experiments/e/new", "trials/../ledger.sqlite"]
)
def test_an_export_never_takes_the_place_of_what_a_run_has_written(root: Path, place: str) -> None:
    trial = min(p.name for p in (root / "trials").iterdir())
    file = root / place.format(trial)
    done = CliRunner().invoke(app, ["export", trial, "--root", str(root), "-o", str(file)])
    assert done.exit_code == 2
    assert f"{file} belongs to the run root" in done.output
    assert seedbed("status", "e", "--root", root).startswith("e: done")
    assert not (root / "experiments/e/new").exists()
    done = CliRunner().invoke(app, ["export", trial, "--root", str(root), "-o", str(root / "mine.safetensors")])
    assert "belongs to the run root" not in done.output
