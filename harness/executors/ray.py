"""Workers as Ray actors, on this machine or on a cluster. Ray places them; the ledger decides on retries."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from harness.executors import WorkerDiedError
from harness.messages import Decision, Job, Report

__all__ = ["RayExecutor"]


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
    """Keeps one actor a slot and uses it for cohort after cohort.

    Args:
        address: of a running cluster; None starts Ray on this machine.
    """

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._actors: list[Any] = []
        self._pending: dict[Any, int] = {}
        self._options: dict[str, Any] = {}
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

    def start(self, slots: int, cpus: int, gpus: float) -> int:
        """Makes up to `slots` actors of `cpus` threads ready, as many as the cluster holds."""
        self.connect()
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        if options != self._options:
            self._kill_all()
            self._options = options
        total = ray.cluster_resources()
        fit = int(total.get("CPU", 1) // cpus)
        if gpus:
            fit = min(fit, int(total.get("GPU", 0) / gpus))
        while len(self._actors) < max(1, min(slots, fit)):
            self._actors.append(self._new())
        return len(self._actors)

    def _new(self) -> Any:
        threads = str(self._options["num_cpus"])
        env = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        return ray.remote(_Actor).options(runtime_env={"env_vars": env}, **self._options).remote()

    def call(self, slot: int, method: str, argument: Any) -> None:
        """Sends the call to the slot's actor."""
        self._pending[getattr(self._actors[slot], method).remote(argument)] = slot

    def wait(self, timeout: float) -> list[tuple[int, Report | WorkerDiedError]]:
        """Collects what is ready; waits for the first at most `timeout` seconds."""
        if not self._pending:
            time.sleep(min(timeout, 0.05))
            return []
        ready, _ = ray.wait(list(self._pending), num_returns=1, timeout=timeout)
        if ready:
            more, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
            ready = list(dict.fromkeys([*ready, *more]))
        return [self._collect(ref) for ref in ready]

    def _collect(self, ref: Any) -> tuple[int, Report | WorkerDiedError]:
        slot = self._pending.pop(ref)
        try:
            return slot, ray.get(ref)
        except (RayActorError, GetTimeoutError) as error:
            self._actors[slot] = self._new()
            return slot, WorkerDiedError(str(error).splitlines()[0])
        except RayError as error:
            ray.kill(self._actors[slot])
            self._actors[slot] = self._new()
            return slot, WorkerDiedError(str(error).splitlines()[0])

    def give_up_at(self, when: float) -> None:
        """The driver itself watches the time and calls `abandon`."""

    def abandon(self, slots: list[int]) -> None:
        """Kills the actors in these slots; `wait` will report them as dead."""
        for slot in slots:
            ray.kill(self._actors[slot])

    def _kill_all(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
        self._actors, self._pending = [], {}

    def stop(self) -> None:
        """Ends the actors, and Ray if we started it or joined it."""
        if ray.is_initialized():
            self._kill_all()
            if self._owner:
                ray.shutdown()
