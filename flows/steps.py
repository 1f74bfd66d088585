"""The steps of a run, each done once: plan, train, summarise, report. With Prefect around them or without."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flows.errors import UserError
from flows.stopping import Stopper
from harness.attempt import attempt
from harness.driver import Driver
from harness.executors import ClusterError
from harness.experiment import Experiment, load_experiment
from harness.files import disk_trouble, make_folder, write_text
from harness.ledger import Ledger
from harness.leftovers import clear_before_experiment
from harness.outcome import Outcome
from harness.tracking import FilesTracker, make_tracker

__all__ = ["Options", "Steps", "build_report", "counted", "experiment_folder", "read_ledger", "summary_of"]

FINISH_SECONDS = 60.0  # for W&B; what did not arrive is delivered by `seedbed sync`
STOPPED_SECONDS = 10.0  # after Ctrl-C
Listener = Callable[[dict[str, Any]], None]


def counted(count: int, noun: str) -> str:
    """1 cohort, 2 cohorts."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@dataclass(frozen=True)
class Options:
    """How a run is done; small JSON, so that it can be a flow's parameter."""

    root: str = "runs"
    executor: str = "ray"
    ray_address: str | None = None
    tracker: str = "auto"
    workers: int = 0
    retry_failed: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values; `Options(**values)` is the way back."""
        return asdict(self)


class Steps:
    """One run of one experiment; a step that was done is not done again.

    Args:
        experiment: what to run.
        options: how.

    Attributes:
        listeners: called with every event of the driver.
        error: what a step raised, so that it is not mistaken for an error of Prefect's.
    """

    def __init__(self, experiment: Experiment, options: Options) -> None:
        self.experiment = experiment
        self.options = options
        self.root = check_root(Path(options.root).resolve())
        self.listeners: list[Listener] = []
        self.error: BaseException | None = None
        self._results: dict[str, Any] = {}
        self.tracker = make_tracker(options.tracker, self.root, experiment.name)  # type: ignore[arg-type]
        self.driver = Driver(
            experiment,
            self.root,
            executor=options.executor,
            ray_address=options.ray_address,
            tracker=self.tracker,
            workers=options.workers,
            retry_failed=options.retry_failed,
            on_event=self._hear,
        )
        self.stopper = Stopper(self.driver.request_stop, self.note)
        self._started = threading.Event()
        self._started.set()

    @classmethod
    def load(cls, file: str | Path, overrides: Sequence[str], options: Options) -> Steps:
        """Reads an experiment file.

        Raises:
            SpecError: it is wrong; nothing was written or started.
            UserError: nothing can be written at the run root.
        """
        return cls(load_experiment(file, overrides), options)

    def check_free(self) -> None:
        """Looks whether another process runs this experiment, before anything is started.

        Raises:
            BusyError: one does.
        """
        self.driver.ledger.wait_free(self.experiment.name, self.note)

    def start_workers(self) -> None:
        """Starts workers in a thread, so that they import torch while Prefect's server starts."""
        self._started = threading.Event()
        threading.Thread(target=self._start_workers, daemon=True).start()

    def _start_workers(self) -> None:
        try:
            self.driver.start_workers()
        except ClusterError:
            pass  # training meets it again, and that ends the run with its sentence
        except Exception as error:  # training meets the same trouble, and tells it
            self.note(f"workers could not be started ahead of time: {error}")
        self._started.set()
        threading.Event().wait()  # Linux kills Ray's processes when the thread that started them ends

    def _hear(self, event: dict[str, Any]) -> None:
        if event["kind"] == "cohort":
            self.stopper.install()  # Ray and Prefect take SIGTERM when they start
        for listener in self.listeners:
            listener(event)

    def note(self, text: str) -> None:
        """Says a sentence to all listeners."""
        self._hear({"kind": "note", "text": text})

    def _once(self, name: str, step: Callable[[], Any]) -> Any:
        if name not in self._results:
            try:
                self._results[name] = step()
            except BaseException as error:
                self.error = error
                raise
        return self._results[name]

    def plan(self) -> Any:
        """What would be trained, in which cohorts, and what is done already."""
        return self._once("plan", self.driver.plan)

    def plan_text(self) -> str:
        """The plan in one sentence."""
        plan = self.plan()
        due, cohorts = counted(len(plan.due), "trial"), counted(len(plan.cohorts), "cohort")
        text = f"{self.experiment.name}: {due} to train in {cohorts}"
        if plan.done:
            text += f", {len(plan.done)} done already"
        if plan.failed:
            text += f", {len(plan.failed)} failed before (--retry-failed runs them again)"
        return f"{text}\n{plan.lost_text}" if plan.lost else text

    def train(self) -> Any:
        """Trains what is due; the outcome is the ledger's."""
        return self._once("train", self._train)

    def _train(self) -> Any:
        self._started.wait()
        with self.stopper:
            self.stopper.graceful = True
            try:
                self._clear_leftovers()
                return self.driver.train()
            except Exception as error:
                if not (trouble := disk_trouble(error)):
                    raise
                return Outcome("stopped", [], f"{trouble}; with that mended, the same command goes on")
            finally:
                self.stopper.graceful = False

    def _clear_leftovers(self) -> None:
        name, trials = self.experiment.name, self.experiment.trials
        cohorts = {row["cohort"] for row in self.driver.ledger.trials(name)} - {None}
        clear_before_experiment(self.root, name, trials, cohorts)

    def summarise(self) -> dict[str, Any]:
        """Reads the ledger and writes `summary.json`; a full disk costs the file alone."""
        return self._once("summarise", self._summarise)

    def _summarise(self) -> dict[str, Any]:
        summary = self._summary()
        left_out: list[str] = []
        attempt("the summary", lambda: self._write_summary(summary), left_out, disk_ends=False)
        for text in left_out:
            self.note(text)
        return summary

    def _write_summary(self, summary: dict[str, Any]) -> None:
        target = experiment_folder(self.root, self.experiment.name) / "summary.json"
        write_text(target, json.dumps(summary, indent=1) + "\n")

    def _summary(self) -> dict[str, Any]:
        """The ledger's; where a full disk kept the ledger from saying that the run stopped, that is said here."""
        stopped = self.train().state == "stopped"
        try:
            summary = summary_of(self.root, self.experiment.name)
        except Exception as error:
            if not stopped or not (disk_trouble(error) or isinstance(error, KeyError)):
                raise
            page = str(self.root / "experiments" / self.experiment.name / "page.html")
            summary = {"experiment": self.experiment.name, "run_root": str(self.root), "page": page, "trials": []}
        if stopped:
            summary["state"] = "stopped"
            for trial in summary["trials"]:
                trial["state"] = "stopped" if trial["state"] == "running" else trial["state"]
        return summary

    def report(self) -> Path:
        """Builds the page."""
        return self._once("report", self._report)

    def _report(self) -> Path:
        page = experiment_folder(self.root, self.experiment.name) / "page.html"
        left_out: list[str] = []
        attempt("the page", lambda: build_report(self.root, self.experiment.name), left_out, disk_ends=False)
        shared = self._shared_page(left_out)
        # also what a killed run could not tell; nothing new costs nothing
        if self.summarise()["trials"]:  # none where the disk was full before the ledger knew of one
            attempt("what W&B shows", lambda: self.tracker.report(self._tracked(), shared), left_out, disk_ends=False)
        for text in left_out:  # every result is written already
            self.note(f"{text}; `seedbed report {self.experiment.name}` tries again")
        stopped = self.train().exit_code == 130
        told = self.tracker.finish(STOPPED_SECONDS if stopped else FINISH_SECONDS)
        if told:
            self.note(told)
        return page

    def _shared_page(self, left_out: list[str]) -> Path:
        """The page that a tracker sends away."""
        page = self.root / "wandb" / f"{self.experiment.name}.html"
        if not isinstance(self.tracker, FilesTracker):
            name = self.experiment.name
            attempt("the page for W&B", lambda: build_report(self.root, name, page), left_out, disk_ends=False)
        return page

    def _tracked(self) -> dict[str, Any]:
        """The summary, with the experiment that trained each trial."""
        _, rows = read_ledger(self.root, self.experiment.name)
        trained = {r["id"]: {"reused": r["reused"], "trained_by": r["trained_by"]} for r in rows}
        summary = self.summarise()
        return {**summary, "trials": [{**t, **trained[t["id"]]} for t in summary["trials"]]}

    def rest(self) -> int:
        """Does every step that was not done yet, in order; returns the exit status."""
        outcome = self.train()
        self.summarise()
        self.report()
        return int(outcome.exit_code)


