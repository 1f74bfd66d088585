"""A schedule that comes due by itself."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.flows.conftest import last_json, read_until, seedbed
from tests.flows.test_prefect import gone, rows


@pytest.mark.slow
def test_scheduled_run_starts_by_itself(
    tmp_path: Path, write_experiment: Callable[..., Path], start: Callable[..., subprocess.Popen[str]]
) -> None:
    root, file, home = tmp_path / "runs", write_experiment(), tmp_path / "prefect"
    inline = ("--executor", "inline", "--tracker", "files")
    process = start(
        "serve", file, "--cron", "* * * * *", "--root", root, *inline, PREFECT_HOME=str(home), TZ="America/New_York"
    )
    assert "time zone America/New_York, next at" in read_until(process, "served (cron * * * * *,")[-1]
    read_until(process, "seed 1: done")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=90)[0]
    assert "Traceback" not in rest
    assert all(gone(child.pid) for child in children)
    status = last_json(seedbed("status", "small", "--root", root, "--json").stdout)
    assert (status["state"], [t["attempts"] for t in status["trials"]]) == ("done", [1, 1])
    (name,) = {row[0] for row in rows(home / "prefect.db", "select name from deployment")}
    assert name == "small"


@pytest.mark.slow
def test_a_run_ends_with_the_serve_that_was_killed(
    tmp_path: Path, write_experiment: Callable[..., Path], start: Callable[..., subprocess.Popen[str]]
) -> None:
    root, file = tmp_path / "runs", write_experiment(n=1200, sleep=0.1, seeds=1)
    inline = ("--executor", "inline", "--tracker", "files")
    process = start("serve", file, "--interval", "1", "--root", root, *inline, PREFECT_HOME=str(tmp_path / "prefect"))
    read_until(process, "score")
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    _, left = psutil.wait_procs(children, timeout=40)
    assert left == []
    status = last_json(seedbed("status", "small", "--root", root, "--json").stdout)
    assert [(t["state"], t["attempts"]) for t in status["trials"]] == [("stopped", 1)]
    assert "seedbed serve has ended" in (root / "experiments" / "small" / "driver.log").read_text()
