"""What the feeder does with a driver's messages: offline one folder in one go, online line by line.

Of every run only the newest message counts, so a slow server makes the feeder skip states in between and
never lets it fall behind for good.
"""

from __future__ import annotations

import logging
import queue
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.tracking import runs
from harness.tracking.deliver import ASK_TIMEOUT, ONE_AT_A_TIME, deliver_online, write_offline
from harness.tracking.state import RunState, metrics_path, read_lines

__all__ = ["Feeding", "OfflineFeeding", "OnlineFeeding", "Pending"]

_log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 15.0, 240.0
CLOSERS = 8
MOST_REFUSALS = 2  # of one run, before it is left to `seedbed sync`


@dataclass
class Pending:
    """A run that the driver told us about.

    Attributes:
        state: as recorded; `state.fed` and `state.final` are what the driver told last.
        dirty: there is something new.
        told: anything was told beside that the run exists.
        run: the live wandb run (online), or None.
        refused: how often work on it failed though the server answered, or the server still lacked something.
        progress: of the last line given to the live run.
    """

    state: RunState
    dirty: bool = False
    told: bool = False
    run: Any = None
    refused: int = 0
    progress: float = float("-inf")


class Feeding:
    """The loop: take messages, work on one run at a time, answer what is missing."""

    mode = ""

    def __init__(self, root: Path, messages: queue.Queue[dict[str, Any]]) -> None:
        """Feed the runs of one run root from a queue of a driver's messages."""
        self.root = root
        self.messages = messages
        self.pending: dict[str, Pending] = {}
        self.finishing = False  # the driver wants an answer
        self.over = False  # the driver is gone

    def run(self) -> dict[str, Any]:
        """Work until "finish" or the end of input; returns the answer for the driver."""
        while not (self.over or self.finishing):
            self._take(block=True)
            self.revive()
            self._work()
        if not self.over:
            self.settle()
        told = [item for item in self.pending.values() if item.told]
        missing = sorted(item.state.id for item in told if not self.delivered(item))
        return {"mode": self.mode, "runs": len(told), "missing": missing}

    def _work(self) -> None:
        while not self.over and (dirty := [item for item in self.pending.values() if item.dirty]):
            item = dirty[0]
            item.dirty = False
            self.attempt(self.feed, item)
            self._take(block=False)

    def attempt(self, work: Any, item: Pending) -> None:
        """Call `work(item)`; one run's trouble goes to the log and does not take the others along."""
        try:
            work(item)
        except runs.ServerDownError as error:
            _log.warning("run %s: %s", item.state.id, error)
            self.pause()
        except Exception:
            _log.exception("run %s", item.state.id)
            item.refused += 1

    def _take(self, *, block: bool) -> None:
        """Move messages into `pending`: the first may be waited for, the rest are taken as they are."""
        try:
            self._apply(self.messages.get(timeout=1.0) if block else self.messages.get_nowait())
            while True:
                self._apply(self.messages.get_nowait())
        except queue.Empty:
            return

    def _apply(self, message: dict[str, Any]) -> None:
        operation = message["op"]
        if operation == "end":
            self.over = not self.finishing
        elif operation == "finish":
            self.finishing = True
        elif operation == "open":
            state = RunState(**message["run"])
            self.pending.setdefault(state.id, Pending(state))
        else:
            item = self.pending[message["run"]]
            item.state.fed = message["upto"]
            item.state.final = message.get("final", {})
            item.dirty = item.told = True

    def feed(self, item: Pending) -> None:
        """Give W&B what is new of one run."""
        raise NotImplementedError

    def pause(self) -> None:
        """The server is down: do not ask again at once."""

    def revive(self) -> None:
        """Called about once a second: mark as dirty what should be tried again."""

    def settle(self) -> None:
        """The driver wants to end: do what is left."""
        raise NotImplementedError

    def delivered(self, item: Pending) -> bool:
        """Whether nothing of this run is left to do in this mode."""
        raise NotImplementedError


