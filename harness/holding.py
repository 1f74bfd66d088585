"""Who holds an experiment, and whether that process still lives.

A holder on this host is a process: its id and when it started, in ticks since boot, which setting the clock does not
change.
A holder on another host gives signs of life in the ledger, a number that rises. A reader judges them by their change,
on a clock of its own: two hosts' clocks are never compared.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any, TypeAlias

from sqlalchemy import RowMapping

from harness.processes import started_at

__all__ = ["HEARTBEAT_SECONDS", "LEASE_SECONDS", "Watch", "identity", "is_here", "lives_here"]

Row: TypeAlias = Mapping[str, Any] | RowMapping

LEASE_SECONDS = 120.0  # a holder on another host is believed dead when it gave no sign of life for so long
HEARTBEAT_SECONDS = 5.0  # between two signs of life of a driver


def identity() -> dict[str, Any]:
    """This process, as a row of the ledger names it: host, pid, started."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started_at(os.getpid())}


def is_here(row: Row) -> bool:
    """Whether a row's holder is (or was) a process of this host."""
    return bool(row["host"] == socket.gethostname())


def lives_here(row: Row) -> bool:
    """Whether the process that a row names lives on this host; a process that has its id by chance does not count."""
    if row["pid"] is None or row["started"] is None:
        return False
    started = started_at(int(row["pid"]))
    return started is not None and started == row["started"]


class Watch:
    """What this reader has seen of holders on other hosts."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[tuple[Any, ...], float]] = {}

    def lives(self, row: Row) -> bool:
        """Whether a row's holder lives; one on another host does until it was silent for LEASE_SECONDS."""
        if row["pid"] is None:
            return False
        return lives_here(row) if is_here(row) else self.silence(row) < LEASE_SECONDS

    def silence(self, row: Row) -> float:
        """Seconds for which this reader has seen no sign of life of a holder on another host."""
        sign = (row["holder"], row["host"], row["pid"], row["beats"])
        known = self._seen.get(row["name"])
        if known is None or known[0] != sign:
            self._seen[row["name"]] = known = (sign, time.monotonic())
        return time.monotonic() - known[1]