def check_root(root: Path) -> Path:
    """The run root, where files can be written there.

    Raises:
        UserError: it, or what it would be in, is a file or must not be written to.
    """
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    if not there.is_dir():
        raise UserError(f"the run root {root} cannot be made: {there} is not a folder; name another --root", usage=True)
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"the run root {root} cannot be written: {there} is read-only; name another --root", usage=True)
    return root


def experiment_folder(root: Path, name: str) -> Path:
    """Where an experiment's own files lie; made if need be."""
    folder = root / "experiments" / name
    make_folder(folder)
    return folder


def build_report(root: Path, name: str, shared: Path | None = None) -> Path:
    """Builds an experiment's page from the ledger and the run folders.

    Args:
        root: the run root.
        name: the experiment's.
        shared: a file for the page that leaves this machine; without it the person's own page is built.

    Raises:
        KeyError: the run root has no such experiment.
    """
    from harness.report import build_page  # plotly and pandas: only now

    folder = root / "experiments" / name
    row, trials = read_ledger(root, name)
    file = folder / "experiment.yaml"
    facts = {
        "name": name,
        "state": row["state"],
        "started": row["created"],
        "finished": row["updated"],
        "text": file.read_text() if file.exists() else "",
    }
    return build_page(facts, trials, root, shared or folder / "page.html", shared is not None)


def read_ledger(root: Path, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An experiment's row and its trials'.

    Raises:
        KeyError: the run root has no such experiment.
    """
    if not (root / "ledger.sqlite").exists():
        raise KeyError(name)
    ledger = Ledger(root / "ledger.sqlite")
    try:
        row = ledger.experiment(name)
        if row is None:
            raise KeyError(name)
        return row, ledger.trials(name)
    finally:
        ledger.close()


def summary_of(root: Path, name: str) -> dict[str, Any]:
    """The object that `seedbed run --json` and `seedbed status --json` print.

    Raises:
        KeyError: the run root has no such experiment.
    """
    row, trials = read_ledger(root, name)
    return {
        "experiment": name,
        "run_root": str(root),
        "page": str(root / "experiments" / name / "page.html"),
        "state": row["state"],
        "trials": [_trial_json(root, trial) for trial in trials],
    }


def _trial_json(root: Path, trial: dict[str, Any]) -> dict[str, Any]:
    score = trial["score"]
    finite = score is not None and math.isfinite(score)
    return {
        "id": trial["id"],
        "learner": trial["learner"],
        "label": trial["label"],
        "seed": trial["seed"],
        "state": trial["state"],
        "attempts": trial["attempts"],
        "score": {"name": trial["score_name"], "value": score if finite else None},
        "folder": str(root / "trials" / trial["id"]),
    }
