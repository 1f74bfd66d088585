"""Worker processes that hold environments, and the watchdog that ends those that hang.

Every trial has processes of its own, so that one that is ended takes no other trial's episodes with it. They are
new interpreters (never forks), find what this one can import, and end when this one does.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import IO, Any, NamedTuple

import numpy as np

from agents.envs.stepping import DOING, IDLE, STEPPING, Arrays, Layout, arrays_in, size_of

__all__ = ["Death", "Processes", "ask"]

POLL = 0.5  # seconds between two looks at processes that have not answered
START = 60.0  # seconds that a process has at least for starting Python and importing what it needs
CHECK = 60.0  # seconds that making and checking an environment may take when a file is read
FAREWELL = 1.0  # seconds that processes have to close their environments


class Death(NamedTuple):
    """A process that hung or died.

    Attributes:
        rows: its environments.
        row: the one that was at work, or its first one.
        what: what happened, as the end of a sentence about that one.
    """

    rows: list[int]
    row: int
    what: str


class _Process:
    """One worker process.

    Args:
        first: the command that it starts with.
        shared: file descriptors that it inherits.
    """

    def __init__(self, first: dict[str, Any], shared: Sequence[int] = ()) -> None:
        ours, theirs = socket.socketpair()
        read_end, lifeline = os.pipe()
        output = _file()
        places = os.pathsep.join(place or os.getcwd() for place in sys.path)
        numbers = (theirs.fileno(), read_end, *shared)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agents.envs.serving", *map(str, numbers)],
            pass_fds=numbers,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the driver; the whole group is ended at once
            env={**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"},
        )
        theirs.close()
        os.close(read_end)
        self.socket, self.reader, self.output = ours, ours.makefile("rb"), output
        self.sent = 0.0
        self.end = weakref.finalize(self, _end, self.process, lifeline, ours)
        self.send(first)

    def send(self, command: dict[str, Any]) -> None:
        """A process that has died says so when its answer is read."""
        self.sent = time.monotonic()
        with suppress(OSError):
            self.socket.sendall(json.dumps(command).encode() + b"\n")

    def answer(self) -> dict[str, Any] | None:
        """The next answer; None if the process has died."""
        try:
            line = self.reader.readline()
        except OSError:
            return None
        return json.loads(line) if line.endswith(b"\n") else None

    def cause(self) -> str:
        """Why it died, as the end of a sentence about it."""
        try:
            code = self.process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            return "stopped answering"
        if code < 0:
            return f"was killed by signal {-code} ({signal.Signals(-code).name})"
        self.output.seek(0)
        last = self.output.read().decode(errors="replace").strip().rpartition("\n")[2]
        return f"exited with code {code}" + (f" ({last})" if last else "")


def _file(folder: str = "") -> IO[bytes]:
    """A file without a name: it is gone with the last process that has it open."""
    return tempfile.TemporaryFile(dir=folder if os.path.isdir(folder) else None)


def _end(process: subprocess.Popen, lifeline: int, ours: socket.socket) -> None:
    """Ends a process and whatever it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    os.close(lifeline)
    ours.close()


