"""Ctrl-C and SIGTERM: the first asks for a stop at the next boundary, the second ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Stopper"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopper:
    """Takes the two signals while it is entered; outside the main thread it does nothing.

    Attributes:
        graceful: whether training runs, which stops at a boundary; else the first signal is a KeyboardInterrupt.

    Args:
        request: asks the driver to stop; called by the first signal.
        say: shows a sentence.
    """

    def __init__(self, request: Callable[[], None], say: Callable[[str], None]) -> None:
        self._request = request
        self._say = say
        self._saved: dict[signal.Signals, Any] = {}
        self.graceful = False
        self._count = 0
        self._depth = 0

    def __enter__(self) -> Stopper:
        self._depth += 1
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            self._saved = {number: signal.getsignal(number) for number in SIGNALS}
            self.install()
        return self

    def install(self) -> None:
        """Takes the signals, also when Ray or Prefect took them meanwhile."""
        if self._depth and threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._handle)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            for number, handler in self._saved.items():
                signal.signal(number, handler)
            self._saved = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count > 1:
            os._exit(130)  # the server and Ray's processes watch us and end too
        if not self.graceful:
            raise KeyboardInterrupt
        self._request()
        self._say("stopping at the next boundary; once more to end at once")
