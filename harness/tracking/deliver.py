"""Delivering whole runs and proving that they arrived: for the feeder's last step and for `seedbed sync`.

wandb may call a run synced although its upload failed, so the server is asked each time: as many history
lines as metrics.jsonl, the same last progress, the same final summary.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.tracking import runs
from harness.tracking.state import RunState, hold, metrics_path, read_lines, undelivered, wandb_folder

__all__ = ["ASK_TIMEOUT", "deliver", "deliver_online", "lacking", "prove", "write_offline"]

_log = logging.getLogger(__name__)

ASK_TIMEOUT = 10.0
ONE_AT_A_TIME = threading.Lock()  # wandb imports pandas and plotly when it first logs, which threads may not share
PROOF_SECONDS = 10.0  # a server may count lines a moment after it took them


def write_offline(root: Path, state: RunState) -> None:
    """Write a run into one offline folder, from its beginning; what an earlier attempt left is removed."""
    state.mode = "offline"
    runs.remove_offline(root, state)
    run = runs.start_run(root, state, "offline")
    runs.finish_content(root, state, run, float("-inf"))
    run.finish()
    state.folder = Path(run.settings.sync_dir).name
    state.state = "closed" if state.final else "open"
    state.write(root)


def deliver_online(root: Path, state: RunState, run: Any, after: float) -> str:
    """Log what comes after progress `after` to a live run, finish it, and record whether all of it arrived.

    Returns:
        "" when it arrived, else what is missing, in words.
    """
    try:
        with ONE_AT_A_TIME:
            runs.finish_content(root, state, run, after)
    finally:
        run.finish()  # also after trouble: the id is in use until then
    missing = prove(root, state, PROOF_SECONDS)
    if not missing:
        state.state = "synced"
        state.write(root)
    return missing


def prove(root: Path, state: RunState, seconds: float) -> str:
    """Ask the server until it has the whole run, for at most `seconds`.

    Returns:
        "" when history and summary have arrived, else what is missing, in words.
    """
    deadline = time.monotonic() + seconds
    while True:
        missing = lacking(root, state, runs.ask_server(state, ASK_TIMEOUT))
        if not missing or time.monotonic() > deadline:
            return missing
        time.sleep(0.5)


def lacking(root: Path, state: RunState, view: runs.ServerView) -> str:
    """What the server lacks of a run ("" for nothing): history lines, their last progress, the summary."""
    if state.kind == "trial":
        lines = read_lines(metrics_path(root, state.id), state.fed)
        last = lines[-1]["progress"] if lines else float("-inf")
        if (view.lines, view.progress) != (len(lines), last):
            there = f"{view.lines} of {len(lines)} lines, up to progress {view.progress:g} of {last:g}"
            return f"the server has {there}"
    if state.digest and view.summary.get("digest") != state.digest:
        return "the server lacks the final summary"
    return ""


def deliver(root: Path, timeout: float) -> Iterator[dict[str, Any]]:
    """Deliver every run that is not proved to be on the server, within about `timeout` seconds.

    Yields:
        {"login": False} without a login; {"busy": True} while an experiment feeds this run root; else
        {"run", "name", "lines", "missing"} with `missing` "" for what arrived.
    """
    if not runs.log_in():
        yield {"login": False}
        return
    with hold(root, alone=True) as free:
        if not free:
            yield {"busy": True}
            return
        yield from _deliver(root, undelivered(root), time.monotonic() + timeout)


def _deliver(root: Path, due: list[RunState], deadline: float) -> Iterator[dict[str, Any]]:
    views: dict[str, runs.ServerView] = {}
    trouble = ""
    for state in due:
        if not trouble:
            try:
                views[state.id] = runs.ask_server(state, ASK_TIMEOUT)
            except runs.ServerDownError as error:
                trouble = str(error)
    fresh = [s for s in due if s.folder and s.id in views and views[s.id] == runs.ServerView()]
    if fresh:
        _wandb_sync(root, fresh, deadline)
    patience = PROOF_SECONDS
    for state in due:
        missing = trouble
        if not trouble and time.monotonic() > deadline:
            missing = "the time is over"
        elif not trouble:
            try:
                missing = _check(root, state, patience if state in fresh else None)
                patience = min(patience, 1.0) if missing else patience
            except runs.ServerDownError as error:
                missing = trouble = str(error)
            except Exception as error:  # one run's trouble does not take the others along
                _log.exception("run %s", state.id)
                missing = f"{type(error).__name__}; see wandb/feeder.log in the run root"
        yield {"run": state.id, "name": state.meta["name"], "missing": missing}


def _check(root: Path, state: RunState, patience: float | None) -> str:
    """Prove that a run arrived; what was not just uploaded is completed where a part is missing.

    Args:
        root: run root.
        state: the run.
        patience: seconds to wait for the proof of an upload just made; None where none was made.

    Returns:
        "" when it arrived, else what is missing, in words.
    """
    missing = prove(root, state, patience or 0.0)
    if missing and patience is None:
        view = runs.ask_server(state, ASK_TIMEOUT)
        return deliver_online(root, state, runs.start_run(root, state, "online"), view.progress)
    if not missing:
        state.state = "synced"
        state.write(root)
    return missing


def _wandb_sync(root: Path, states: list[RunState], deadline: float) -> None:
    """Upload offline folders with `wandb sync`; its output goes to the log, and is not believed."""
    folders = [str(wandb_folder(root) / state.folder) for state in states]
    command = [sys.executable, "-m", "wandb", "sync", "--include-synced", "-n", "4", *folders]
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, timeout=max(1.0, deadline - time.monotonic()), check=False)
    except subprocess.TimeoutExpired:
        _log.warning("wandb sync did not end in time")
