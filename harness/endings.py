"""How trials and cohorts end: the one place that tells the ledger, the tracker and whoever listens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.cohorts import Cohort
from harness.events import Event, cohort_event, trial_event
from harness.ledger import Ledger
from harness.messages import Report
from harness.runfolder import RunFolder
from harness.spec import Trial
from harness.tracking import Tracker

__all__ = ["Endings"]


class Endings:
    """Tells of endings.

    Args:
        root: the run root.
        ledger: of the run root.
        tracker: where trials are shown.
        emit: hears events.
    """

    def __init__(self, root: Path, ledger: Ledger, tracker: Tracker, emit: Callable[[Event], None]) -> None:
        self._root, self._ledger, self._tracker, self._emit = root, ledger, tracker, emit

    def results(self, cohort: Cohort, report: Report) -> None:
        """Lanes that ended with a result."""
        for lane, result in report.results.items():
            trial = cohort.trials[lane]
            cohort.ended.add(lane)
            score = result["score"]
            self._ledger.set_trials(
                [trial.id],
                state=result["state"],
                reason=result["reason"],
                score_name=score["name"],
                score=score["value"],
                progress=result["progress"],
                seconds=result["seconds"],
            )
            self._tracker.commit(trial.id, report.committed.get(trial.id, 0))
            self._tracker.close(trial.id, result)
            self._emit(trial_event(trial, result["state"], score["name"], score["value"], result["reason"]))

    def failed(self, trial: Trial, cohort: str, progress: int, reason: str, traceback: str) -> None:
        """A trial that has no result and is not tried again."""
        RunFolder(self._root, trial).failed(traceback)
        self._ledger.decide(cohort, [(trial.id, "failed", reason)], progress)
        self._ledger.set_trials([trial.id], state="failed", reason=reason)
        result = {"trial": trial.id, "state": "failed", "reason": reason, "score": {"name": None, "value": None}}
        self._tracker.close(trial.id, result)
        self._emit(trial_event(trial, "failed", None, None, reason))

    def lanes_failed(self, cohort: Cohort, lanes: list[int], report: Report) -> None:
        """Lanes of a cohort that failed, for the reasons that a report gives."""
        cohort.ended.update(lanes)
        for lane in lanes:
            reason = report.reasons.get(lane, report.error)
            self.failed(cohort.trials[lane], cohort.id, cohort.progress, reason, report.traceback)

    def cohort(self, cohort: Cohort, state: str) -> None:
        """A cohort that leaves its worker, or its place in the queue, with trials that are not finished."""
        self._ledger.set_trials([cohort.trials[k].id for k in cohort.alive], state=state)
        if cohort.fence:
            self._ledger.set_cohort(cohort.id, state=state)
        self._emit(cohort_event(cohort, state))
