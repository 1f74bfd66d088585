"""The steps of a run, each done once: plan, train, summarise, report. With Prefect around them or without."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.driver import Driver
from harness.experiment import Experiment, load_experiment
from harness.ledger import Ledger, ledger_url

__all__ = ["Options", "Steps", "summary_of"]

Listener = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Options:
    """How a run is done; small JSON, so that it can be a flow's parameter."""

    root: str = "runs"
    executor: str = "ray"
    ray_address: str | None = None
    tracker: str = "auto"
    workers: int | None = None
    retry_failed: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values; `Options(**values)` is the way back."""
        return asdict(self)


@dataclass
class Steps:
    """One run of one experiment.

    Args:
        experiment: what to run.
        options: how.
        listeners: called with every event of the driver.
    """

    experiment: Experiment
    options: Options
    listeners: list[Listener] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root = Path(self.options.root).resolve()
        self._results: dict[str, Any] = {}
        self.driver = Driver(
            self.experiment,
            self.root,
            executor=self.options.executor,
            ray_address=self.options.ray_address,
            tracker=self.options.tracker,
            workers=self.options.workers,
            retry_failed=self.options.retry_failed,
            on_event=self._hear,
        )

    @classmethod
    def load(cls, file: str | Path, overrides: Sequence[str], options: Options) -> Steps:
        """Reads an experiment file.

        Raises:
            SpecError: it is wrong; nothing was written or started.
        """
        return cls(load_experiment(file, overrides), options)

    def _hear(self, event: dict[str, Any]) -> None:
        for listener in self.listeners:
            listener(event)

    def note(self, text: str) -> None:
        """Says a sentence to all listeners."""
        self._hear({"kind": "note", "text": text})

    def _once(self, name: str, step: Callable[[], Any]) -> Any:
        if name not in self._results:
            self._results[name] = step()
        return self._results[name]

    def plan(self) -> Any:
        """What would be trained, in which cohorts, and what is done already."""
        return self._once("plan", self.driver.plan)

    def train(self) -> Any:
        """Trains what is due; the outcome is the ledger's."""
        self.plan()
        return self._once("train", self.driver.train)

    def summarise(self) -> dict[str, Any]:
        """Reads the ledger and writes `summary.json`."""
        return self._once("summarise", self._summarise)

    def _summarise(self) -> dict[str, Any]:
        summary = summary_of(self.root, self.experiment.name)
        target = experiment_folder(self.root, self.experiment.name) / "summary.json"
        temporary = target.with_name(f".summary-{os.getpid()}.json")
        temporary.write_text(json.dumps(summary, indent=1) + "\n")
        temporary.replace(target)
        return summary

    def report(self) -> Path:
        """Builds the page."""
        return self._once("report", self._report)

    def _report(self) -> Path:
        from harness.report import build_page  # plotly and pandas: only now

        return Path(build_page(self.root, self.experiment.name))

    def rest(self) -> int:
        """Does every step that was not done yet, in order; returns the exit status."""
        outcome = self.train()
        self.summarise()
        self.report()
        return int(outcome.exit_code)


def experiment_folder(root: Path, name: str) -> Path:
    """Where an experiment's own files lie; made if need be."""
    folder = root / "experiments" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def summary_of(root: Path, name: str) -> dict[str, Any]:
    """The object that `seedbed run --json` and `seedbed status --json` print.

    Raises:
        KeyError: the run root has no such experiment.
    """
    ledger = Ledger(ledger_url(root))
    try:
        row = ledger.experiment(name)
        if row is None:
            raise KeyError(name)
        trials = ledger.trials(name)
    finally:
        ledger.close()
    return {
        "experiment": name,
        "run_root": str(root),
        "page": str(root / "experiments" / name / "page.html"),
        "state": row["state"],
        "trials": [_trial_json(root, trial) for trial in trials],
    }


def _trial_json(root: Path, trial: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": trial["id"],
        "learner": trial["learner"],
        "label": trial["label"],
        "seed": trial["seed"],
        "state": trial["state"],
        "attempts": trial["attempts"],
        "score": {"name": trial["score_name"], "value": trial["score"]},
        "folder": str(root / "trials" / trial["id"]),
    }
