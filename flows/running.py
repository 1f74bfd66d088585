"""`seedbed run`: reads the file, starts what is needed side by side, runs the steps, says how it ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from flows.leaderboard import leaderboard
from flows.prefect_server import PrefectServer, api_url_of_user, quiet_environment
from flows.progress import Display, leaderboard_table, make_display
from flows.steps import Options, Steps, experiment_folder
from harness.files import disk_trouble

__all__ = ["run_file"]


def run_file(file: Path, overrides: Sequence[str], options: Options, *, prefect: bool, as_json: bool) -> int:
    """Runs an experiment file; returns the exit status, that of a stop where the disk is full.

    Raises:
        SpecError: the file is wrong; nothing was written or started.
        UserError: nothing can be written at the run root.
        BusyError: another process runs it.
        ClusterError: Ray cannot be used as the options say.
    """
    try:
        return _run_file(file, overrides, options, prefect=prefect, as_json=as_json)
    except Exception as error:
        if not (trouble := disk_trouble(error)):
            raise
        print(f"{trouble}; with that mended, the same command goes on", file=sys.stderr)
        return 130


def _run_file(file: Path, overrides: Sequence[str], options: Options, *, prefect: bool, as_json: bool) -> int:
    steps = Steps.load(file, overrides, options)
    console = Console(stderr=as_json, highlight=False)
    display = make_display(console)
    steps.listeners.append(display.hear)
    parameters = {"file": str(Path(file).resolve()), "overrides": list(overrides), "options": options.to_json()}
    steps.check_free()
    plan = steps.plan()
    if plan.due:
        steps.driver.check_executor()
    display.say(steps.plan_text())
    with display, steps.stopper:
        if plan.due and prefect:
            code, lost = _with_prefect(steps, parameters, display)
        else:
            if plan.due:
                steps.start_workers()
            code, lost = steps.rest(), False
    _closing(steps, console, as_json)
    if lost:  # Prefect's threads would hold up the end: they try to reach a server that is gone
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _with_prefect(steps: Steps, parameters: dict[str, Any], display: Display) -> tuple[int, bool]:
    """Starts the server, the workers and Prefect's import side by side, then runs the flow."""
    server = None
    if not api_url_of_user():
        folder = experiment_folder(steps.root, steps.experiment.name)
        server = PrefectServer(steps.root / "prefect", folder / "prefect-server.log")
        server.start()
        os.environ["PREFECT_HOME"] = str(server.home)
    os.environ.update(quiet_environment(ours=server is not None))
    steps.start_workers()
    try:
        from flows.experiment import run_with_prefect

        if server is not None and not server.wait():
            display.say(f"Prefect's server did not start (see {server.log}); the run goes on without it")
            return steps.rest(), False
        if server is not None:
            server.watch()
        return run_with_prefect(steps, parameters, server)
    finally:
        if server is not None:
            server.stop()


def _closing(steps: Steps, console: Console, as_json: bool) -> None:
    summary = steps.summarise()
    reason = steps.train().reason
    if reason:
        console.print(reason, markup=False, soft_wrap=True)
    bad = [t for t in summary["trials"] if t["state"] == "failed"]
    console.print(leaderboard_table(leaderboard(summary)))
    for trial in bad:
        text = f"failed: {trial['label']} seed {trial['seed']}, see {trial['folder']}/traceback.txt"
        console.print(text, markup=False, soft_wrap=True)
    if Path(summary["page"]).is_file():
        console.print(f"page: {summary['page']}", markup=False, soft_wrap=True)
    if as_json:
        from flows.cli import print_json

        print_json(summary)
