"""How a cohort resumes: from the newest generation of its checkpoints that can be read, checked and taken.

Whatever goes wrong with one generation means the one before it, then those of the cohorts that this one was cut from,
newest first; when none is left, the cohort starts again from the beginning. Each step is one sentence in the log.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import checkpoint
from harness.checkpoint import Checkpoint, DamagedError
from harness.files import is_full
from harness.learner import LaneError, Lanes, Learner, State, progress_of, select
from harness.messages import Job
from harness.rings import Rings

__all__ = ["Standing", "check_metrics", "take_up"]

LONGEST_REASON = 300  # characters of an error in a sentence
ByLane = dict[int, dict[str, Any]]


@dataclass
class Standing:
    """How far a cohort has come: a checkpoint as its learner took it, or the start.

    Attributes:
        learner, state, rings: which train from here.
        best, lines, ended: lane -> its best network, newest line of metrics, result.
        evaluations: lane -> all of them, oldest first.
        episodes: lane -> what the evaluation at this progress gave, one value an episode.
        broken: lanes with a NaN or an infinity at this progress; None where the checkpoint does not say.
        left_out: sentences about what could not be written so far.
        progress, seconds, worker_seconds: how far, and how long that took.
        saved: the progress at which the cohort has a checkpoint of its own; -1 for none.
        committed: trial id -> bytes of its metrics.
        restored: whether it comes from a checkpoint.
        damaged: this cohort's own checkpoints that cannot be used.
    """

    learner: Learner
    state: State
    rings: Rings
    best: ByLane = field(default_factory=dict)
    lines: ByLane = field(default_factory=dict)
    ended: ByLane = field(default_factory=dict)
    evaluations: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    episodes: ByLane = field(default_factory=dict)
    broken: list[int] | None = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    progress: int = 0
    seconds: float = 0.0
    worker_seconds: float = 0.0
    saved: int = -1
    committed: dict[str, int] = field(default_factory=dict)
    restored: bool = False
    damaged: list[Path] = field(default_factory=list)


def take_up(job: Job, cls: type[Learner], lanes: Lanes, notes: list[str]) -> Standing:
    """The cohort at the newest generation that can be used, or at its start.

    Args:
        job: what to open.
        cls: the learner.
        lanes: its lanes, ready to train.
        notes: takes a sentence for every generation that is passed over.
    """
    said = list(lanes.notes)
    standing = _started(cls, lanes)
    own = ((job.cohort, tuple(range(len(lanes)))),)
    damaged: list[Path] = []
    there = False
    for cohort, index in own + job.sources:
        for path in checkpoint.generations(Path(job.root) / "cohorts" / cohort):
            there = True
            try:
                found = checkpoint.load(path)
            except DamagedError as error:
                _pass_over(path, error, notes)
            else:
                try:
                    _take(standing, found, index, job, lanes)
                    standing.damaged = damaged
                    return standing
                except LaneError:  # the learner's own word about a lane
                    raise
                except Exception as error:
                    if is_full(error):
                        raise
                    _pass_over(path, error, notes)
                    # half a checkpoint may be in the learner and its tensors
                    with contextlib.suppress(Exception):
                        standing.learner.close()
                    lanes.notes[:] = said
                    standing = _started(cls, lanes)
            if cohort == job.cohort:
                damaged.append(path)
    standing.damaged = damaged
    if there or any(_has_metrics(job, trial.id) for trial in job.trials):
        notes.append("no checkpoint can be used: starts again from the beginning")
    return standing


def _has_metrics(job: Job, trial: str) -> bool:
    file = _metrics_file(job, trial)
    return file.is_file() and file.stat().st_size > 0


def _metrics_file(job: Job, trial: str) -> Path:
    return Path(job.root) / "trials" / trial / "metrics.jsonl"


def _started(cls: type[Learner], lanes: Lanes) -> Standing:
    learner = cls()
    state = learner.start(lanes)
    return Standing(learner, state, Rings(cls.rings), evaluations={k: [] for k in range(len(lanes))})


def _pass_over(path: Path, error: Exception, notes: list[str]) -> None:
    text = " ".join(str(error).split())
    if isinstance(error, DamagedError):
        notes.append(f"a damaged checkpoint is passed over: {text[:LONGEST_REASON]}")
    else:
        what = f"{type(error).__name__}: {text}"
        notes.append(f"a checkpoint that cannot be taken is passed over: {path}: {what[:LONGEST_REASON]}")


def _take(standing: Standing, found: Checkpoint, index: Sequence[int], job: Job, lanes: Lanes) -> None:
    """Puts a checkpoint's lanes `index` into a learner that has just started.

    Raises:
        DamagedError: it is not of these trials, or does not fit them or their metrics.
        Exception: anything that a learner makes of it.
    """
    tree, meta = found.tree, found.meta
    trials = [meta["trials"][j] for j in index]
    if trials != [t.id for t in job.trials]:
        raise DamagedError(f"{found.path} holds other trials than this cohort's")
    new = {str(j): k for k, j in enumerate(index)}
    standing.ended = {lane: _a_result(row, trials[lane]) for lane, row in _rows(meta["ended"], new).items()}
    standing.committed = {i: int(meta["committed"][i]) for i in trials}
    sums = meta.get("metrics_sha256", {})
    for lane, trial in enumerate(trials):
        if lane not in standing.ended:
            check_metrics(_metrics_file(job, trial), standing.committed[trial], found.progress, sums.get(trial))
    standing.best = _rows(tree["best"], new)
    standing.lines = _rows(meta["lines"], new)
    standing.evaluations = {k: [dict(row) for row in meta["evaluations"][j]] for j, k in new.items()}
    standing.episodes = _rows(meta.get("episodes", {}), new)
    standing.left_out = [str(text) for text in _a_list(meta.get("left_out", []))]
    if "broken" in meta:
        standing.broken = [new[str(j)] for j in _a_list(meta["broken"]) if str(j) in new]
    else:
        standing.broken = None
    standing.progress, standing.seconds = found.progress, float(meta["seconds"])
    standing.worker_seconds = float(meta.get("worker_seconds", meta["seconds"]))
    standing.state = _state(standing, found, index, lanes)
    if found.path.parent.name == job.cohort:
        standing.saved, standing.rings.known = found.progress, found.segments
    standing.restored = True
    standing.learner.checkpointed(standing.state)


def _state(standing: Standing, found: Checkpoint, index: Sequence[int], lanes: Lanes) -> State:
    learner, rings, saved = standing.learner, standing.rings, found.tree["state"]
    if learner.foreign:
        state = learner.load(saved)
    else:
        saved = select(saved, index)
        checkpoint.check_like(rings.without(standing.state), saved)
        state = rings.restored(lanes.execution.move(saved), standing.state, found, index)
    if progress_of(state) != found.progress:
        raise DamagedError(f"{found.path} holds a state of progress {progress_of(state)}, not {found.progress}")
    return state


def _rows(rows: dict[str, dict[str, Any]], new: dict[str, int]) -> ByLane:
    """Rows by the lanes of this cohort instead of the checkpoint's."""
    return {new[j]: dict(row) for j, row in rows.items() if j in new}


