"""One worker in the driver's own process: nothing to start, easy to debug."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from harness.executors import WorkerDiedError
from harness.messages import Report
from harness.worker import Worker

__all__ = ["InlineExecutor"]


class InlineExecutor:
    """Runs each call when it is waited for."""

    most = 1.0  # slot: this process

    def __init__(self) -> None:
        self.say: Callable[[str], None] = lambda text: None
        self._give_up_at = math.inf
        self._worker = Worker(interrupt=lambda: time.monotonic() > self._give_up_at)
        self._pending: tuple[str, Any] | None = None

    def check(self) -> None:
        """This process is always here."""

    def start(self, slots: int, cpus: int, gpus: float, workers: int) -> int:
        """There is one slot (the driver has refused cohorts of several workers)."""
        return 1

    def call(self, slot: int, method: str, argument: Any) -> None:
        """Keeps the call for `wait`."""
        self._pending = (method, argument)

    def wait(self, timeout: float) -> list[tuple[int, Report | WorkerDiedError]]:
        """Carries the pending call out, however long it takes."""
        if self._pending is None:
            return []
        (method, argument), self._pending = self._pending, None
        return [(0, getattr(self._worker, method)(argument))]

    def give_up_at(self, when: float) -> None:
        """From then on the worker lets go at its next chunk; safe to call from a signal handler."""
        self._give_up_at = when

    def abandon(self, slots: list[int]) -> None:
        """Nothing runs while the driver does."""

    def stop(self) -> None:
        """Lets go of the cohort."""
        self._worker.close()
