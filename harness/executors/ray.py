"""Workers as Ray actors, on this machine or on a cluster. Ray places them; the ledger decides on retries."""

from __future__ import annotations

import logging
import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from harness.executors import WorkerDiedError
from harness.gang import Seat
from harness.messages import Decision, Job, Report

__all__ = ["RayExecutor"]

TOGETHER = ("boundary", "done", "stopped")  # what all workers of a cohort say at once
SECONDS_FOR_OTHERS = 10.0  # for the death of one to be noticed after another has complained of it


class _Actor:
    """A worker's process; torch and the learners are imported when it starts."""

    def __init__(self) -> None:
        from harness.worker import Worker

        self._worker = Worker()

    def open(self, job: Job) -> Report:
        return self._worker.open(job)

    def advance(self, decision: Decision) -> Report:
        return self._worker.advance(decision)


class RayExecutor:
    """Keeps the actors of a slot and uses them for cohort after cohort.

    Args:
        address: of a running cluster; None starts Ray on this machine.
    """

    most = math.inf

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._slots: list[list[Any]] = []  # actors, rank 0 first
        self._called: dict[int, int] = {}  # slot -> how many of them train its cohort
        self._pending: dict[Any, tuple[int, int]] = {}  # answer to come -> slot, rank
        self._heard: dict[int, Report] = {}  # slot -> what rank 0 said, while others are still at it
        self._options: dict[str, Any] = {}
        self._workers = 1
        self._owner = False

    def connect(self) -> None:
        """Starts Ray or joins the cluster; done once."""
        if ray.is_initialized():
            return
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "seedbed"}
        if self._address:
            ray.init(address=self._address, **quiet)
        else:
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            ray.init(address="local", include_dashboard=False, **quiet)
        self._owner = True

    def start(self, slots: int, cpus: int, gpus: float, workers: int) -> int:
        """Makes up to `slots` slots of actors with `cpus` threads ready, as many as the cluster holds."""
        self.connect()
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        if (options, workers) != (self._options, self._workers):
            self._kill_all()
            self._options, self._workers = options, workers
        total = ray.cluster_resources()
        fit = int(total.get("CPU", 1) // (cpus * workers))
        if gpus:
            fit = min(fit, int(total.get("GPU", 0) / (gpus * workers)))
        while len(self._slots) < max(1, min(slots, fit)):
            self._slots.append(self._new())
        return len(self._slots)

    def _new(self) -> list[Any]:
        threads = str(self._options["num_cpus"])
        env = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        options = {"runtime_env": {"env_vars": env}, **self._options}
        return [ray.remote(_Actor).options(**options).remote() for _ in range(self._workers)]

    def call(self, slot: int, method: str, argument: Any) -> None:
        """Sends the call to the slot's actors, as many as the cohort asks for; a job gives each its seat."""
        if isinstance(argument, Job):
            self._called[slot] = argument.trials[0].resources.workers
        for rank, actor in enumerate(self._slots[slot][: self._called[slot]]):
            own = self._seated(argument, rank) if isinstance(argument, Job) else argument
            self._pending[getattr(actor, method).remote(own)] = (slot, rank)

    def _seated(self, job: Job, rank: int) -> Job:
        size = job.trials[0].resources.workers
        if size == 1:
            return job
        meeting = Path(job.root) / "cache" / "gangs" / job.cohort / str(job.fence)
        return replace(job, seat=Seat(rank, size, str(meeting), loopback=self._address is None))

    def wait(self, timeout: float) -> list[tuple[int, Report | WorkerDiedError]]:
        """Collects what is ready; waits for the first at most `timeout` seconds."""
        if not self._pending:
            time.sleep(min(timeout, 0.05))
            return []
        ready, _ = ray.wait(list(self._pending), num_returns=1, timeout=timeout)
        if ready:
            more, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
            ready = list(dict.fromkeys([*ready, *more]))
        return [answer for ref in ready if (answer := self._collect(ref))]

    def _collect(self, ref: Any) -> tuple[int, Report | WorkerDiedError] | None:
        """A slot's answer, once all who were called have theirs or one is in trouble."""
        if ref not in self._pending:  # its slot has been started again
            return None
        slot, rank = self._pending.pop(ref)
        answer = _result(ref)
        others = [r for r, (s, _) in self._pending.items() if s == slot]
        if isinstance(answer, WorkerDiedError):
            return slot, self._again(slot, answer)
        if answer.kind not in TOGETHER and self._called[slot] > 1:
            return slot, self._trouble(slot, answer, others)
        if rank == 0:
            self._heard[slot] = answer
        return None if others else (slot, self._heard.pop(slot))

    def _trouble(self, slot: int, report: Report, others: list[Any]) -> Report | WorkerDiedError:
        """One of several cannot go on: because another has died, or for a reason of its own, which it has told."""
        ended = ray.wait(others, num_returns=len(others), timeout=SECONDS_FOR_OTHERS)[0] if others else []
        deaths = [answer for answer in map(_result, ended) if isinstance(answer, WorkerDiedError)]
        return self._again(slot, deaths[0] if deaths else report)

    def _again(self, slot: int, answer: Any) -> Any:
        """Kills a slot's actors, starts new ones and passes the answer on."""
        for actor in self._slots[slot]:
            ray.kill(actor)
        self._pending = {ref: place for ref, place in self._pending.items() if place[0] != slot}
        self._heard.pop(slot, None)
        self._slots[slot] = self._new()
        return answer

    def give_up_at(self, when: float) -> None:
        """The driver itself watches the time and calls `abandon`."""

    def abandon(self, slots: list[int]) -> None:
        """Kills the actors in these slots; `wait` will report them as dead."""
        for slot in slots:
            for actor in self._slots[slot]:
                ray.kill(actor)

    def _kill_all(self) -> None:
        for actor in (a for slot in self._slots for a in slot):
            ray.kill(actor)
        self._slots, self._pending, self._heard = [], {}, {}

    def stop(self) -> None:
        """Ends the actors, and Ray if we started it or joined it."""
        if ray.is_initialized():
            self._kill_all()
            if self._owner:
                ray.shutdown()


def _result(ref: Any) -> Report | WorkerDiedError:
    """What an actor has answered."""
    try:
        return ray.get(ref)
    except RayError as error:
        return WorkerDiedError(str(error).splitlines()[0])
