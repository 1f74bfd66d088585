"""The driver owns an experiment: plans cohorts, hands them to an executor, decides at every report, writes the ledger.

It holds the rhythm: a worker runs to the next boundary, reports, and waits. Every decision is in the ledger before it
is sent. The outcome of an experiment is what the ledger says, whoever started the driver.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness import rules
from harness.checkpoint import write_fence
from harness.cohorts import Cohort, budgets_of, config_of, left_overs, new_cohort, saved_progress, sources_of
from harness.durations import expected
from harness.endings import Endings
from harness.events import Event, Notes, cohort_event, note_event, report_event, tracked_trial
from harness.executors import Executor, WorkerDiedError, make_executor
from harness.experiment import Experiment
from harness.files import write_json, write_text
from harness.learner import learner_class, learner_target
from harness.ledger import FINAL, Ledger
from harness.messages import Decision, Job, Report
from harness.outcome import Outcome, Plan
from harness.own_code import own_folders
from harness.parents import check_parents, divide
from harness.planning import check_room, expected_seconds, plan_cohorts, shape_key
from harness.runfolder import has_result
from harness.spec import Trial
from harness.tracking import FilesTracker, Tracker

__all__ = ["Driver", "Outcome", "Plan"]

WAITING_SECONDS = 2.0  # between two looks at trials that another experiment is training


class Driver:
    """Drives one experiment.

    Args:
        experiment: the parsed file.
        root: the run root.
        executor: "inline", "ray", or an executor of one's own (it is then not stopped).
        ray_address: of a cluster; None starts Ray here.
        workers: at most so many workers at a time; 0 leaves it to the executor.
        tracker: where trials are shown beside their files.
        on_event: hears what happens (see docs/design.md, "Events").
        retry_failed: run failed trials again, and done ones whose results were deleted.
        retries: deaths of a worker without progress in between that a cohort survives.
        grace: seconds that a stop waits for the next boundary.
    """

    def __init__(
        self,
        experiment: Experiment,
        root: Path,
        executor: str | Executor = "ray",
        ray_address: str | None = None,
        workers: int = 0,
        tracker: Tracker | None = None,
        on_event: Callable[[Event], None] = lambda event: None,
        retry_failed: bool = False,
        retries: int = 3,
        grace: float = 30.0,
    ) -> None:
        check_room(experiment.trials, executor == "inline", executor == "ray" and ray_address is None)
        self.experiment = experiment
        self.root = Path(root).resolve()
        self._own_executor = isinstance(executor, str)
        self._executor = make_executor(executor, ray_address) if isinstance(executor, str) else executor
        self._workers = workers
        self._tracker = tracker or FilesTracker()
        self._emit = on_event
        self._notes = Notes(self.folder, on_event)
        self._note = self._notes.say
        self._retry_failed = retry_failed
        self._retries = retries
        self._grace = grace
        self._stop_at: float | None = None
        self._abandoned = False
        self._stop_reason = ""
        self._waiting = ""
        self._executor.say = lambda text: self._emit(note_event(text))
        self.ledger = Ledger(self.root / "ledger.sqlite")
        self._endings = Endings(self.root, self.ledger, self._tracker, on_event)

    @property
    def folder(self) -> Path:
        """The experiment's folder."""
        return self.root / "experiments" / self.experiment.name

    # -- planning ----------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """What is due now; reads the ledger and writes nothing."""
        state = self._states()
        check_parents(self.experiment.trials, state, str(self.experiment.path), self.root)
        done = [t for t in self.experiment.trials if self._is_done(state.get(t.id))]
        lost = [t for t in done if not has_result(self.root, t.id)]
        if self._retry_failed:
            done = [t for t in done if t not in lost]
        failed = [t for t in self.experiment.trials if state.get(t.id) == "failed" and not self._retry_failed]
        settled = {t.id for t in (*done, *failed)}
        due = [t for t in self.experiment.trials if t.id not in settled]
        rates = self.ledger.rates()
        cohorts = [(tuple(c), expected_seconds(c, rates)) for c in plan_cohorts(due, self._slots_wanted(due), rates)]
        seconds = tuple(expected(self.root, c) for c, _ in cohorts)
        return Plan(tuple(due), tuple(done), tuple(failed), tuple(cohorts), seconds, tuple(lost))

    def _states(self) -> dict[str, str]:
        wanted = {i for t in self.experiment.trials for i in (t.id, *t.parents)}
        return {i: row["state"] for i, row in self.ledger.find(wanted).items()}

    @staticmethod
    def _is_done(state: str | None) -> bool:
        return state in FINAL and state != "pruned"

    def _slots_wanted(self, due: Sequence[Trial]) -> int:
        cpus = max((t.resources.cpus * t.resources.workers for t in due), default=1)
        return int(min(self._workers or max(1, (os.cpu_count() or 1) // cpus), self._executor.most))

    # -- training ----------------------------------------------------------------------------------------------------

    def request_stop(self) -> None:
        """Asks for a stop at the next boundary; past the grace time, falls back to the last checkpoint."""
        if self._stop_at is None:
            self._stop_at = time.monotonic() + self._grace
            self._executor.give_up_at(self._stop_at)

    def check_executor(self) -> None:
        """Looks whether workers can be had, before anything is started; raises ClusterError where they cannot."""
        self._executor.check()

    def start_workers(self) -> None:
        """Starts workers ahead of time (they import torch meanwhile); `train` does it otherwise."""
        if due := self.plan().due:
            self._slots(due)

    def train(self) -> Outcome:
        """Trains every trial that is due and returns how the experiment stands.

        Raises:
            BusyError: another live process drives this experiment.
        """
        name = self.experiment.name
        with self.ledger.drive(name, str(Path(self.experiment.path).resolve()), self._tell):
            for cohort in self.ledger.open_cohorts(name):  # a worker of the driver before may live without it
                write_fence(self.root / "cohorts" / cohort["id"], self.ledger.fence_out(cohort["id"]))
            write_text(self.folder / "experiment.yaml", self.experiment.text)
            write_json(self.folder / "trials.json", _listed(self.experiment))
            self.ledger.register(name, self.experiment.trials, budgets_of(self.experiment.trials))
            if self._retry_failed:
                plan = self.plan()
                self.ledger.retry([t.id for t in plan.due], [t.id for t in plan.lost])
                self._retry_failed = False
            try:
                self._train_due()
            finally:
                if self._own_executor:
                    self._executor.stop()
            outcome = self.outcome()
            self.ledger.set_state(name, outcome.state)
        return outcome

    def outcome(self) -> Outcome:
        """How the experiment stands, from the ledger alone."""
        trials = self.ledger.trials(self.experiment.name)
        states = {t["state"] for t in trials}
        if self._stop_reason:
            return Outcome("stopped", trials, self._stop_reason)
        if states - {*FINAL, "failed"}:
            return Outcome("stopped", trials, "stopped; the same command goes on")
        return Outcome("failed" if "failed" in states else "done", trials)

    def _train_due(self) -> None:
        """Rounds of training until nothing is due; what another experiment trains is waited for."""
        while self._stop_at is None:
            due = self.plan().due
            if not due:
                return
            ready, orphans = divide(due, self._states())
            for trial, why in orphans:
                self._endings.failed(trial, "", 0, why, why)
            mine = set(self.ledger.claim(self.experiment.name, [t.id for t in ready], self._fence_out))
            if mine:
                self._round([t for t in ready if t.id in mine])
            elif not orphans:
                self._wait_for_others([t.id for t in ready])

    def _wait_for_others(self, ids: Sequence[str]) -> None:
        """Waits a moment for trials that other experiments are training; says so once, and again when that changes."""
        names = {str(row["trained_by"]) for row in self.ledger.find(ids).values() if row["trained_by"]}
        names -= {self.experiment.name}
        if not names:
            return  # they have ended meanwhile
        count = "1 trial belongs" if len(ids) == 1 else f"{len(ids)} trials belong"
        text = f"{count} to {', '.join(sorted(names))}, which trains now: waiting for the result"
        if text != self._waiting:
            self._waiting = text
            self._note(text)
        time.sleep(WAITING_SECONDS)

    def _round(self, due: list[Trial]) -> None:
        slots = self._slots(due)
        for trial in due:
            self._tracker.open(tracked_trial(trial, self.experiment.name))
        queue = self._cohorts(due, slots)
        busy: dict[int, Cohort] = {}
        while busy or (queue and self._stop_at is None):
            for slot in range(slots):
                while slot not in busy and queue and self._stop_at is None:
                    cohort = queue.pop(0)
                    if self._open(slot, cohort):
                        busy[slot] = cohort
            self.ledger.check_held()
            for slot, answer in self._executor.wait(1.0):
                cohort = busy.pop(slot)
                queue.extend(self._answer(slot, cohort, answer, busy))
            if self._stop_at is not None and time.monotonic() > self._stop_at and not self._abandoned:
                self._abandoned = True
                self._executor.abandon(list(busy))
        for cohort in queue:
            self._endings.cohort(cohort, "stopped")

    def _slots(self, due: Sequence[Trial]) -> int:
        cpus, gpus, workers = (max(getattr(t.resources, n) for t in due) for n in ("cpus", "gpus", "workers"))
        return self._executor.start(self._slots_wanted(due), cpus, gpus, workers)

    def _cohorts(self, due: list[Trial], slots: int) -> list[Cohort]:
        """Cohorts an earlier run left, as they were; then new ones for the rest, the longest first."""
        rest = {t.id: t for t in due}
        open_ones = self.ledger.open_cohorts(self.experiment.name, rest)
        found = self.ledger.find({i for row in open_ones for i in row["trials"]})
        settled = {i: trial["cohort"] for i, trial in found.items() if trial["state"] in (*FINAL, "failed")}
        cohorts = left_overs(open_ones, rest, self.experiment, settled)
        planned = plan_cohorts(list(rest.values()), slots, self.ledger.rates())
        return cohorts + [new_cohort(tuple(c)) for c in planned]

    def _open(self, slot: int, cohort: Cohort) -> bool:
        """Has a worker open a cohort; False where a trial of it was lost meanwhile: the next round plans anew."""
        ids = [t.id for t in cohort.trials]
        running = [ids[k] for k in cohort.alive]
        fence = self.ledger.open_cohort(cohort.id, self.experiment.name, ids, cohort.sources, running)
        if fence is None:
            return False
        cohort.fence = fence
        write_fence(self.root / "cohorts" / cohort.id, cohort.fence)
        cohort.progress = saved_progress(self.root, cohort)
        job = Job(
            cohort=cohort.id,
            root=str(self.root),
            learner=learner_target(cohort.trials[0].learner),
            trials=cohort.trials,
            fence=cohort.fence,
            mode=cohort.mode,
            sources=cohort.sources,
            sys_path=own_folders(self.experiment.path),
            experiment=self.experiment.name,
        )
        self._emit(cohort_event(cohort, "running"))
        self._executor.call(slot, "open", job)
        return True

    def _fence_out(self, cohort: str, fence: int) -> None:
        write_fence(self.root / "cohorts" / cohort, fence)

    def _tell(self, text: str) -> None:
        self._emit(note_event(text))

    # -- answers -----------------------------------------------------------------------------------------------------

    def _answer(
        self, slot: int, cohort: Cohort, answer: Report | WorkerDiedError, busy: dict[int, Cohort]
    ) -> list[Cohort]:
        """Deals with what a worker said; returns cohorts to queue."""
        if isinstance(answer, WorkerDiedError):
            return self._worker_died(cohort, answer)
        self._notes.hear(cohort.label, answer)
        if answer.lines and answer.progress > cohort.progress:
            self._emit(report_event(cohort, answer))
        self._endings.results(cohort, answer)
        if answer.kind == "boundary":
            decision = self._decide(cohort, answer)
            busy[slot] = cohort
            self._executor.call(slot, "advance", decision)
            return []
        return self._ended(cohort, answer)

    def _decide(self, cohort: Cohort, report: Report) -> Decision:
        cohort.progress = report.progress
        if cohort.mode is None:
            cohort.mode = report.mode
            self.ledger.set_cohort(cohort.id, mode=report.mode)
        for trial_id, size in report.committed.items():
            self._tracker.commit(trial_id, size)
        first = cohort.trials[0]
        decision = rules.decide(report, cohort.trials, learner_class(first.learner).score_of(config_of(first)))
        if self._stop_at is not None:
            decision = Decision(end=decision.end, stop=True)
        rows: list[Any] = [(cohort.trials[k].id, *ending) for k, ending in decision.end.items()]
        if decision.stop:
            rows.append((None, "stop", "asked to stop"))
        if rows:
            self.ledger.decide(cohort.id, rows, report.progress)
        alive = [cohort.trials[k].id for k in cohort.alive]
        self.ledger.set_trials(alive, progress=report.progress, seconds=report.seconds)
        return decision

    def _ended(self, cohort: Cohort, report: Report) -> list[Cohort]:
        """A cohort left its worker: finished, stopped, or in trouble."""
        if report.kind == "done":
            rate = report.progress * len(cohort.trials) / report.seconds if report.seconds else None
            first = cohort.trials[0]
            shape = shape_key(first, learner_class(first.learner))
            found = {"progress": report.progress, "mode": report.mode, "rate": rate, "shape": shape}
            self.ledger.set_cohort(cohort.id, state="done", **found)
            cohort.progress = report.progress
            self._emit(cohort_event(cohort, "done"))
            return []
        if report.kind == "stopped":
            self._endings.cohort(cohort, "stopped")
            return []
        if report.kind == "fenced":  # its trials are the other driver's now
            self._note(f"{cohort.label}: {report.error}")
            return []
        if report.kind in ("disk", "lost"):
            mend = "; with that mended, the same command goes on" * (report.kind == "disk")
            self._stop_reason = report.error + mend
            self.request_stop()
            self._endings.cohort(cohort, "stopped")
            return []
        if report.kind == "lane_error":
            return self._lanes_failed(cohort, report)
        return self._cohort_failed(cohort, report)

    def _lanes_failed(self, cohort: Cohort, report: Report) -> list[Cohort]:
        if wrong := [k for k in report.lanes if not 0 <= k < len(cohort.trials)]:
            text = f"LaneError names lane {wrong[0]}, of {len(cohort.trials)} from 0 on: {report.error}"
            return self._cohort_failed(cohort, Report("error", cohort.id, error=text, traceback=report.traceback))
        lanes = [k for k in report.lanes if k not in cohort.ended]
        self._endings.lanes_failed(cohort, lanes, report)  # says why
        if not cohort.alive:
            return self._all_failed(cohort)
        return self._split(cohort, [cohort.alive], f"{len(lanes)} of {len(lanes) + len(cohort.alive)} lanes failed")

    def _all_failed(self, cohort: Cohort) -> list[Cohort]:
        self.ledger.set_cohort(cohort.id, state="failed")
        self._emit(cohort_event(cohort, "failed"))
        return []

    def _cohort_failed(self, cohort: Cohort, report: Report) -> list[Cohort]:
        alive = cohort.alive
        if len(alive) == 1:
            self._endings.lanes_failed(cohort, alive, report)
            return self._all_failed(cohort)
        half = len(alive) // 2
        return self._split(cohort, [alive[:half], alive[half:]], f"failed ({report.error}): its halves are tried alone")

    def _worker_died(self, cohort: Cohort, error: WorkerDiedError) -> list[Cohort]:
        if self._abandoned:
            self._endings.cohort(cohort, "stopped")
            return []
        cohort.deaths = cohort.deaths + 1 if cohort.progress <= cohort.death_progress else 1
        cohort.death_progress = cohort.progress
        self._note(f"{cohort.label}: its worker died at progress {cohort.progress:,}: {error}")
        self.ledger.decide(cohort.id, [(None, "retry", str(error))], cohort.progress)
        if cohort.deaths <= self._retries:
            cohort.progress = saved_progress(self.root, cohort)
            self._emit(cohort_event(cohort, "retry"))
            return [cohort]
        text = f"its worker died {cohort.deaths} times without progress: {error}"
        return self._cohort_failed(cohort, Report("error", cohort.id, error=text, traceback=text))

    def _split(self, cohort: Cohort, parts: list[list[int]], why: str) -> list[Cohort]:
        """Goes on with some lanes of a cohort as new cohorts, from its last checkpoint."""
        self._note(f"{cohort.label}: {why}")
        self.ledger.decide(cohort.id, [(None, "split", why)], cohort.progress)
        self.ledger.set_cohort(cohort.id, state="split")
        cohort.progress = saved_progress(self.root, cohort)
        self._emit(cohort_event(cohort, "retry"))
        out = []
        for lanes in parts:
            if lanes:
                trials = tuple(cohort.trials[k] for k in lanes)
                out.append(new_cohort(trials, sources_of(cohort.id, cohort.sources, lanes), cohort.mode))
        return out


def _listed(experiment: Experiment) -> dict[str, Any]:
    """An experiment's trials, for a ledger that must be rebuilt."""
    trials = [{"id": t.id, "entry": t.entry, "label": t.label} for t in experiment.trials]
    return {"file": str(Path(experiment.path).resolve()), "trials": trials}
