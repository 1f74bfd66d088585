"""`seedbed sync`: deliver what W&B lacks, and say of every run whether its arrival was proved."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.tracking.client import feeder_command, feeder_environment, kill_family
from harness.tracking.state import undelivered
from harness.tracking.tracker import has_login

__all__ = ["SyncReport", "sync"]

GRACE_SECONDS = 30.0  # the delivering process ends by itself at its time limit; beyond this it is killed


@dataclass
class SyncReport:
    """What `sync` did.

    Attributes:
        lines: for the person, one a run.
        arrived: ids whose arrival was proved just now.
        missing: id -> what is missing.
        exit_code: 0 all is on the server, 1 something is missing, 2 nothing could be tried.
    """

    lines: list[str] = field(default_factory=list)
    arrived: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    exit_code: int = 0


def sync(root: Path, timeout: float = 600.0) -> SyncReport:
    """Deliver every run below `root` that is not proved to be on the W&B server.

    What did not arrive is left as it is for the next call.

    Args:
        root: run root.
        timeout: seconds after which no further run is tried.
    """
    due = {state.id: state for state in undelivered(root)}
    if not due:
        return SyncReport(["W&B: nothing to deliver"])
    if not has_login():
        text = f"W&B: {len(due)} runs wait for a login; call `wandb login` or set WANDB_API_KEY, then sync again"
        return SyncReport([text], missing=dict.fromkeys(due, "no login"), exit_code=2)
    answers = _answers(root, timeout)
    if answers and answers[0].get("busy"):
        text = "W&B: an experiment is running on this run root and feeds W&B itself; sync when it ended"
        return SyncReport([text], missing=dict.fromkeys(due, "busy"), exit_code=2)
    report = SyncReport()
    found = {answer["run"]: answer["missing"] for answer in answers if "run" in answer}
    for run_id, state in due.items():
        missing = found.get(run_id, "not reached in time; see wandb/feeder.log in the run root")
        if missing:
            report.missing[run_id] = missing
        else:
            report.arrived.append(run_id)
        outcome = f"NOT delivered: {missing}" if missing else "arrived"
        report.lines.append(f"{run_id}  {state.meta['name']}  {outcome}")
    report.exit_code = 1 if report.missing else 0
    return report


def _answers(root: Path, timeout: float) -> list[dict[str, Any]]:
    """One object a run from the delivering process, as many as it got to."""
    process = subprocess.Popen(
        feeder_command("sync", str(root), str(timeout)),
        env=feeder_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout + GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        kill_family(process)
        output, _ = process.communicate()
    return [json.loads(line) for line in output.splitlines() if line.endswith("}")]
