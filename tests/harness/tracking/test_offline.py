"""W&B offline: what wandb's own reader shows equals metrics.jsonl, once per trial, whatever was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.tracking import make_tracker
from harness.tracking.state import RunState, report_id
from tests.harness.tracking.synthetic import RESULT, inspect, make_trial, metrics_path, row, write_lines


def folders(root: Path) -> list[Path]:
    """All offline folders."""
    return sorted((root / "wandb").glob("offline-run-*"))


def folder_of(root: Path, run_id: str) -> Path:
    """The one offline folder of a run, as recorded."""
    state = RunState.read(root, run_id)
    assert state is not None
    assert [path.name for path in folders(root) if run_id in path.name] == [state.folder]
    return root / "wandb" / state.folder


def track(root: Path, trials: list[dict[str, Any]], page: Path | None = None) -> str:
    """Tell everything of finished trials to a new tracker, as a driver does."""
    tracker = make_tracker("offline", root, "exp")
    for trial in trials:
        tracker.open(trial)
        tracker.commit(trial["id"], metrics_path(root, trial["id"]).stat().st_size)
        tracker.close(trial["id"], RESULT)
    if page is not None:
        tracker.report({"state": "done", "trials": [row(trial, root) for trial in trials]}, page)
    return tracker.finish(60)


def wait_for(what: Callable[[], Any], seconds: float = 30.0) -> None:
    """Poll until `what()` is true."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def equal(root: Path, trial: dict[str, Any]) -> dict[str, Any]:
    """Assert that W&B's reader shows this trial's metrics.jsonl; returns what it shows."""
    about = inspect(folder_of(root, trial["id"]))
    lines = [json.loads(text) for text in metrics_path(root, trial["id"]).read_text().splitlines()]
    assert about["history"] == lines
    last: dict[str, Any] = {}
    for line in lines:
        last.update({key: value for key, value in line.items() if value is not None})
    assert {key: about["summary"][key] for key in last} == last
    return about


