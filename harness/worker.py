"""A worker trains one cohort at a time, from boundary to boundary, as the driver tells it.

It runs in the driver's own process (`inline`) or in a Ray actor; it knows neither. Everything that can go wrong comes
back as a `Report`, so that no exception of a learner has to travel between processes.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import torch

from harness import checkpoint
from harness.cohort_run import CohortRun, Interrupted
from harness.files import disk_trouble
from harness.following import Follower
from harness.gang import leave
from harness.learner import LaneError
from harness.leftovers import clear_before_cohort
from harness.messages import Decision, Job, Report
from harness.own_code import find_own_code
from harness.worker_log import WorkerLog
from nets.lanes import reset_compiler, use_compile_cache

__all__ = ["Worker"]


class Worker:
    """Holds at most one cohort.

    Args:
        interrupt: asked between chunks; True abandons the way to the next boundary (inline only).
    """

    def __init__(self, interrupt: Callable[[], bool] = lambda: False) -> None:
        self._interrupt = interrupt
        self._run: CohortRun | None = None
        self._shape: tuple[Any, ...] | None = None
        self._log: WorkerLog | None = None

    def open(self, job: Job) -> Report:
        """Opens a cohort: builds the learner, restores the last good checkpoint, cuts metrics back to it.

        A cohort that begins anew goes straight on to its first boundary: at the start there is nothing to decide.
        """
        self._log = WorkerLog(job)
        return self._kept(self._logged(self._log, job.cohort, lambda: self._open(job)))

    def advance(self, decision: Decision) -> Report:
        """Carries a decision out and trains to the next boundary."""
        if self._run is None or self._log is None:
            raise RuntimeError("no cohort is open")
        run = self._run
        return self._kept(self._logged(self._log, run.job.cohort, lambda: run.advance(decision)))

    def _logged(self, log: WorkerLog, cohort: str, action: Callable[[], Report]) -> Report:
        with log.copying():
            report = self._guarded(cohort, action)
        log.report(report)
        return report

    def _kept(self, report: Report) -> Report:
        if report.kind != "boundary":
            self.close()
        return report

    def close(self) -> None:
        """Lets go of the cohort; what is not in a checkpoint is forgotten."""
        if self._run is not None:
            self._run.learner.close()
            leave(self._run.job.seat)
        self._run = None

    def _open(self, job: Job) -> Report:
        find_own_code(job.sys_path)
        first = job.trials[0]
        torch.set_num_threads(first.resources.cpus)
        shape = (first.learner, len(job.trials), repr(sorted(first.config.items())))
        if self._shape not in (None, shape):
            reset_compiler()
        self._shape = shape
        clear_before_cohort(job)
        elsewhere = use_compile_cache()
        kind = Follower if job.seat and job.seat.rank else CohortRun
        self._run = kind(job, self._interrupt)
        if elsewhere and self._run.choice.mode == "compiled":
            self._run.notes.append(elsewhere)
        return self._run.report("boundary") if self._run.restored else self._run.advance(Decision())

    def _guarded(self, cohort: str, action: Callable[[], Report]) -> Report:
        try:
            return action()
        except LaneError as error:
            text = traceback.format_exc()
            return Report(
                "lane_error", cohort, lanes=error.lanes, error=error.reason, reasons=error.reasons, traceback=text
            )
        except checkpoint.FencedError as error:
            return Report("fenced", cohort, error=str(error))
        except Interrupted:
            return Report("stopped", cohort, notes=["stopped between boundaries: goes on from its last checkpoint"])
        except Exception as error:  # the learner's or the user's: the driver decides what it means
            if trouble := disk_trouble(error):
                return Report("disk", cohort, error=trouble, traceback=traceback.format_exc())
            text = f"{type(error).__name__}: {error}"
            return Report("error", cohort, error=text, traceback=traceback.format_exc())
