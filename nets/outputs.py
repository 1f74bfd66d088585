"""Where a file may be written: a new name, or that of a regular file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["output_file"]

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}


def output_file(path: str | Path) -> Path:
    """The path, for a file that is renamed to it when it is whole; a device or a link would be gone after that.

    Raises:
        ValueError: something that is not a regular file has that name.
    """
    path = Path(path)
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return path
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "something else")
        raise ValueError(f"{path} is {kind}, not a regular file, and is not replaced; name another file")
    return path
