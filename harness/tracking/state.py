"""What is known about each run on the W&B side: one small JSON file a run, written atomically.

`runs/wandb/<run id>.json` says how a run was given to W&B, up to which line, and whether its arrival was
proved. It is written by the feeder and by `sync` (never both at once: see `hold`), and only read by the
driver, which thereby knows without importing wandb what is still to be delivered.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any

from harness.files import make_folder, write_text

__all__ = [
    "RunState",
    "hold",
    "metrics_path",
    "offline_folders",
    "read_lines",
    "read_states",
    "report_id",
    "undelivered",
    "wandb_folder",
]

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass
class RunState:
    """One run on the W&B side.

    Attributes:
        id: run id; a trial's run has the trial's id.
        kind: "trial" or "report".
        meta: what W&B is told at the start: name, group, job_type, config.
        mode: "offline" or "online": how it was last given to W&B.
        state: "open" (something is still missing), "closed" (complete in an offline folder), "synced" (the
            server was asked and has all of it).
        folder: name of the offline folder below runs/wandb, or "".
        fed: bytes of metrics.jsonl that this run consists of, as far as W&B was told.
        final: what is told at the end, {} before: of a trial its state, reason and score; of a report its
            tables, summary and page.
        entity: W&B entity, or "" for the login's default.
        project: W&B project.
    """

    id: str
    kind: str = "trial"
    meta: dict[str, Any] = field(default_factory=dict)
    mode: str = "offline"
    state: str = "open"
    folder: str = ""
    fed: int = 0
    final: dict[str, Any] = field(default_factory=dict)
    entity: str = ""
    project: str = ""

    @property
    def digest(self) -> str:
        """Of `final`, "" before the end; it stands in the summary, and so proves that the summary arrived."""
        if not self.final:
            return ""
        return hashlib.sha256(json.dumps(self.final, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def read(cls, root: Path, run_id: str) -> RunState | None:
        """The recorded state; None where there is none, or none that can be read: then the run is new."""
        try:
            raw = json.loads(_path(root, run_id).read_text())
            known = {f.name for f in fields(cls)}
            return cls(**{key: value for key, value in raw.items() if key in known})
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def write(self, root: Path) -> None:
        """Replace the file in one step, so that a kill leaves the old or the new one."""
        path = _path(root, self.id)
        write_text(path, json.dumps(asdict(self), sort_keys=True))


def wandb_folder(root: Path) -> Path:
    """The folder W&B's files are in; wandb itself appends "wandb" to the run root."""
    return root / "wandb"


def _path(root: Path, run_id: str) -> Path:
    if not _ID.fullmatch(run_id) or run_id.startswith("."):
        raise ValueError(f"not a run id: {run_id!r}")
    return wandb_folder(root) / f"{run_id}.json"


def read_states(root: Path) -> list[RunState]:
    """All recorded runs, in the order of their ids."""
    states = (RunState.read(root, path.stem) for path in sorted(wandb_folder(root).glob("*.json")))
    return [state for state in states if state is not None]


def offline_folders(root: Path, run_id: str) -> list[Path]:
    """Folders that wandb made for this run in offline mode: the id is ours, so they are too."""
    pattern = re.compile(rf"offline-run-\d{{8}}_\d{{6}}-{re.escape(run_id)}(-\d+)?")
    return sorted(path for path in wandb_folder(root).glob("offline-run-*") if pattern.fullmatch(path.name))


def undelivered(root: Path) -> list[RunState]:
    """Runs with something to deliver that is not proved to be on the server."""
    return [s for s in read_states(root) if s.state != "synced" and (s.final or s.folder)]


def metrics_path(root: Path, trial_id: str) -> Path:
    """metrics.jsonl of a trial."""
    return root / "trials" / trial_id / "metrics.jsonl"


def report_id(experiment: str) -> str:
    """Id of an experiment's own run; distinct names give distinct ids, also where the name had to be cut."""
    return f"report-{experiment[:80]}-{hashlib.sha256(experiment.encode()).hexdigest()[:8]}"


def read_lines(path: Path, upto: int, after: float = float("-inf"), start: int = 0) -> list[dict[str, Any]]:
    """Metric lines whose progress is above `after`, from the bytes [start, upto) of metrics.jsonl.

    A last line without a newline is not committed and is left out; a file that is not there has no lines.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            raw = file.read(max(0, upto - start))
    except FileNotFoundError:
        return []
    lines: list[dict[str, Any]] = []
    last = after
    for text in raw[: raw.rfind(b"\n") + 1].splitlines():
        line = json.loads(text)
        if line["progress"] > last:
            last = line["progress"]
            lines.append(line)
    return lines


@contextmanager
def hold(root: Path, *, alone: bool, give_up: Callable[[], bool] = lambda: True) -> Iterator[bool]:
    """Hold runs/wandb: feeders together (shared), `sync` alone. Yields False where the other kind holds it.

    The kernel frees it when the process is gone, however it ended.

    Args:
        root: run root.
        alone: exclusively.
        give_up: asked twice a second while it is held by others.
    """
    folder = wandb_folder(root)
    make_folder(folder)
    with (folder / ".lock").open("a") as file:
        while not (free := _lock(file, alone=alone)) and not give_up():
            time.sleep(0.5)
        yield free


def _lock(file: IO[str], *, alone: bool) -> bool:
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
