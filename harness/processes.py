"""When a process started, by which one that has its id by chance is told from it."""

from __future__ import annotations

from pathlib import Path

import psutil

__all__ = ["started_at"]


def started_at(pid: int) -> float | None:
    """When a process started, in clock ticks since boot (elsewhere than on Linux, seconds); None for a dead one."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text().rpartition(")")[2].split()  # the name may hold spaces and brackets
        except OSError:
            return None
        return None if fields[0] in "ZX" else float(fields[19])
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None
