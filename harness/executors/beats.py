"""Signs of life of workers: a file that a thread of the worker touches, whatever the worker is computing.

A boundary may take hours, so silence between reports says nothing; a worker that is stopped, or whose machine hangs,
touches nothing. Only changes of the file's time count, so that the clocks of two machines need not agree.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["BEAT_SECONDS", "NAME_SECONDS", "REPLACE_SECONDS", "Beat", "Silence", "beat_file"]

BEAT_SECONDS = 5.0  # between two touches
NAME_SECONDS = 120.0  # without a touch, until the person is told
REPLACE_SECONDS = 600.0  # without a touch, until another worker takes over
LOOK_SECONDS = 5.0  # between two looks: the file may lie on a network


def beat_file(root: str | Path, cohort: str, fence: int, rank: int) -> Path:
    """The file that a worker touches while it holds a cohort, under the run root."""
    return Path(root) / "cache" / "beats" / f"{cohort}-{fence}-{rank}"


class Beat:
    """Touches one file at a time from a thread of its own, as long as the process runs."""

    def __init__(self) -> None:
        self._file: Path | None = None
        threading.Thread(target=self._run, daemon=True, name="beat").start()

    def at(self, file: Path) -> None:
        """Touches this file from now on, and no longer the one before."""
        with contextlib.suppress(OSError):  # a full disk: the worker is then watched no further
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        self._file = file

    def end(self) -> None:
        """Touches nothing any more."""
        self._file = None

    def _run(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            if self._file is not None:
                with contextlib.suppress(OSError):  # it was removed: nobody watches it
                    os.utime(self._file)


class Silence:
    """How long one worker has been silent, from the first touch on.

    Args:
        file: what the worker touches.
        clock: seconds that only grow.
    """

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.file = file
        self.named = False
        self._clock = clock
        self._time: int | None = None
        self._changed = self._looked = clock()

    def seconds(self) -> float:
        """Seconds since the last change that was seen; 0 before the worker has begun."""
        now = self._clock()
        if self._time is None or now - self._looked >= LOOK_SECONDS:
            if now - self._looked > 2 * NAME_SECONDS:  # this process slept itself, and the others may have too
                self._changed = now
            self._looked = now
            with contextlib.suppress(OSError):
                found = self.file.stat().st_mtime_ns
                if found != self._time:
                    self._time, self._changed = found, now
        return 0.0 if self._time is None else now - self._changed

    def forget(self) -> None:
        """Removes the file."""
        with contextlib.suppress(OSError):
            self.file.unlink()
