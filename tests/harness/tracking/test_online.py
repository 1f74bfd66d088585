"""W&B online against a server on 127.0.0.1: all of it, once, whatever is killed or down."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from plotly.offline import get_plotlyjs

from harness.report import build_page
from harness.tracking import make_tracker, sync
from harness.tracking.state import RunState, read_states, report_id
from tests.harness.tracking.conftest import KEY
from tests.harness.tracking.loopback import Server
from tests.harness.tracking.synthetic import RESULT, make_trial, metrics_path, row, write_lines
from tests.harness.tracking.test_offline import track, wait_for


def delivered(root: Path, server: Server, trial: dict[str, Any]) -> None:
    """Assert that the server has exactly this trial's lines, its configuration and its end."""
    run = server.runs[trial["id"]]
    lines = [json.loads(text) for text in metrics_path(root, trial["id"]).read_text().splitlines()]
    assert run.lines == lines
    assert run.overwritten == 0
    named = {key: trial[key] for key in ("seed", "learner", "label", "version")}
    assert run.config == {**trial["config"], **named}
    assert (run.summary["state"], run.summary["score"]) == ("done", 497.5)
    state = RunState.read(root, trial["id"])
    assert state is not None
    assert state.state == "synced"


def tell_quickly(root: Path, trials: list[dict[str, Any]], kind: str = "online") -> Any:
    """Tell everything to a tracker and assert that no call waited for the server."""
    start = time.monotonic()
    tracker = make_tracker(kind, root, "exp")
    for trial in trials:
        tracker.open(trial)
        tracker.commit(trial["id"], metrics_path(root, trial["id"]).stat().st_size // 2)
        tracker.close(trial["id"], RESULT)
    assert time.monotonic() - start < 1.0
    return tracker


def test_everything_arrives_once(root: Path, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    """Trials with media and the report, a second call that sends nothing, and a clean terminal."""
    trials = [make_trial(root, number, media=number == 0) for number in range(3)]
    page = root / "page.html"
    page.write_text("<!doctype html><title>page</title>")
    tracker = make_tracker("auto", root, "exp")
    for trial in trials:
        tracker.open(trial)
        tracker.commit(trial["id"], metrics_path(root, trial["id"]).stat().st_size // 2)
    wait_for(lambda: len(server.runs) == 3)  # live before the end
    for trial in trials:
        tracker.close(trial["id"], RESULT)
    tracker.report({"state": "done", "trials": [row(trial, root) for trial in trials]}, page)
    family = psutil.Process(tracker._feeder._process.pid).children(recursive=True)
    assert family
    assert tracker.finish(60) == "W&B online: 4 of 4 runs are on the server"
    assert psutil.wait_procs(family, timeout=10)[1] == []  # nothing is left running
    assert capfd.readouterr() == ("", "")
    for trial in trials:
        delivered(root, server, trial)
        fields = server.runs[trial["id"]].fields
        assert (fields["groupName"], fields["jobType"], fields["project"]) == ("exp", "trial", "seedbed")
    report = server.runs[report_id("exp")]
    assert report.files["page.html"].decode() == page.read_text()
    assert any("media/images" in name for name in server.runs[trials[0]["id"]].files)
    assert len(server.runs) == 4
    sent = len(server.operations)
    again = make_tracker("auto", root, "exp")
    again.report({"state": "done", "trials": [row(trial, root) for trial in trials]}, page)
    assert again.finish(5) == "W&B online: nothing new"
    assert len(server.operations) == sent
    assert sync(root).lines == ["W&B: nothing to deliver"]
    assert not [path for path in root.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_nothing_about_the_machine_or_the_code_arrives(
    root: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte that the server gets, of a failed trial with a page, searched for what must stay here."""
    monkeypatch.setenv("HOSTNAME", "plantedhost")
    monkeypatch.setenv("PLANTED", "plantedenvironment")
    trial = make_trial(root, 0, media=True)
    trial["config"]["data"] = trial["label"] = str(tmp_path / "plantedfolder" / "my.csv")
    folder = root / "trials" / trial["id"]
    caption = {"kind": "text", "caption": f"of {tmp_path}/plantedfolder/a", "data": ["to be"], "reference": []}
    (folder / "media" / "texts.json").write_text(json.dumps(caption))
    reason = f"[Errno 2] No such file or directory: '{tmp_path}/plantedfolder/file.bin'"
    machine = {"cpu": "plantedcpu", "platform": "plantedplatform"}
    result = {**RESULT, "state": "failed", "reason": reason, "commit": "plantedcommit", "machine": machine}
    (folder / "result.json").write_text(json.dumps({**result, "versions": {"python": "plantedversion"}}))
    (folder / "traceback.txt").write_text(f'File "{tmp_path}/mine.py", line 4\n  plantedcode = 1\n')
    told = row(trial, root, state="failed", reason=reason, progress=10, budget=10, config=trial["config"])
    ledger = {**told, "score": 1.0, "score_name": "eval/return"}
    page = build_page(
        {"name": "exp", "text": f"data: {tmp_path}/x"}, [ledger], root, root / "wandb/e.html", shared=True
    )
    tracker = make_tracker("online", root, "exp")
    tracker.open(trial)
    tracker.commit(trial["id"], metrics_path(root, trial["id"]).stat().st_size)
    tracker.close(trial["id"], result)
    tracker.report({"state": "failed", "trials": [told]}, page)
    assert tracker.finish(60) == "W&B online: 2 of 2 runs are on the server"
    assert server.runs[trial["id"]].config["data"] == ".../my.csv"
    assert server.runs[trial["id"]].summary["reason"] == "[Errno 2] No such file or directory: '.../file.bin'"
    assert b"my.csv" in server.runs[report_id("exp")].files["page.html"]
    here = [str(tmp_path), str(Path.home()), str(Path.cwd()), platform.node(), platform.platform(), platform.release()]
    here += [sys.executable, platform.python_version(), f"{platform.system()}-{platform.machine()}".lower(), "planted"]
    received = b"\n".join(server.received)
    library = get_plotlyjs().encode()  # four megabytes, in which a short name of a host may well occur
    assert library in received
    received = received.replace(library, b"")
    assert [text for text in here if re.search(rb"\b" + re.escape(text.encode()), received)] == []


@pytest.mark.parametrize(
    "also_core",
    [pytest.param(True, id="feeder and core"), pytest.param(False, id="feeder", marks=pytest.mark.slow)],
)
def test_killed_in_the_middle_resumes_without_gap_or_repeat(
    root: Path, server: Server, monkeypatch: pytest.MonkeyPatch, also_core: bool
) -> None:
    """SIGKILL of the feeder (and of wandb-core) when the server has some lines; the next driver goes on."""
    monkeypatch.setenv("WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL", "1")
    trial = make_trial(root, 1, lines=0)
    tracker = make_tracker("online", root, "exp")
    tracker.open(trial)
    tracker.commit(trial["id"], write_lines(root, trial["id"], 0, 8))
    wait_for(lambda: trial["id"] in server.runs and server.runs[trial["id"]].history)
    tracker.commit(trial["id"], write_lines(root, trial["id"], 8, 12))
    time.sleep(0.2)
    feeder = psutil.Process(tracker._feeder._process.pid)
    core = feeder.children(recursive=True)
    os.kill(feeder.pid, signal.SIGKILL)
    for process in core if also_core else []:
        process.kill()
    tracker._feeder._process.wait()
    assert 0 < len(server.runs[trial["id"]].history) < 20
    write_lines(root, trial["id"], 12, 20)
    assert track_online(root, trial) == "W&B online: 1 of 1 runs are on the server"
    delivered(root, server, trial)


def track_online(root: Path, trial: dict[str, Any]) -> str:
    """A new driver's tracker is told the end of a trial."""
    tracker = make_tracker("online", root, "exp")
    tracker.open(trial)
    tracker.close(trial["id"], RESULT)
    return tracker.finish(60)


@pytest.mark.parametrize("fault", ["hole", *(pytest.param(name, marks=pytest.mark.slow) for name in ("down", "500"))])
def test_a_broken_server_slows_nothing_and_sync_delivers_later(
    root: Path, server: Server, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Calls return at once, finish keeps its time and says what is missing; later sync delivers."""
    trials = [make_trial(root, number) for number in range(2)]
    server.fault = fault if fault != "down" else ""
    if fault == "down":
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    tracker = tell_quickly(root, trials)
    start = time.monotonic()
    line = tracker.finish(8)
    assert time.monotonic() - start < 9.5
    assert line == "W&B online: 0 of 2 runs are on the server, 2 missing; `seedbed sync` delivers them"
    assert not any(run.history for run in server.runs.values())
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    server.fault = ""
    report = sync(root, timeout=60)
    assert (report.exit_code, sorted(report.arrived)) == (0, [trial["id"] for trial in trials])
    for trial in trials:
        delivered(root, server, trial)


def test_sync_uploads_offline_folders_and_proves_it(root: Path, server: Server) -> None:
    """What was trained without a login; a second sync has nothing to do."""
    trials = [make_trial(root, number, media=number == 0) for number in range(2)]
    page = root / "page.html"
    page.write_text("<!doctype html><title>page</title>")
    track(root, trials, page)
    assert server.runs == {}
    report = sync(root, timeout=60)
    assert report.exit_code == 0
    assert len(report.lines) == 3
    assert all(line.endswith("  arrived") for line in report.lines)
    for trial in trials:
        delivered(root, server, trial)
    assert server.runs[report_id("exp")].files["page.html"].decode() == page.read_text()
    assert {state.state for state in read_states(root)} == {"synced"}
    assert sync(root).lines == ["W&B: nothing to deliver"]


def test_sync_that_claims_success_is_not_believed(root: Path, server: Server) -> None:
    """`wandb sync` ends without a complaint, the server has nothing: said so, left for the next time."""
    trial = make_trial(root, 1)
    track(root, [trial])
    server.fault = "forget"
    report = sync(root, timeout=60)
    assert report.exit_code == 1
    assert report.missing == {trial["id"]: "the server has 0 of 20 lines, up to progress -inf of 2000"}
    assert list((root / "wandb").glob("offline-run-*/*.synced"))  # wandb itself believes that it arrived
    server.fault = ""
    assert sync(root, timeout=60).arrived == [trial["id"]]
    delivered(root, server, trial)


@pytest.mark.slow
def test_sync_completes_what_arrived_in_part(root: Path, server: Server) -> None:
    """A trial synced after a stop, then trained to its end: the rest is sent, and nothing twice."""
    trial = make_trial(root, 1, lines=0)
    tracker = make_tracker("offline", root, "exp")
    tracker.open(trial)
    tracker.commit(trial["id"], write_lines(root, trial["id"], 0, 7))
    tracker.finish(60)
    assert sync(root, timeout=60).arrived == [trial["id"]]
    assert len(server.runs[trial["id"]].history) == 7
    write_lines(root, trial["id"], 7, 20)
    track(root, [trial])
    assert sync(root, timeout=60).arrived == [trial["id"]]
    delivered(root, server, trial)


def test_sync_without_a_login(root: Path) -> None:
    """One sentence that says what to do, exit code 2, nothing changed."""
    trial = make_trial(root, 1)
    track(root, [trial])
    report = sync(root)
    assert report.exit_code == 2
    assert len(report.lines) == 1
    assert "wandb login" in report.lines[0]


@pytest.mark.slow
def test_sync_with_a_server_that_is_down(root: Path, server: Server) -> None:
    """It ends in a bounded time and says so of every run."""
    trials = [make_trial(root, number) for number in range(2)]
    track(root, trials)
    server.fault = "hole"
    start = time.monotonic()
    report = sync(root, timeout=20)
    assert time.monotonic() - start < 40
    assert report.exit_code == 1
    assert set(report.missing) == {trial["id"] for trial in trials}
    assert all("does not answer" in text for text in report.missing.values())


def test_a_finish_without_time_leaves_everything_to_sync(root: Path, server: Server) -> None:
    """Killed before the feeder got to anything: the driver itself writes down what there is to deliver."""
    trial = make_trial(root, 1)
    tracker = tell_quickly(root, [trial])
    line = tracker.finish(0.0)
    assert line == "W&B online: 0 of 1 runs are on the server, 1 missing; `seedbed sync` delivers them"
    assert sync(root, timeout=60).arrived == [trial["id"]]
    delivered(root, server, trial)


@pytest.mark.slow
def test_a_server_that_comes_back_gets_everything_while_training(root: Path, server: Server) -> None:
    """Down when a trial ends, back before the experiment does: delivered without another word."""
    trial = make_trial(root, 1)
    server.fault = "500"
    tracker = tell_quickly(root, [trial])
    log = root / "wandb" / "feeder.log"
    wait_for(lambda: log.is_file() and "does not answer" in log.read_text())
    server.fault = ""
    wait_for(lambda: (RunState.read(root, trial["id"]) or RunState("x")).state == "synced", 120)
    assert tracker.finish(30) == "W&B online: 1 of 1 runs are on the server"
    delivered(root, server, trial)