class Processes:
    """Environments in worker processes.

    Args:
        layout: of the shared arrays.
        groups: rows of every process.
        evaluating: rows whose environments only evaluate.
        of: environment id, options, wrappers.
        timeout: seconds that one environment may take for one constructor, reset or step.
    """

    def __init__(
        self,
        layout: Layout,
        groups: Sequence[Sequence[int]],
        evaluating: set[int],
        of: tuple[str, dict[str, Any], Sequence[Any]],
        timeout: float,
    ) -> None:
        self.groups, self.timeout = [list(group) for group in groups], timeout
        self._group_of = {row: g for g, group in enumerate(self.groups) for row in group}
        self._file = _file("/dev/shm")
        self._file.truncate(size_of(layout))
        self.arrays: Arrays = arrays_in(mmap.mmap(self._file.fileno(), 0), layout)
        env, options, wrappers = of
        common = {"do": "serve", "layout": layout, "env": env, "options": options, "wrappers": wrappers}
        self._first = [{**common, "rows": [(row, row in evaluating) for row in group]} for group in self.groups]
        self._running: dict[int, _Process] = {}

    def run(self, what: str, rows: Sequence[int]) -> tuple[dict[int, str], list[Death]]:
        """Resets or steps some environments at once.

        Args:
            what: "reset" or "step".
            rows: at least one; those of a process that died are not stepped before they are reset.

        Returns:
            (row -> what is wrong with it, processes that hung or died; they are replaced at the next reset).
        """
        orders: dict[int, list[int]] = {}
        for row in rows:
            orders.setdefault(self._group_of[row], []).append(row)
        waiting: dict[Any, int] = {}
        for group, order in orders.items():
            if group not in self._running:
                self._running[group] = _Process(self._first[group], (self._file.fileno(),))
            self._running[group].send({"do": what, "rows": order})
            waiting[self._running[group].socket] = group
        wrong: dict[int, str] = {}
        deaths = []
        while waiting:
            ready = wait(list(waiting), POLL)
            for one in ready:
                group = waiting.pop(one)
                answer = self._running[group].answer()
                if answer is None:
                    deaths.append(self._died(group))
                else:
                    wrong.update((int(row), text) for row, text in answer["wrong"].items())
            if not ready:
                late = [(one, group, self._hung(group)) for one, group in waiting.items()]
                for one, group, death in late:
                    if death is not None:
                        deaths.append(death)
                        self._running.pop(group).end()
                        del waiting[one]
        return wrong, deaths

    def steps(self, row: int) -> int:
        """Steps of an environment since it was last reset from a seed."""
        return int(self.arrays.steps[row])

    def close(self) -> None:
        """Ends all processes; those that are idle close their environments first."""
        for process in self._running.values():
            process.send({"do": "close"})
        until = time.monotonic() + FAREWELL
        for process in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                process.process.wait(max(0.0, until - time.monotonic()))
            process.end()
        self._running.clear()

    def _busy(self, group: int) -> tuple[int, str]:
        """(environment that is at work, or the first one; what it does)."""
        rows = np.array(self.groups[group])
        busy = rows[self.arrays.doing[rows] != IDLE]
        row = int(busy[0]) if len(busy) else int(rows[0])
        doing = int(self.arrays.doing[row])
        number = f" {self.arrays.steps[row]}" if doing == STEPPING else ""
        self.arrays.doing[rows] = IDLE
        return row, DOING[doing] + number

    def _hung(self, group: int) -> Death | None:
        rows = np.array(self.groups[group])
        busy = rows[self.arrays.doing[rows] != IDLE]
        began = float(self.arrays.since[busy[0]]) if len(busy) else self._running[group].sent
        limit = self.timeout if len(busy) else max(self.timeout, START)
        taken = time.monotonic() - began
        if taken <= limit:
            return None
        row, what = self._busy(group)
        return Death(self.groups[group], row, f"hangs: {what} has not come back for {taken:.0f} s (limit {limit:g} s)")

    def _died(self, group: int) -> Death:
        process = self._running.pop(group)
        cause = process.cause()
        process.end()
        row, what = self._busy(group)
        return Death(self.groups[group], row, f"is lost: its process {cause} during {what}")


def ask(name: str, question: dict[str, Any]) -> dict[str, Any]:
    """One answer of a fresh process; {"error": sentence} where it hangs or dies.

    Args:
        name: what it is about, for the sentence.
        question: the first and only command.
    """
    process = _Process(question)
    try:
        if not wait([process.socket], CHECK):
            return {"error": f"{name} hangs: making and checking it has not ended within {CHECK:g} s"}
        answer = process.answer()
        return answer if answer is not None else {"error": f"{name}: the process that made it {process.cause()}"}
    finally:
        process.end()
