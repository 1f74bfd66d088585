"""Ctrl-C and SIGTERM: the first asks for a stop at the next boundary, the second ends the process at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from harness.processes import started_at

__all__ = ["SERVE_PID", "Stopper", "ending_with_serve"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SERVE_PID = "SEEDBED_SERVE_PID"  # in the environment of the runs that `seedbed serve` starts
LOOK_SECONDS = 0.25  # between two looks at the process that serves
STOP_SECONDS = 60.0  # for the next boundary, the page and W&B
LINGER_SECONDS = 5.0  # for Prefect's threads, whose server is gone as well


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


@contextlib.contextmanager
def ending_with_serve(log: Path) -> Iterator[None]:
    """While a run that `seedbed serve` has started is in the body: stops it when that process is killed.

    Args:
        log: takes what the run prints from then on; nobody reads the pipe any more.
    """
    serving = os.environ.get(SERVE_PID)
    if serving is None:
        yield
        return
    ended = threading.Event()
    threading.Thread(target=_watch, args=(int(serving), ended, log), daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _watch(serving: int, ended: threading.Event, log: Path) -> None:
    began = started_at(serving)
    while began is not None and started_at(serving) == began:
        if ended.wait(LOOK_SECONDS):
            return
    with contextlib.suppress(OSError), log.open("ab") as file:
        file.write(b"seedbed serve has ended: stopping at the next boundary\n")
        file.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.kill(os.getpid(), signal.SIGTERM)
    ended.wait(STOP_SECONDS)
    threading.Event().wait(LINGER_SECONDS)
    os._exit(130)
