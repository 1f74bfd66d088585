"""The flow and its embedded server, for real."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.prefect_server import PrefectServer, api_url_of_user
from tests.flows.conftest import ROOT, environment, last_json, read_until, seedbed

INLINE = ("--executor", "inline", "--tracker", "files")


def gone(pid: int, seconds: float = 15.0) -> bool:
    """Whether a process ends within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


def servers_of(pid: int) -> list[psutil.Process]:
    """The embedded servers that a process has started."""
    return [p for p in psutil.Process(pid).children() if any("prefect_launcher" in part for part in p.cmdline())]


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    """What a query finds in Prefect's database."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def test_run_as_a_flow(tmp_path: Path, write_experiment: Callable[..., Path]) -> None:
    home = tmp_path / "prefect"
    root, file = tmp_path / "runs", write_experiment(n=40, sleep=0.1)
    done = seedbed("run", file, "--root", root, "--json", *INLINE, PREFECT_HOME=str(home), timeout=240)
    assert done.returncode == 0, done.stderr
    assert last_json(done.stdout)["state"] == "done"
    for word in ("Traceback", "prefect.", "\x1b", "Warning", "WARNING"):
        assert word not in done.stdout + done.stderr
    database = home / "prefect.db"
    assert rows(database, "select name, state_type from flow_run join (select id i, name n from flow) on i = flow_id")
    assert rows(database, "select state_type, parameters from flow_run")[0][0] == "COMPLETED"
    tasks = rows(database, "select name, state_type from task_run order by start_time")
    assert [name.rsplit("-", 1)[0] for name, _ in tasks] == ["plan", "train", "summarise", "report"]
    assert {state for _, state in tasks} == {"COMPLETED"}
    artifacts = dict(rows(database, "select key, data from artifact"))
    assert set(artifacts) == {"small-plan", "small-progress", "small-leaderboard", "small-page"}
    assert float(artifacts["small-progress"]) > 50.0
    assert not (Path(os.environ["HOME"]) / ".prefect").exists()


def test_outcome_is_true_when_the_server_is_killed_in_the_middle(
    tmp_path: Path, write_experiment: Callable[..., Path], start: Callable[..., subprocess.Popen[str]]
) -> None:
    root, file = tmp_path / "runs", write_experiment(n=160, sleep=0.1, seeds=1)
    process = start("run", file, "--root", root, *INLINE)
    read_until(process, "score")
    (server,) = servers_of(process.pid)
    before = last_json(seedbed("status", "small", "--root", root, "--json").stdout)
    assert before["trials"][0]["state"] == "running"  # the kill does happen in the middle
    server.send_signal(signal.SIGKILL)
    seen = "".join(read_until(process, "done, score"))
    ended = time.monotonic()
    seen += process.communicate(timeout=120)[0]
    assert process.returncode == 0, seen
    assert time.monotonic() - ended < 60
    assert "Traceback" not in seen
    assert "the run goes on without it" in seen
    after = last_json(seedbed("status", "small", "--root", root, "--json").stdout)
    assert (after["state"], after["trials"][0]["attempts"]) == ("done", 1)
    assert Path(after["page"]).exists()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["score", "done, score"])
def test_a_server_that_hangs_delays_the_end_by_20_seconds_at_most(
    tmp_path: Path, write_experiment: Callable[..., Path], start: Callable[..., subprocess.Popen[str]], moment: str
) -> None:
    root, file = tmp_path / "runs", write_experiment(n=80, sleep=0.1, seeds=1)
    process = start("run", file, "--root", root, *INLINE)
    seen = "".join(read_until(process, moment))
    (server,) = servers_of(process.pid)
    server.suspend()
    if "done" not in seen:
        seen += "".join(read_until(process, "done, score"))
    ended = time.monotonic()
    seen += process.communicate(timeout=120)[0]
    assert (process.returncode, "Traceback" in seen) == (0, False), seen
    assert time.monotonic() - ended < 20
    assert gone(server.pid)


def test_server_ends_with_a_killed_driver_and_the_run_resumes(
    tmp_path: Path, write_experiment: Callable[..., Path], start: Callable[..., subprocess.Popen[str]]
) -> None:
    root, file = tmp_path / "runs", write_experiment(n=100, sleep=0.1, seeds=1)
    process = start("run", file, "--root", root, *INLINE)
    read_until(process, "score")
    (server,) = servers_of(process.pid)
    process.kill()
    process.wait()
    assert gone(server.pid)
    done = seedbed("run", file, "--root", root, "--json", "--no-prefect", *INLINE)
    assert done.returncode == 0, done.stderr
    assert last_json(done.stdout)["trials"][0]["attempts"] == 2


def test_unreachable_api_of_the_user_costs_a_sentence(tmp_path: Path, write_experiment: Callable[..., Path]) -> None:
    root, file = tmp_path / "runs", write_experiment()
    url = "http://127.0.0.1:9/api"
    done = seedbed("run", file, "--root", root, "--json", *INLINE, PREFECT_API_URL=url, timeout=200)
    assert done.returncode == 0, done.stderr
    assert last_json(done.stdout)["state"] == "done"
    assert "the run goes on without it" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (root / "experiments/small/prefect-server.log").exists()  # no server of ours beside the user's


def test_server_object(tmp_path: Path) -> None:
    server = PrefectServer(tmp_path / "home", tmp_path / "server.log")
    server.start()
    try:
        assert server.wait()
        pid = server.pid
        assert pid is not None
        assert server.auth not in " ".join(psutil.Process(pid).cmdline())
        address = {c.laddr.ip for c in psutil.Process(pid).net_connections() if c.status == psutil.CONN_LISTEN}
        assert address == {"127.0.0.1"}
    finally:
        server.stop()
    assert gone(pid)
    assert not server.alive()


def test_server_that_cannot_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", "nonsense")
    server = PrefectServer(tmp_path / "home", tmp_path / "server.log")
    server.start()
    assert not server.wait(60)
    server.stop()


def test_users_api_is_found_in_environment_and_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    assert api_url_of_user() is None
    (tmp_path / "profiles.toml").write_text('active = "team"\n[profiles.team]\nPREFECT_API_URL = "http://a/api"\n')
    assert api_url_of_user() == "http://a/api"
    monkeypatch.setenv("PREFECT_API_URL", "http://b/api")
    assert api_url_of_user() == "http://b/api"


FAILING = """
import flows.experiment as e
def boom(**values):
    raise RuntimeError("api down")
