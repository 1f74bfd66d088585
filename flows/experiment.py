"""The flow `run_experiment`: Prefect says when and in what order; the outcome is the ledger's.

Tasks are coarse (plan, train, summarise, report) and run in this process. Workers never see Prefect. Whatever Prefect's
server does, each step is done exactly once: what the flow left undone is finished plainly.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import prefect.settings
from prefect import flow, task
from prefect.artifacts import (
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.events.clients import PrefectEventsClient
from prefect.events.worker import EventsWorker
from prefect.logging.configuration import setup_logging
from prefect.states import Cancelled, Completed, Failed, State
from rich.console import Console

from flows import active
from flows.leaderboard import leaderboard
from flows.prefect_server import PrefectServer, client_settings, quiet_environment
from flows.progress import make_display
from flows.steps import Options, Steps, experiment_folder
from flows.stopping import ending_with_serve
from harness.files import NoSpaceError, append
from harness.outcome import Plan

__all__ = ["run_experiment", "run_with_prefect"]

log = logging.getLogger("seedbed.prefect")
PROGRESS_SECONDS = 2.0  # between two moves of the progress artifact
MAX_FAILURES = 2  # artifacts that may fail before no more are tried
DRAIN_SECONDS = 5.0


class Artifacts:
    """Writes Prefect artifacts; an API that fails costs a line in the log and never more."""

    def __init__(self, experiment: str) -> None:
        self._prefix = re.sub(r"[^a-z0-9]+", "-", experiment.lower()).strip("-") or "experiment"
        self._failures = 0

    def write(self, create: Callable[..., Any], kind: str, **values: Any) -> Any:
        """Creates an artifact of key `<experiment>-<kind>`; None where the API did not take it."""
        return self._try(kind, lambda: create(key=f"{self._prefix}-{kind}", **values))

    def move(self, artifact: Any, percent: float) -> None:
        """Moves a progress artifact."""
        self._try("progress", lambda: update_progress_artifact(artifact_id=artifact, progress=percent))

    def _try(self, kind: str, call: Callable[[], Any]) -> Any:
        if self._failures >= MAX_FAILURES:
            return None
        try:
            return call()
        except Exception as error:  # whatever the API or its client raise: training does not depend on it
            self._failures += 1
            log.warning("the artifact %s was not written: %s: %s", kind, type(error).__name__, error)
            return None


class ProgressArtifact:
    """A progress artifact that follows the driver's events from a thread of its own.

    Args:
        artifacts: where to write.
        weights: trial -> its share of the expected work, in whatever unit, for every trial that is due.
    """

    def __init__(self, artifacts: Artifacts, weights: dict[str, float]) -> None:
        self._artifacts = artifacts
        self._total = sum(weights.values()) or 1.0
        self._weights = weights
        self._fractions: dict[str, float] = {}
        self._stop = threading.Event()

    def hear(self, event: dict[str, Any]) -> None:
        """Takes a driver's event; returns at once."""
        if event["kind"] == "trial":
            self._fractions[event["trial"]] = 1.0  # also one that ended early
        elif event["kind"] in ("report", "cohort"):
            fraction = event["progress"] / max(event["budget"], 1)
            for trial in event["trials"]:
                if self._fractions.get(trial) != 1.0:
                    self._fractions[trial] = fraction

    @property
    def percent(self) -> float:
        """How much of the expected work is done."""
        done = sum(self._weights.get(trial, 0.0) * part for trial, part in list(self._fractions.items()))
        return round(min(100.0, 100.0 * done / self._total), 1)

    @contextlib.contextmanager
    def moving(self) -> Iterator[None]:
        """Moves the artifact while the body runs."""
        context = contextvars.copy_context()  # the thread writes for the same task run
        thread = threading.Thread(target=context.run, args=(self._follow,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(DRAIN_SECONDS)

    def _follow(self) -> None:
        artifact = self._artifacts.write(create_progress_artifact, "progress", progress=0.0)
        shown = 0.0
        while artifact is not None:
            stopped = self._stop.wait(PROGRESS_SECONDS)
            if self.percent != shown:
                shown = self.percent
                self._artifacts.move(artifact, shown)
            if stopped:
                return


def trial_weights(plan: Plan) -> dict[str, float]:
    """Each due trial's share of the expected work: its part of its cohort's seconds, or 1 where one is not known."""
    known = all(seconds for _, seconds in plan.cohorts)
    return {t.id: seconds / len(cohort) if known else 1.0 for cohort, seconds in plan.cohorts for t in cohort}


def _steps() -> Steps:
    steps = active.current.get()
    assert steps is not None, "tasks run inside run_experiment"
    return steps


@task(name="plan", persist_result=False, cache_policy=NO_CACHE)
def plan_task(artifacts: Artifacts) -> None:
    """Plans cohorts and shows them."""
    plan = _steps().plan()
    rows = [
        {
            "cohort": " | ".join(dict.fromkeys(t.label for t in cohort)),
            "lanes": len(cohort),
            "expected_seconds": "unknown" if seconds is None else round(seconds),
        }
        for (cohort, _), seconds in zip(plan.cohorts, plan.expected, strict=True)
    ]
    text = f"{len(plan.due)} trials are due, {len(plan.done)} are done already"
    artifacts.write(create_table_artifact, "plan", table=rows, description=text)


@task(name="train", persist_result=False, cache_policy=NO_CACHE)
def train_task(artifacts: Artifacts) -> None:
    """Trains what is due."""
    steps = _steps()
    progress = ProgressArtifact(artifacts, trial_weights(steps.plan()))
    steps.listeners.append(progress.hear)
    try:
        with progress.moving():
            steps.train()
    finally:
        steps.listeners.remove(progress.hear)


@task(name="summarise", persist_result=False, cache_policy=NO_CACHE)
def summarise_task(artifacts: Artifacts) -> None:
    """Reads the ledger and shows the leaderboard."""
    rows = leaderboard(_steps().summarise())
    artifacts.write(create_table_artifact, "leaderboard", table=rows, description="mean of each trial's score")


@task(name="report", persist_result=False, cache_policy=NO_CACHE)
def report_task(artifacts: Artifacts) -> None:
    """Builds the page and links to it."""
    page = _steps().report()
    artifacts.write(create_link_artifact, "page", link=page.as_uri(), link_text=str(page))


@flow(name="run_experiment", persist_result=False, retries=0, log_prints=False, validate_parameters=True)
def run_experiment(file: str, overrides: list[str] | None = None, options: dict[str, Any] | None = None) -> State[Any]:
    """Runs an experiment file.

    Args:
        file: path of the experiment file.
        overrides: "trials.0.lr=1e-3" and the like.
        options: fields of `flows.steps.Options`.
    """
    steps = active.current.get()
    if steps is not None:
        return _run(steps)
    steps = Steps.load(file, overrides or [], Options(**(options or {})))
    steps.listeners.append(make_display(Console(force_terminal=False, highlight=False)).hear)
    token = active.current.set(steps)
    try:
        steps.note(steps.plan_text())
        with ending_with_serve(experiment_folder(steps.root, steps.experiment.name) / "driver.log"):
            return _run(steps)
    finally:
        active.current.reset(token)


def _run(steps: Steps) -> State[Any]:
    artifacts = Artifacts(steps.experiment.name)
    for step in (plan_task, train_task, summarise_task, report_task):
        step(artifacts)
    states = [trial["state"] for trial in steps.summarise()["trials"]]
    text = ", ".join(f"{states.count(s)} {s}" for s in sorted(set(states)))
    final = {0: Completed, 130: Cancelled}.get(steps.train().exit_code, Failed)
    return final(message=text)


def run_with_prefect(steps: Steps, parameters: dict[str, Any], server: PrefectServer | None) -> tuple[int, bool]:
    """Runs the flow in this process.

    Args:
        steps: what the flow's tasks do.
        parameters: the flow's own parameters, small JSON.
        server: the embedded server, answering; None takes the API that the user's settings name.

    Returns:
        The exit status, and whether Prefect was lost on the way (its threads may then hold up the process's end).

    Raises:
        Exception: what a step of ours raised (BusyError and the like), never what Prefect did.
    """
    token = active.current.set(steps)
    lost = False
    try:
        with _client(steps, server):
            run_experiment(**parameters, return_state=True)
            lost = not _drained(server)
    except Exception as error:
        lost = True
        if steps.error is None:
            text = f"Prefect failed ({type(error).__name__}: {_first_line(error)}); the run goes on without it"
            steps.note(text)
    finally:
        active.current.reset(token)
    if steps.error is not None:
        raise steps.error
    return steps.rest(), lost


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]


@contextlib.contextmanager
def _client(steps: Steps, server: PrefectServer | None) -> Iterator[None]:
    """Prefect's client settings for this process, and its log in a file instead of the terminal."""
    wanted = {**quiet_environment(), **(client_settings(server) if server else {})}
    updates = {getattr(prefect.settings, k): v for k, v in wanted.items() if hasattr(prefect.settings, k)}
    unset = [prefect.settings.PREFECT_API_KEY] if server else []  # a forgotten key would win over our password
    EventsWorker.set_client_override(PrefectEventsClient, reconnection_attempts=0 if server else 2)
    _log_to(experiment_folder(steps.root, steps.experiment.name) / "driver.log")
    try:
        with prefect.settings.temporary_settings(updates=updates, restore_defaults=unset):
            yield
    finally:
        EventsWorker.set_client_override(None)


class _LogFile(logging.Handler):
    """Appends to a file; a line that cannot be written is lost: training does not depend on it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        """Appends one record."""
        with contextlib.suppress(OSError, NoSpaceError):
            append(self._path, self.format(record) + "\n")


def _log_to(path: Path) -> None:
    """Sends what Prefect logs to a file, from now on: its threads speak until the process ends."""
    setup_logging()
    handler = _LogFile(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in [n for n in logging.root.manager.loggerDict if n.startswith("prefect.")]:
        logging.getLogger(name).handlers[:] = []
        logging.getLogger(name).propagate = True
    for name in ("prefect", "seedbed.prefect", "httpx", "websockets"):
        logging.getLogger(name).handlers[:] = [handler]
        logging.getLogger(name).propagate = False


def _drained(server: PrefectServer | None) -> bool:
    """Lets the last events arrive before the server goes; a server that is gone is not waited for."""
    if server is not None and not server.alive():
        return False
    pending = EventsWorker.drain_all(timeout=DRAIN_SECONDS)
    return not (isinstance(pending, tuple) and pending[1])
