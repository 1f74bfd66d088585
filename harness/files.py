"""How files are written: whole or not at all. A full disk is one error, whichever library met it.

Each library reports a full disk in its own way: safetensors by an error that is not an OSError, SQLite by one of its
own, which SQLAlchemy wraps. `is_full` knows them all.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["NoSpaceError", "is_full", "room_for"]

FULL = (errno.ENOSPC, errno.EDQUOT)


class NoSpaceError(Exception):
    """The disk is full: the run stops, its last checkpoint loads, running it again resumes."""


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, says that the disk (or a quota on it) is full."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, NoSpaceError):
            return True
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return True
        if type(error).__name__ == "SafetensorError" and "No space left on device" in str(error):
            return True
        error = getattr(error, "orig", None) or error.__cause__ or error.__context__
    return False


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Turns whatever says that the disk is full into a NoSpaceError that names `path`.

    Raises:
        NoSpaceError: there was no room.
    """
    try:
        yield
    except Exception as error:
        if is_full(error):
            raise NoSpaceError(f"no space left on the disk of {path}") from error
        raise
