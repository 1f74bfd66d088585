"""The driver's side of W&B: messages to a feeder process, none of which is waited for.

The driver reads the recorded state of each run (state.py), so that what is complete already is not told again
and no feeder is started for it. A feeder that died is started again with everything that was told and is not
recorded as complete; after three deaths the rest is left to `seedbed sync`.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import psutil

from harness.files import NoSpaceError
from harness.outgoing import without_machine
from harness.tracking.state import RunState, report_id

__all__ = ["WandbOffline", "WandbOnline", "feeder_command", "feeder_environment", "kill_family"]

STARTS = 3
ENDED = ("done", "diverged", "pruned", "failed")


def feeder_command(*arguments: str) -> list[str]:
    """Command of the process that runs wandb; it carries no secret."""
    return [sys.executable, "-m", "harness.tracking.feeder", *arguments]


def feeder_environment() -> dict[str, str]:
    """The driver's environment, with this package importable; the login stays in it and goes nowhere else."""
    here = str(Path(__file__).resolve().parents[2])
    paths = [here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def kill_family(process: subprocess.Popen[Any]) -> None:
    """Kill a feeder and the processes it started (wandb's own, `wandb sync`), and wait for its end."""
    try:
        parent = psutil.Process(process.pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


class _Feeder:
    """One feeder process: a thread writes to it, a thread reads its one answer."""

    def __init__(self, mode: str, root: Path) -> None:
        self._process = subprocess.Popen(
            feeder_command(mode, str(root)),
            env=feeder_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is the driver's; the feeder is told, or sees the driver's end
        )
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._answer: dict[str, Any] | None = None
        threading.Thread(target=self._write, daemon=True).start()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, message: dict[str, Any]) -> None:
        self._messages.put(message)

    def _write(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        try:
            while (message := self._messages.get()) is not None:
                pipe.write(json.dumps(message).encode() + b"\n")
                pipe.flush()
            pipe.close()
        except OSError:
            return  # it died; `alive` says so

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as pipe:
            for line in pipe:
                self._answer = json.loads(line)

    def finish(self, seconds: float) -> dict[str, Any] | None:
        """Ask for the end and wait for the answer, None where it died or was late; it is gone afterwards."""
        deadline = time.monotonic() + seconds
        self.send({"op": "finish"})
        self._messages.put(None)
        self._reader.join(seconds)
        try:
            self._process.wait(min(1.0, max(0.0, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            self.kill()
        return self._answer

    def kill(self) -> None:
        kill_family(self._process)


def _never_raises(method: Callable[..., None]) -> Callable[..., None]:
    """Training goes on whatever happens here: trouble is kept for the line that `finish` returns."""

    @wraps(method)
    def guarded(self: _WandbTracker, *arguments: Any) -> None:
        try:
            method(self, *arguments)
        except (OSError, NoSpaceError, ValueError, TypeError, KeyError, RuntimeError) as error:
            self.troubles.append(f"{method.__name__}: {type(error).__name__}: {error}")

    return guarded


class _WandbTracker:
    """What both W&B trackers do; see `Tracker` for the calls."""

    mode = ""

    def __init__(self, root: Path, experiment: str) -> None:
        """Track an experiment whose trials' folders are below `root`."""
        self.root = root
        self.experiment = experiment
        self.troubles: list[str] = []
        self._runs: dict[str, RunState] = {}
        self._told: dict[str, dict[str, Any]] = {}  # newest message of each run
        self._feeder: _Feeder | None = None
        self._starts = 0

    @_never_raises
    def open(self, trial: dict[str, Any]) -> None:
        """See Tracker.open."""
        if not trial.get("reused") and trial["id"] not in self._runs:
            self._open(trial)
            self._ready()

    def _open(self, trial: dict[str, Any]) -> None:
        named = {key: trial[key] for key in ("learner", "version", "label", "seed")}
        meta = {
            "name": f"{trial['label']} seed {trial['seed']}",
            "group": self.experiment,
            "job_type": "trial",
            "config": {**trial["config"], **named},
        }
        meta = without_machine(meta)
        recorded = RunState.read(self.root, trial["id"])
        self._runs[trial["id"]] = recorded or self._new(trial["id"], "trial", meta)

    def _new(self, run_id: str, kind: str, meta: dict[str, Any]) -> RunState:
        project = os.environ.get("WANDB_PROJECT") or "seedbed"
        entity = os.environ.get("WANDB_ENTITY") or ""
        return RunState(run_id, kind, meta, mode=self.mode, entity=entity, project=project)

    @_never_raises
    def commit(self, trial_id: str, upto: int) -> None:
        """See Tracker.commit."""
        if upto > 0 and trial_id in self._runs:
            self._tell(trial_id, {"op": "commit", "run": trial_id, "upto": upto})

    @_never_raises
    def close(self, trial_id: str, result: dict[str, Any]) -> None:
        """See Tracker.close."""
        if trial_id in self._runs:
            self._close(trial_id, result)

    def _close(self, trial_id: str, result: dict[str, Any]) -> None:
        metrics = self.root / "trials" / trial_id / "metrics.jsonl"
        size = metrics.stat().st_size if metrics.is_file() else 0
        final = {
            "state": result["state"],
            "reason": result.get("reason") or "",
            "score": dict(result.get("score") or {}),
        }
        self._end(trial_id, size, without_machine(final))

    def _end(self, run_id: str, upto: int, final: dict[str, Any]) -> None:
        """Tell the end of a run, unless just this end is recorded as complete."""
        recorded = self._runs[run_id]
        if recorded.state == "open" or (recorded.fed, recorded.final) != (upto, final):
            self._tell(run_id, {"op": "close", "run": run_id, "upto": upto, "final": final})

    @_never_raises
    def report(self, summary: dict[str, Any], page: Path) -> None:
        """See Tracker.report; trials that ended before a kill and were never told are told now."""
        for row in summary["trials"]:
            if row["id"] not in self._told and row["state"] in ENDED and not row.get("reused"):
                self._catch_up(row)
        tables = {"trials": [_flat(row) for row in summary["trials"]]}
        if summary.get("leaderboard"):
            tables["leaderboard"] = [_flat(row) for row in summary["leaderboard"]]
        counts: dict[str, int] = {}
        for row in summary["trials"]:
            counts[row["state"]] = counts.get(row["state"], 0) + 1
        run_id = report_id(self.experiment)
        meta = {
            "name": self.experiment,
            "group": self.experiment,
            "job_type": "report",
            "config": {"experiment": self.experiment},
        }
        self._runs[run_id] = RunState.read(self.root, run_id) or self._new(run_id, "report", meta)
        outcome = {"state": summary.get("state") or "", **{f"trials/{key}": n for key, n in counts.items()}}
        final = without_machine({"tables": tables, "summary": outcome})
        self._end(run_id, 0, {**final, "shared_page": os.path.relpath(page, self.root)})

    def _catch_up(self, row: dict[str, Any]) -> None:
        folder = self.root / "trials" / row["id"]
        try:
            config = json.loads((folder / "config.json").read_text())
            result = json.loads((folder / "result.json").read_text())
        except FileNotFoundError:
            return  # a trial that failed before it had a result
        self._open({**config, "id": row["id"]})
        self._close(row["id"], result)

    def _tell(self, run_id: str, message: dict[str, Any]) -> None:
        self._told[run_id] = message
        feeder, started = self._ready()
        if feeder is not None and not started:
            feeder.send({"op": "open", "run": vars(self._runs[run_id])})
            feeder.send(message)

    def _ready(self) -> tuple[_Feeder | None, bool]:
        """The living feeder and whether it was started just now; a new one hears all that is not complete."""
        if self._feeder is not None and self._feeder.alive:
            return self._feeder, False
        if self._starts == STARTS:
            return None, False
        self._starts += 1
        self._feeder = _Feeder(self.mode, self.root)
        for run_id, message in self._told.items():
            if not self._complete(run_id):
                self._feeder.send({"op": "open", "run": vars(self._runs[run_id])})
                self._feeder.send(message)
        return self._feeder, True

    def _complete(self, run_id: str) -> bool:
        recorded, final = RunState.read(self.root, run_id), self._told[run_id].get("final")
        return recorded is not None and recorded.state != "open" and recorded.final == final

    def finish(self, timeout: float) -> str:
        """See Tracker.finish."""
        deadline = time.monotonic() + timeout
        answer = None
        while self._feeder is not None and answer is None and time.monotonic() < deadline - 0.5:
            feeder, _ = self._ready()
            if feeder is None:
                break
            answer = feeder.finish(deadline - time.monotonic())
        if self._feeder is not None and self._feeder.alive:
            self._feeder.kill()
        self._feeder = None
        self._record()
        return self._line(answer)

    def _record(self) -> None:
        """Write down the ends that the feeder did not get to, so that `seedbed sync` knows of them."""
        for run_id, message in self._told.items():
            recorded = RunState.read(self.root, run_id)
            if "final" in message and (recorded is None or recorded.final != message["final"]):
                state = recorded or self._runs[run_id]
                state.state, state.fed, state.final = "open", message["upto"], message["final"]
                try:
                    state.write(self.root)
                except (OSError, NoSpaceError) as error:
                    self.troubles.append(f"{run_id}: {error}")

    def _line(self, answer: dict[str, Any] | None) -> str:
        """What the person reads."""
        if answer is None:
            missing = [run_id for run_id in self._told if not self._complete(run_id)]
        else:
            missing = answer["missing"]
        head = f"W&B {self.mode}: {len(self._told) - len(missing)} of {len(self._told)} runs "
        head += "are on the server" if self.mode == "online" else f"in {self.root / 'wandb'}"
        if missing:
            head += f", {len(missing)} missing; `seedbed sync` delivers them"
        elif self.mode == "offline" and self._told:
            head += "; `seedbed sync` uploads them after `wandb login`"
        return "; ".join([head if self._told else f"W&B {self.mode}: nothing new", *self.troubles])


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table: nested objects become name/key columns, folders of this machine are left out."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat.update({f"{key}/{inner}": v for inner, v in value.items()})
        elif key != "folder":
            flat[key] = value
    return flat


class WandbOffline(_WandbTracker):
    """W&B's own offline folders below the run root; `seedbed sync` uploads them."""

    mode = "offline"


class WandbOnline(_WandbTracker):
    """Live W&B runs."""

    mode = "online"
