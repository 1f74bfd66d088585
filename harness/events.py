"""What a driver tells whoever listens: plain dicts, for displays, Prefect artifacts, logs and trackers."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.cohorts import Cohort, config_of
from harness.files import NoSpaceError, append
from harness.learner import learner_class
from harness.messages import Report
from harness.spec import Trial

__all__ = ["Event", "Notes", "cohort_event", "note_event", "report_event", "tracked_trial", "trial_event"]

Event = dict[str, Any]


class Notes:
    """Sentences for the person, which the driver's log keeps.

    Args:
        folder: the experiment's, which takes the log.
        emit: hears them.
    """

    def __init__(self, folder: Path, emit: Callable[[Event], None]) -> None:
        self._folder, self._emit, self._warned = folder, emit, set[str]()

    def say(self, text: str) -> None:
        """Tells a sentence; the log lacks it where it cannot be written."""
        self._emit(note_event(text))
        with suppress(OSError, NoSpaceError):
            append(self._folder / "driver.log", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def hear(self, label: str, report: Report) -> None:
        """Tells a report's notes, and those of its warnings that were not told before."""
        for text in report.notes:
            self.say(f"{label}: {text}")
        for about, text in report.warnings.items():
            if about not in self._warned:
                self._warned.add(about)
                self.say(text)


def note_event(text: str) -> Event:
    """A sentence for the person."""
    return {"kind": "note", "text": text}


def cohort_event(cohort: Cohort, state: str) -> Event:
    """A cohort's state changed: running, done, retry, failed or stopped."""
    return {
        "kind": "cohort",
        "cohort": cohort.id,
        "trials": [trial.id for trial in cohort.trials],
        "label": cohort.label,
        "lanes": len(cohort.trials),
        "state": state,
        "budget": config_of(cohort.trials[0]).budget,
        "unit": learner_class(cohort.trials[0].learner).unit,
        "progress": cohort.progress,
    }


def report_event(cohort: Cohort, report: Report) -> Event:
    """A boundary: progress, rate (progress x lanes per second), seconds left, headline, mean metrics of the lanes."""
    rate = report.progress * len(cohort.trials) / max(report.seconds, 1e-9)
    left = max(0, report.budget - report.progress) * len(cohort.trials) / max(rate, 1e-9)
    names = {n for line in report.lines.values() for n in line if n not in ("progress", "seconds")}
    values = {n: [line[n] for line in report.lines.values() if line.get(n) is not None] for n in names}
    return {
        "kind": "report",
        "cohort": cohort.id,
        "trials": [trial.id for trial in cohort.trials],
        "label": cohort.label,
        "progress": report.progress,
        "budget": report.budget,
        "unit": report.unit,
        "rate": rate,
        "seconds_left": left,
        "headline": learner_class(cohort.trials[0].learner).score_of(config_of(cohort.trials[0])).name,
        "metrics": {n: sum(v) / len(v) for n, v in sorted(values.items()) if v},
    }


def trial_event(trial: Trial, state: str, name: str | None, value: float | None, reason: str) -> Event:
    """A trial ended."""
    return {
        "kind": "trial",
        "trial": trial.id,
        "label": trial.label,
        "seed": trial.seed,
        "state": state,
        "score_name": name,
        "score": value,
        "reason": reason,
    }


def tracked_trial(trial: Trial, experiment: str) -> dict[str, Any]:
    """What a tracker needs to know of a trial when it begins."""
    return {
        "id": trial.id,
        "learner": trial.learner,
        "version": trial.version,
        "label": trial.label,
        "seed": trial.seed,
        "config": trial.config,
        "experiment": experiment,
    }
