"""Delivering whole runs and proving that they arrived: for the feeder's last step and for `seedbed sync`.

wandb may call a run synced although its upload failed, so the server is asked each time: as many history lines as
metrics.jsonl, the same last progress, the same final summary.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.tracking import runs
from harness.tracking.state import RunState, hold, read_lines, read_states, wandb_folder

__all__ = ["ASK_TIMEOUT", "deliver", "deliver_online", "lacking", "prove", "write_offline"]

_log = logging.getLogger(__name__)

ASK_TIMEOUT = 10.0
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


def deliver_online(root: Path, state: RunState, run: Any, after: float) -> None:
    """Log what comes after progress `after` to a live run, finish it, and record whether all of it arrived."""
    runs.finish_content(root, state, run, after)
    run.finish()
    missing = prove(root, state, PROOF_SECONDS)
    if missing:
        raise ConnectionError(missing)
    state.state = "synced"
    state.write(root)


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
    """What the server lacks of a run ("" for nothing): lines of history, their last progress, the final summary."""
    if state.kind == "trial":
        lines = read_lines(root / "trials" / state.id / "metrics.jsonl", state.fed)
        last = lines[-1]["progress"] if lines else float("-inf")
        if (view.lines, view.progress) != (len(lines), last):
            return f"the server has {view.lines} of {len(lines)} lines, up to progress {view.progress:g} of {last:g}"
    if state.digest and view.summary.get("digest") != state.digest:
        return "the server lacks the final summary"
    return ""


def deliver(root: Path, timeout: float) -> Iterator[dict[str, Any]]:
    """Deliver every run that is not proved to be on the server; one answer a run, within about `timeout` seconds.

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
        due = [state for state in read_states(root) if state.state != "synced" and (state.final or state.folder)]
        yield from _deliver(root, due, time.monotonic() + timeout)


def _deliver(root: Path, due: list[RunState], deadline: float) -> Iterator[dict[str, Any]]:
    views: dict[str, runs.ServerView] = {}
    trouble = ""
    for state in due:
        if not trouble:
            try:
                views[state.id] = runs.ask_server(state, ASK_TIMEOUT)
            except Exception as error:  # wandb's own kinds of errors are not public
                _log.exception("asking for %s", state.id)
                trouble = f"the server does not answer ({type(error).__name__})"
    fresh = [s for s in due if s.id in views and s.folder and not views[s.id].lines and not views[s.id].summary]
    if fresh:
        _wandb_sync(root, fresh, deadline)
    for state in due:
        missing = trouble
        if not trouble and time.monotonic() > deadline:
            missing = "the time is over"
        elif not trouble:
            missing = _check(root, state, tried=state in fresh)
            trouble = missing if missing.startswith("the server does not answer") else ""
        yield {"run": state.id, "name": state.meta["name"], "missing": missing}


def _check(root: Path, state: RunState, *, tried: bool) -> str:
    """Prove that a run arrived; where a part is there already, send the rest. Returns what is missing."""
    try:
        missing = prove(root, state, PROOF_SECONDS if tried else 0.0)
        if missing and not tried:
            view = runs.ask_server(state, ASK_TIMEOUT)
            run = runs.start_run(root, state, "online")
            deliver_online(root, state, run, view.progress)
            return ""
    except ConnectionError as error:
        return str(error)
    except Exception as error:
        _log.exception("run %s", state.id)
        return f"the server does not answer ({type(error).__name__})"
    if not missing:
        state.state = "synced"
        state.write(root)
    return missing


def _wandb_sync(root: Path, states: list[RunState], deadline: float) -> None:
    """Upload offline folders with `wandb sync`; what it claims is not believed, and its output goes to the log."""
    folders = [str(wandb_folder(root) / state.folder) for state in states]
    command = [sys.executable, "-m", "wandb", "sync", "--include-synced", "-n", "4", *folders]
    try:
        subprocess.run(
            command, stdin=subprocess.DEVNULL, timeout=max(1.0, deadline - time.monotonic()), check=False
        )
    except subprocess.TimeoutExpired:
        _log.warning("wandb sync did not end in time")
