"""What the driver and its workers say to each other: plain data, small enough for any executor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from harness.gang import Seat
from harness.spec import Trial

__all__ = ["Decision", "Job", "Report"]


@dataclass(frozen=True)
class Job:
    """A cohort for a worker to open.

    Attributes:
        cohort: its id.
        root: the run root.
        learner: where its learner is found, "package.module:Class".
        trials: one a lane, in lane order.
        fence: the only number under which this worker may commit.
        mode: execution mode recorded earlier, or None: the worker chooses.
        sources: cohorts whose last checkpoint to start from when this one has none, the first that has one counts,
            with the lanes to take of it.
        sys_path: folders to import a user's own code from.
        experiment: for which it is trained.
        seat: the worker's place among those that train the cohort together; None where it is alone.
    """

    cohort: str
    root: str
    learner: str
    trials: tuple[Trial, ...]
    fence: int
    mode: str | None = None
    sources: tuple[tuple[str, tuple[int, ...]], ...] = ()
    sys_path: tuple[str, ...] = ()
    dtype: str = "float32"
    experiment: str = ""
    seat: Seat | None = None


@dataclass(frozen=True)
class Decision:
    """What the driver decided at a boundary; written to the ledger before it is sent.

    Attributes:
        end: lane -> (state, reason) of the lanes that end here.
        stop: write a checkpoint and let go of the cohort.
    """

    end: dict[int, tuple[str, str]] = field(default_factory=dict)
    stop: bool = False


@dataclass
class Report:
    """What a worker says at a boundary.

    Attributes:
        kind: "boundary" (more to come), "done" (every lane ended), "stopped", "lane_error" (some lanes cannot go on),
            "error" (the cohort cannot), "disk" (no space), "fenced" (taken over by another driver), "lost" (the
            workers' machines are).
        progress, budget, unit: how far, of how much, in what.
        seconds: training seconds of the cohort so far, over all attempts.
        lines: lane -> the newest line of its metrics.
        evaluations: lane -> all evaluations so far, oldest first: {"progress": ..., "metrics": {...}}.
        broken: lanes whose state has a NaN or an infinity.
        committed: trial id -> bytes of metrics.jsonl that a checkpoint or a result has committed.
        results: lane -> result of the lanes that ended since the last report.
        mode: how the lanes are executed, and why.
        notes: sentences for the log.
        warnings: sentences that are said once a run, by what they are about.
        lanes: for "lane_error", the lanes.
        reasons: lane -> its own reason, where lanes fail for different ones; `error` holds for the others.
        error, traceback: for the error kinds.
    """

    kind: Literal["boundary", "done", "stopped", "lane_error", "error", "disk", "fenced", "lost"]
    cohort: str
    progress: int = 0
    budget: int = 0
    unit: str = ""
    seconds: float = 0.0
    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    evaluations: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    broken: list[int] = field(default_factory=list)
    committed: dict[str, int] = field(default_factory=dict)
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    mode: str = ""
    notes: list[str] = field(default_factory=list)
    warnings: dict[str, str] = field(default_factory=dict)
    lanes: tuple[int, ...] = ()
    reasons: dict[int, str] = field(default_factory=dict)
    error: str = ""
    traceback: str = ""