class OfflineFeeding(Feeding):
    """One folder a run, written when the trial ended, or when the experiment stops before that."""

    mode = "offline"

    def feed(self, item: Pending) -> None:
        """Write the run if it ended."""
        if item.state.final:
            write_offline(self.root, item.state)

    def settle(self) -> None:
        """Write what is committed of trials that have not ended, so that it can be looked at and synced."""
        for item in self.pending.values():
            if item.told and not item.state.final:
                self.attempt(lambda i: write_offline(self.root, i.state), item)

    def delivered(self, item: Pending) -> bool:
        """Written as far as the trial went."""
        return bool(item.state.folder)


class OnlineFeeding(Feeding):
    """Live runs: after every commit the new lines; at the end proof that the server has them all."""

    mode = "online"

    def __init__(self, root: Path, messages: queue.Queue[dict[str, Any]]) -> None:
        """See Feeding."""
        super().__init__(root, messages)
        self._pause = FIRST_PAUSE
        self._down_until = 0.0
        self._closers = ThreadPoolExecutor(CLOSERS, thread_name_prefix="finish")
        self._closing: dict[str, Future[None]] = {}

    def feed(self, item: Pending) -> None:
        """Log committed lines; when the trial has ended, finish and prove on the side."""
        if item.state.final and not self._busy(item):
            item.state.mode, item.state.state = "online", "open"
            item.state.write(self.root)  # first of all, so that `seedbed sync` knows of it whatever happens now
        if self._down():
            return
        if item.state.final:
            self._close(item)
            return
        self._start(item)
        lines = read_lines(metrics_path(self.root, item.state.id), item.state.fed, item.progress)
        with ONE_AT_A_TIME:
            for line in lines[:-1]:  # the last one waits for the next commit, or for the media at the end
                item.run.log(line)
                item.progress = line["progress"]
        item.state.write(self.root)

    def _down(self) -> bool:
        return time.monotonic() < self._down_until

    def _start(self, item: Pending) -> None:
        """Make the run live; what the server has already is not sent again."""
        if item.run is not None:
            return
        view = runs.ask_server(item.state, ASK_TIMEOUT)
        with ONE_AT_A_TIME:
            item.progress = view.progress
            item.state.mode = "online"
            runs.remove_offline(self.root, item.state)
            item.run = runs.start_run(self.root, item.state, "online")
            self._pause = FIRST_PAUSE

    def _close(self, item: Pending) -> None:
        if not self._busy(item):
            self._closing[item.state.id] = self._closers.submit(self.attempt, self._end, item)

    def _busy(self, item: Pending) -> bool:
        future = self._closing.get(item.state.id)
        return future is not None and not future.done()

    def _end(self, item: Pending) -> None:
        if self._down():
            return
        self._start(item)
        run, item.run = item.run, None
        missing = deliver_online(self.root, item.state, run, item.progress)
        if missing:
            _log.warning("run %s: %s", item.state.id, missing)
            item.refused += 1

    def revive(self) -> None:
        """Ended trials that the server lacks, once it may be asked again; twice refused is left to sync."""
        for item in self.pending.values():
            if self._lacking(item) and not self._down() and not self._busy(item):
                item.dirty = True

    def _lacking(self, item: Pending) -> bool:
        return bool(item.state.final) and item.state.state != "synced" and item.refused < MOST_REFUSALS

    def pause(self) -> None:
        """Leave the server alone for a while, longer each time."""
        self._down_until = time.monotonic() + self._pause
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)

    def settle(self) -> None:
        """Try once more what a broken connection left, and end live runs of trials that have not ended."""
        self._wait()
        self._down_until = 0.0
        for item in self.pending.values():
            if self._lacking(item):
                self._close(item)
            elif item.run is not None:
                self._closing[item.state.id] = self._closers.submit(self.attempt, self._stop, item)
        self._wait()

    def _stop(self, item: Pending) -> None:
        """End a live run whose trial was stopped: all committed lines, no summary; it is resumed later."""
        run, item.run = item.run, None
        with ONE_AT_A_TIME:
            runs.finish_content(self.root, item.state, run, item.progress)
        run.finish(exit_code=1)

    def _wait(self) -> None:
        for future in self._closing.values():
            future.result()
        self._closing.clear()

    def delivered(self, item: Pending) -> bool:
        """Proved to be on the server; a trial that has not ended goes on later, nothing is missing of it."""
        return item.state.state == "synced" or not item.state.final
