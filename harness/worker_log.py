"""The log of a cohort's worker: what the harness has to say, with the time, and whatever the learner prints.

Ray keeps what its actors print in a folder of its own that goes with it; here it stays, for `seedbed logs TRIAL`.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from harness.files import NoSpaceError, append
from harness.messages import Job, Report

__all__ = ["WorkerLog", "worker_logs"]


def worker_logs(cohort: Path) -> list[Path]:
    """The log files in a cohort's folder, that of the worker of rank 0 first."""
    return sorted(cohort.glob("worker*.log"), key=lambda file: (len(file.name), file.name))


class WorkerLog:
    """Appends to one file; a line that cannot be written is lost, for training does not depend on it.

    Args:
        job: whose cohort the log belongs to; every worker of a gang has a file of its own.
    """

    def __init__(self, job: Job) -> None:
        rank = job.seat.rank if job.seat else 0
        self.path = Path(job.root) / "cohorts" / job.cohort / (f"worker-{rank}.log" if rank else "worker.log")
        labels = ", ".join(dict.fromkeys(trial.label for trial in job.trials))
        count = len(job.trials)
        self.say(f"attempt {job.fence}, {count} lane{'s' if count > 1 else ''}: {labels}")

    def write(self, text: str) -> None:
        """Appends text as it is."""
        with contextlib.suppress(OSError, NoSpaceError):
            append(self.path, text)

    def say(self, text: str) -> None:
        """Appends a sentence with the time."""
        self.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def report(self, report: Report) -> None:
        """Appends what happened up to a boundary, errors with their traceback."""
        for note in report.notes:
            self.say(note)
        for lane, result in report.results.items():
            score = result["score"]
            self.say(f"lane {lane}, trial {result['trial']}: {result['state']}, {score['name']} {score['value']}")
        if report.error:
            self.say(f"{report.kind}: {report.error}")
            self.write(report.traceback)
        elif report.kind != "boundary":
            self.say(f"{report.kind} at progress {report.progress:,}")

    @contextlib.contextmanager
    def copying(self) -> Iterator[None]:
        """Copies standard output and standard error of Python code here while the body runs."""
        before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (_Copy(stream, self) for stream in before)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


class _Copy:
    """A text stream that also writes to the log."""

    def __init__(self, stream: TextIO, log: WorkerLog) -> None:
        self._stream = stream
        self._log = log

    def write(self, text: str) -> int:
        """Writes to both."""
        self._log.write(text)
        return self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        """Writes every line to both."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