def test_offline_runs_equal_the_files(root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Config, history, summary and media of every trial, one run for the report, and a clean terminal."""
    trials = [make_trial(root, number, lines=30, media=number == 0) for number in range(3)]
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><title>page</title>")
    line = track(root, trials, page)
    assert line.startswith("W&B offline: 4 of 4 runs in ")
    assert capfd.readouterr() == ("", "")
    assert len(folders(root)) == 4
    for trial in trials:
        about = equal(root, trial)
        assert about["runs"][0]["run_id"] == trial["id"]
        named = {key: trial[key] for key in ("seed", "learner", "label", "version")}
        assert about["config"] == {**trial["config"], **named}
        assert (about["summary"]["score"], about["summary"]["state"]) == (497.5, "done")
        (run,) = about["runs"]
        assert (run["run_group"], run["job_type"], run["display_name"]) == (
            "exp",
            "trial",
            f"{trial['label']} seed {trial['seed']}",
        )
        media = {"media/digits": "image-file", "media/ring": "plotly-file", "media/confusion": "plotly-file"}
        media |= {"media/episode": "video-file", "media/texts": "table-file"}
        found = {k[: -len("._type")]: v for k, v in about["media"].items() if k.endswith("._type")}
        assert found == (media if trial["seed"] == 0 else {})
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json"]
    command.append(str(folder_of(root, trials[2]["id"])))
    shown = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)
    assert (shown["run_id"], shown["state"], shown["summary"]["score"]) == (
        trials[2]["id"],
        "finished",
        497.5,
    )
    report = inspect(folder_of(root, report_id("exp")))
    assert report["runs"][0]["job_type"] == "report"
    assert report["summary"]["trials.nrows"] == 3
    assert next(folder_of(root, report_id("exp")).rglob("page.html")).read_text() == page.read_text()


def test_the_same_again_starts_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call finds everything recorded as complete: no process, the same folders."""
    trials = [make_trial(root, 1)]
    track(root, trials)
    before = folders(root)
    monkeypatch.setattr(subprocess, "Popen", None)
    tracker = make_tracker("offline", root, "exp")
    tracker.report({"trials": [row(trials[0], root)]}, root / "none.html")
    assert folders(root) == before
    monkeypatch.undo()


def test_report_catches_up_and_leaves_reused_trials_alone(root: Path) -> None:
    """A trial whose driver was killed before its delivery is found; a reused one gets no second run."""
    mine, theirs = make_trial(root, 1), make_trial(root, 2)
    tracker = make_tracker("offline", root, "exp")
    tracker.open({**theirs, "reused": True})
    tracker.close(theirs["id"], RESULT)
    rows = [row(mine, root), row(theirs, root, reused=True, trained_by="earlier")]
    tracker.report({"state": "done", "trials": rows}, root / "none.html")
    tracker.finish(60)
    assert RunState.read(root, theirs["id"]) is None
    assert len(folders(root)) == 2
    equal(root, mine)
    assert inspect(folder_of(root, report_id("exp")))["summary"]["trials.nrows"] == 2


def test_killed_in_the_middle_then_again_is_one_equal_run(root: Path) -> None:
    """SIGKILL while a folder is being written; the next driver removes it and writes one that is equal."""
    trial = make_trial(root, 1, lines=2_000)
    tracker = make_tracker("offline", root, "exp")
    tracker.open(trial)
    tracker.close(trial["id"], RESULT)
    wait_for(lambda: folders(root))
    os.kill(tracker._feeder._process.pid, signal.SIGKILL)
    tracker._feeder._process.wait()
    recorded = RunState.read(root, trial["id"])
    assert recorded is not None
    assert recorded.state == "open"
    assert recorded.folder == ""
    (partial,) = folders(root)
    track(root, [trial])
    assert len(folders(root)) == 1
    assert not partial.exists() or partial.name == RunState.read(root, trial["id"]).folder
    equal(root, trial)


def test_a_feeder_that_died_is_started_again(root: Path) -> None:
    """Within one driver: what was told to the dead feeder and is not recorded as complete is told again."""
    first, second = make_trial(root, 1), make_trial(root, 2)
    tracker = make_tracker("offline", root, "exp")
    tracker.open(first)
    os.kill(tracker._feeder._process.pid, signal.SIGKILL)
    tracker._feeder._process.wait()
    tracker.close(first["id"], RESULT)
    os.kill(tracker._feeder._process.pid, signal.SIGKILL)
    tracker._feeder._process.wait()
    tracker.open(second)
    tracker.close(second["id"], RESULT)
    assert tracker.finish(60).startswith("W&B offline: 2 of 2 runs")
    equal(root, first)
    equal(root, second)


def test_stopped_trials_are_written_as_far_as_committed_and_rewritten_at_the_end(root: Path) -> None:
    """A stop in the middle gives a readable run of the committed lines; the end gives one whole run."""
    trial = make_trial(root, 1, lines=0)
    committed = write_lines(root, trial["id"], 0, 10)
    write_lines(root, trial["id"], 10, 15)  # not committed
    tracker = make_tracker("offline", root, "exp")
    tracker.open(trial)
    tracker.commit(trial["id"], committed)
    tracker.finish(60)
    about = inspect(folder_of(root, trial["id"]))
    assert [line["progress"] for line in about["history"]] == [100 * (k + 1) for k in range(10)]
    assert "state" not in about["summary"]
    track(root, [trial])
    assert len(folders(root)) == 1
    equal(root, trial)


def test_the_feeder_ends_when_the_driver_dies(root: Path) -> None:
    """SIGKILL of the driver: its feeder is gone within seconds, and so is wandb's own process."""
    code = (
        "import json, os, sys, time; from pathlib import Path; from harness.tracking import make_tracker\n"
        "tracker = make_tracker('offline', Path(sys.argv[1]), 'exp'); trial = json.loads(sys.argv[2])\n"
        "tracker.open(trial); tracker.close(trial['id'], {'state': 'done'})\n"
        "print(tracker._feeder._process.pid, flush=True); time.sleep(60)"
    )
    trial = make_trial(root, 1)
    command = [sys.executable, "-c", code, str(root), json.dumps(trial)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        feeder = psutil.Process(int(driver.stdout.readline()))
        family = {feeder}

        def at_work() -> bool:
            family.update(feeder.children(recursive=True))
            return bool(folders(root)) and len(family) > 1  # wandb's own process is there too

        wait_for(at_work)
        driver.kill()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


def test_no_secret_reaches_any_file(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A key and other secrets in the environment and in a git remote: 0 hits below root and home."""
    canaries = [f"canary{number}" + "x" * 33 for number in range(4)]
    monkeypatch.setenv("WANDB_API_KEY", canaries[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", canaries[1])
    monkeypatch.setenv("DATABASE_URL", f"postgresql://user:{canaries[2]}@db/x")
    repository = tmp_path / "repository"
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    remote = f"https://user:{canaries[3]}@git.test/x.git"
    subprocess.run(["git", "-C", str(repository), "remote", "add", "origin", remote], check=True)
    monkeypatch.chdir(repository)
    trial = make_trial(root, 1, media=True)
    track(root, [trial], root / "none.html")
    equal(root, trial)
    read = 0
    for path in [*root.rglob("*"), *(tmp_path / "home").rglob("*")]:
        if path.is_file():
            content = path.read_bytes()
            read += 1
            assert not [canary for canary in canaries if canary.encode() in content], path
    assert read > 8


def test_a_table_of_more_rows_than_wandb_keeps_arrives_whole(root: Path, tmp_path: Path) -> None:
    """wandb.Table cuts the file at 10,000 rows without a word."""
    rows = [{"id": f"{n:016x}", "label": "ppo", "seed": n, "state": "done", "reused": True} for n in range(10_002)]
    tracker = make_tracker("offline", root, "exp")
    tracker.report({"state": "done", "trials": rows}, tmp_path / "none.html")
    tracker.finish(60)
    (file,) = folder_of(root, report_id("exp")).glob("files/media/table/trials_*.table.json")
    table = json.loads(file.read_text())
    seed = table["columns"].index("seed")
    assert [cells[seed] for cells in table["data"]] == list(range(10_002))


def test_a_home_that_cannot_be_written_costs_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb copies the page into the user's data folder first."""
    (tmp_path / "no-home").write_text("a file, where no folder can be made")
    monkeypatch.setenv("HOME", str(tmp_path / "no-home"))
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    trial = make_trial(tmp_path, 1)
    page = tmp_path / "page.html"
    page.write_text("<p>page</p>")
    text = track(tmp_path, [trial], page)
    assert "missing" not in text
    assert "2 of 2" in text