a = e.Artifacts("My Run.1")
print([a.write(boom, "plan", table=[]) for _ in range(4)], a._failures, a._prefix)
p = e.ProgressArtifact(a, {"t1": 15.0, "t2": 15.0, "t3": 10.0})
p.hear({"kind": "report", "trials": ["t1", "t2"], "progress": 50, "budget": 100})
print(p.percent)
p.hear({"kind": "trial", "trial": "t3"})
p.hear({"kind": "cohort", "trials": ["t3"], "state": "retry", "progress": 3, "budget": 10})
print(p.percent)
with p.moving():
    pass
"""


def test_artifacts_never_raise() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAILING], capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=100
    )
    assert done.stdout.splitlines() == ["[None, None, None, None] 2 my-run-1", "37.5", "62.5"], done.stderr


PER_LANE = """
import sys
from pathlib import Path
import flows.experiment as e
from harness.driver import Driver
from harness.experiment import load_experiment
from harness.learner import BUILTIN
BUILTIN["toy"] = "tests.toy:Toy"
file = Path(sys.argv[1])
file.write_text("name: e\\ntrials: [{learner: toy, steps: 40, seeds: 2, grid: {lr: [0.1, 0.2], width: [2, 3]}}]")
seen = []
driver = Driver(load_experiment(file), file.parent / "runs", executor="inline", on_event=lambda event: hear(event))
plan = driver.plan()
p = e.ProgressArtifact(e.Artifacts("e"), e.trial_weights(plan))
def hear(event):
    p.hear(event)
    seen.append(p.percent)
driver.train()
print(len(plan.cohorts), {len({t.label for t in cohort}) for cohort, _ in plan.cohorts})
print(seen == sorted(seen), sum(10 < one < 90 for one in seen) > 4, seen[-1])
"""


def test_progress_of_cohorts_whose_lanes_have_labels_of_their_own(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", PER_LANE, str(tmp_path / "e.yaml")]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=100)
    assert done.stdout.splitlines() == ["2 {2}", "True True 100.0"], done.stdout + done.stderr
