"""Where trials are shown beside their files: the contract, files alone, and the choice between the trackers.

This module and the driver's side of W&B (client.py) never import wandb: it runs in the feeder's process.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Literal, Protocol

from harness.tracking.client import WandbOffline, WandbOnline, feeder_command, feeder_environment

__all__ = ["FilesTracker", "Kind", "Tracker", "has_login", "make_tracker"]

Kind = Literal["auto", "online", "offline", "files"]
_MODES = {"online": "online", "run": "online", "shared": "online", "offline": "offline", "dryrun": "offline"}


class Tracker(Protocol):
    """What a driver tells while it trains. No call raises, and none waits for anything, except `finish`."""

    def open(self, trial: dict[str, Any]) -> None:
        """A trial of this experiment begins or goes on.

        Args:
            trial: id, learner, version, label, seed, config; with a true "reused" the call does nothing.
        """

    def commit(self, trial_id: str, upto: int) -> None:
        """metrics.jsonl of an open trial is committed up to this byte."""

    def close(self, trial_id: str, result: dict[str, Any]) -> None:
        """An open trial ended; `result` has at least state, and reason and score where there are any."""

    def report(self, summary: dict[str, Any], page: Path) -> None:
        """The experiment's outcome: the object that `seedbed run --json` prints, and a page for others."""

    def finish(self, timeout: float) -> str:
        """Deliver what can be delivered in `timeout` seconds; returns one line for the person."""


class FilesTracker:
    """The run folders are the truth; nothing else is told."""

    def open(self, trial: dict[str, Any]) -> None:
        """Nothing to do."""

    def commit(self, trial_id: str, upto: int) -> None:
        """Nothing to do."""

    def close(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing to do."""

    def report(self, summary: dict[str, Any], page: Path) -> None:
        """Nothing to do."""

    def finish(self, timeout: float) -> str:
        """Nothing to do, nothing to say."""
        return ""


def make_tracker(kind: Kind, root: Path, experiment: str) -> Tracker:
    """The tracker for an experiment.

    Args:
        kind: "auto" is WANDB_MODE where that is set, else online with a login and offline without.
        root: run root.
        experiment: its name, also the W&B group.

    Raises:
        ValueError: unknown kind.
    """
    if kind == "auto":
        mode = os.environ.get("WANDB_MODE", "")
        if mode == "disabled":
            return FilesTracker()
        kind = _MODES.get(mode) or ("online" if has_login() else "offline")  # type: ignore[assignment]
    if kind == "files":
        return FilesTracker()
    if kind not in ("online", "offline"):
        raise ValueError(f"unknown tracker {kind!r}; known are auto, online, offline, files")
    return (WandbOnline if kind == "online" else WandbOffline)(Path(root), experiment)


def has_login() -> bool:
    """Whether W&B has a login here: a key or token in the environment, or netrc knows the server in use.

    Only where there is a netrc file is wandb itself asked (about a second, in a process of its own).
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    places = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    if not any(Path(place).expanduser().is_file() for place in places):
        return False
    try:
        done = subprocess.run(
            feeder_command("login"),
            env=feeder_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=True,
        )
        return bool(json.loads(done.stdout)["login"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return False
