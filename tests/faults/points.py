"""Kills this process at a named point of a run: at the moment of a system call on a file that a run writes.

The points are events of Python's audit hook, which come before the call, with a pattern of the file's path, so they
hold however the code that writes the files is arranged.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

__all__ = ["POINTS", "install"]

# name -> (event, pattern of the path, how many such events come to pass)
POINTS: dict[str, tuple[str, str, int]] = {
    "ledger opened": ("sqlite3.connect", r"ledger\.sqlite", 0),
    "file of the experiment kept": ("os.rename", r"/experiments/e/experiment\.yaml$", 0),
    "cohort's folder made": ("os.mkdir", r"/cohorts/\w+$", 0),
    "fence written": ("os.rename", r"/fence\.json$", 0),
    "trial's folder made": ("os.mkdir", r"/trials/\w+$", 0),
    "configuration written": ("os.rename", r"/config\.json$", 0),
    "second trial's folder made": ("os.mkdir", r"/trials/\w+$", 1),
    "first line of metrics": ("open", r"/metrics\.jsonl$", 2),
    "line in the middle": ("open", r"/metrics\.jsonl$", 14),
    "checkpoint begun": ("os.mkdir", r"/\.tmp-[\w-]+$", 0),
    "tensors written": ("os.rename", r"/\.tmp-[\w-]+/state\.safetensors$", 0),
    "manifest written": ("os.rename", r"/\.tmp-[\w-]+/manifest\.json$", 0),
    "checkpoint complete": ("os.rename", r"/ckpt-[\d-]+$", 0),
    "second checkpoint complete": ("os.rename", r"/ckpt-[\d-]+$", 1),
    "oldest checkpoint goes": ("shutil.rmtree", r"/ckpt-[\d-]+$", 0),
    "oldest checkpoint is half gone": ("os.rmdir", r"ckpt-[\d-]+$", 0),
    "final network written": ("os.rename", r"/final\.safetensors$", 0),
    "best network written": ("os.rename", r"/best\.safetensors$", 0),
    "result written": ("os.rename", r"/result\.json$", 0),
    "second result written": ("os.rename", r"/result\.json$", 1),
    "last result written": ("os.rename", r"/result\.json$", 4),
}


def install(point: str, count: Path, pids: tuple[int, ...] = ()) -> None:
    """Kills this process, and others, at a point.

    Args:
        point: a key of `POINTS`.
        count: a file that grows by a byte with each event, in whichever process; its end says that the kill happened.
        pids: processes to kill first, such as the driver whose worker this is.
    """
    wanted, pattern, passed = POINTS[point]
    path = re.compile(pattern)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event != wanted or not args:
            return
        target = args[1] if event == "os.rename" else args[0]
        if not isinstance(target, str | os.PathLike) or not path.search(os.fspath(target)):
            return
        handle = os.open(count, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(handle, b".")
        if os.fstat(handle).st_size == passed + 1:
            os.write(handle, b"killed")
            for pid in (*pids, os.getpid()):
                os.kill(pid, signal.SIGKILL)
        os.close(handle)

    sys.addaudithook(hook)


def install_from_environment() -> None:
    """In a worker of Ray: what SEEDBED_TEST_POINT says, "point|count file|pid of the driver"."""
    if text := os.environ.get("SEEDBED_TEST_POINT"):
        point, count, pid = text.split("|")
        install(point, Path(count), (int(pid),))