def _a_result(row: dict[str, Any], trial: str) -> dict[str, Any]:
    """What a lane ended with, after checking that it says what whoever reads it needs."""
    named = {"state", "reason", "progress", "seconds", "weights_sha256"} <= row.keys()
    if not named or row.get("trial") != trial or not {"name", "value"} <= dict(row.get("score", {})).keys():
        raise DamagedError(f"what the checkpoint says of trial {trial}, which has ended, is not a result")
    return row


def _a_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise DamagedError(f"a {type(value).__name__} stands where a checkpoint has a list")
    return value


def check_metrics(file: Path, size: int, progress: int, sha256: str | None) -> None:
    """Checks the part of a trial's metrics that a checkpoint has committed.

    Args:
        file: metrics.jsonl.
        size: bytes that were committed.
        progress: of the checkpoint.
        sha256: of those bytes; None where an older version wrote the checkpoint, and then every line is looked at.

    Raises:
        DamagedError: the file is missing or shorter, or these are not the lines that were written.
    """
    if size < 0 or (size and not file.is_file()):
        raise DamagedError(f"{file} is missing, so its {size} committed bytes are lost")
    if size == 0:
        return
    if file.stat().st_size < size:
        raise DamagedError(f"{file} has {file.stat().st_size} bytes, and {size} were committed")
    with file.open("rb") as opened:
        committed = opened.read(size)
    if sha256 is not None and hashlib.sha256(committed).hexdigest() != sha256:
        raise DamagedError(f"{file} is not what was written in its first {size} bytes")
    if sha256 is None and not _are_lines(committed, progress):
        raise DamagedError(f"{file}: its first {size} bytes are not lines of rising progress up to {progress}")


def _are_lines(text: bytes, progress: int) -> bool:
    """Whether a text is whole lines of JSON objects whose progress rises up to a checkpoint's."""
    *lines, rest = text.split(b"\n")
    last = -1
    for line in lines:
        try:
            at = json.loads(line)["progress"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        if type(at) is not int or not last < at <= progress:
            return False
        last = at
    return not rest
