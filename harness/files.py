"""How files are written: whole or not at all. A full disk is one error, whichever library met it.

Everything that goes into a run root is written here. A file is written under a hidden name that says whose it is, and
renamed: readers see the old one or the new one. What a killed process left under such a name, the next owner of the
folder removes (`clear_dead`).

Each library reports a full disk in its own way: safetensors by an error that is not an OSError, SQLite by one of its
own, which SQLAlchemy wraps. `is_full` knows them all.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.processes import started_at

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "NoSpaceError",
    "append",
    "clear_dead",
    "disk_trouble",
    "is_full",
    "make_folder",
    "replacing",
    "room_for",
    "set_aside",
    "sync",
    "temporary_name",
    "write_bytes",
    "write_json",
    "write_tensors",
    "write_text",
]

FULL = (errno.ENOSPC, errno.EDQUOT)
BROKEN = (errno.EIO, errno.EROFS)  # the next file would fail likewise
RUST_FULL = tuple(f"(os error {number})" for number in FULL)
SQLITE_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
SQLITE_UNCLEAR = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)  # full, or something else: the disk is asked
NO_ROOM = 64 * 1024  # free bytes below which it is the disk that is full
FORGOTTEN_SECONDS = 3600.0  # after which a temporary file whose writer cannot be looked up has none any more
_TEMPORARY = re.compile(r"\.((new|tmp|page|summary)-|tmp\w{6}$)")
_OWNER = re.compile(r"\.(?:new|tmp)-([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{8}$")


class NoSpaceError(Exception):
    """The disk is full: the run stops, its last checkpoint loads, running it again resumes."""


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, says that the disk (or a quota on it) is full."""
    return any(_says_full(one) for one in _chain(error))


def disk_trouble(error: BaseException | None) -> str:
    """What is wrong with the disk, where an error says so: it is full, broken or read-only; "" for other errors."""
    found = list(_chain(error))
    for one in found:
        if isinstance(one, NoSpaceError):
            return str(one)
    for one in found:
        if _says_full(one):
            return f"no space left on the disk: {_one_line(one)}"
        if isinstance(one, OSError) and one.errno in BROKEN:
            return f"the disk cannot be written: {_one_line(one)}"
    return ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it was raised from, also one that SQLAlchemy wraps."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = getattr(error, "orig", None) or error.__cause__ or error.__context__


def _says_full(error: BaseException) -> bool:
    if isinstance(error, NoSpaceError):
        return True
    if isinstance(error, OSError):
        return error.errno in FULL
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) in SQLITE_FULL
    return type(error).__name__ == "SafetensorError" and str(error).rstrip('"').endswith(RUST_FULL)


def _full_by_now(error: BaseException, path: Path) -> bool:
    """Whether SQLite failed in a way that a full disk causes, and the disk of `path` is full."""
    codes = [getattr(e, "sqlite_errorcode", 0) & 0xFF for e in _chain(error) if isinstance(e, sqlite3.Error)]
    if not set(codes) & set(SQLITE_UNCLEAR):
        return False
    there = next((p for p in (path, *path.parents) if p.exists()), Path("/"))
    with suppress(OSError):
        return shutil.disk_usage(there).free < NO_ROOM
    return False


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Turns whatever says that the disk is full into a NoSpaceError that names `path`.

    Raises:
        NoSpaceError: there was no room.
    """
    try:
        yield
    except NoSpaceError:
        raise
    except Exception as error:
        if is_full(error) or _full_by_now(error, path):
            raise NoSpaceError(f"no space left on the disk of {_known(path)}") from error
        raise


def _known(path: Path) -> Path:
    """A path up to the first name that only this module knows."""
    hidden = [k for k, part in enumerate(path.parts) if _TEMPORARY.match(part)]
    return Path(*path.parts[: hidden[0]]) if hidden else path


# -- writing -----------------------------------------------------------------------------------------------------------


def sync(path: Path) -> None:
    """Waits until a file's bytes, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Makes a folder and those above it; a new one outlasts a power loss.

    Raises:
        NoSpaceError: there was no room.
    """
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent)
    with room_for(path):
        path.mkdir(exist_ok=True)
        with suppress(PermissionError):  # a folder that one may write to and not list
            sync(path.parent)


def set_aside(path: Path, right: Callable[[Path], bool] = Path.is_file) -> None:
    """Renames what has taken a file's place and is not one (or not a folder), so that the file can be written."""
    if os.path.lexists(path) and not right(path):
        path.rename(path.with_name(f"{path.name}.set-aside-{uuid.uuid4().hex[:8]}"))


@contextmanager
def replacing(path: Path, synced: bool = False) -> Iterator[Path]:
    """A hidden name beside `path` to write to; renamed to `path` when the body ends, removed when it fails.

    The folder is made if need be.

    Args:
        path: the file.
        synced: its bytes are on the disk before it has its name.

    Raises:
        NoSpaceError: there was no room; what `path` was before is still there.
    """
    make_folder(path.parent)
    temporary = path.with_name(temporary_name("new"))
    try:
        with room_for(path):
            yield temporary
            if synced:
                sync(temporary)
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, synced: bool = False) -> None:
    """Writes a file whole or not at all; see `replacing`."""
    with replacing(path, synced) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str, synced: bool = False) -> None:
    """Writes UTF-8 text whole or not at all; see `replacing`."""
    write_bytes(path, text.encode("utf-8", errors="replace"), synced)


def write_json(path: Path, value: Any, durable: bool = False) -> None:
    """Writes JSON whole or not at all.

    Args:
        path: the file.
        value: what it says.
        durable: it, and what got a name in its folder before, outlasts a power loss from here on.
    """
    write_text(path, json.dumps(value, indent=1, allow_nan=False), synced=durable)
    if durable:
        with room_for(path):
            sync(path.parent)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file whole or not at all; its bytes are on the disk before it has its name."""
    from safetensors.torch import save_file

    make_folder(path.parent)
    own = path.with_name(temporary_name("tmp"))  # a folder: save_file has hidden files of its own, that name no owner
    try:
        with room_for(path):
            own.mkdir()
            file = own / path.name
            save_file(dict(tensors), file, metadata)
            file.chmod(own.stat().st_mode & 0o666)  # save_file hides it from other users
            sync(file)
            file.replace(path)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def append(path: Path, text: str) -> None:
    """Appends to a file; where there is room for a part of the text only, that part is cut off again.

    Raises:
        NoSpaceError: there was no room.
    """
    rest = memoryview(text.encode("utf-8", errors="replace"))
    with room_for(path), path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            while rest:  # a disk that fills up takes a part first, and is an error at the next part
                rest = rest[file.write(rest) :]
        except OSError:
            with suppress(OSError):
                file.truncate(before)
            raise


# -- what killed processes left ----------------------------------------------------------------------------------------


def temporary_name(kind: str) -> str:
    """A hidden name, new at each call, that says which process writes there.

    Args:
        kind: "new" of a file, "tmp" of a folder.
    """
    return f".{kind}-{_host()}-{os.getpid()}-{_start(os.getpid())}-{uuid.uuid4().hex[:8]}"


def clear_dead(*folders: Path) -> None:
    """Removes temporary files and folders whose writer does not live any more, straight in these folders."""
    for folder in folders:
        for path in folder.glob(".*"):
            if _TEMPORARY.match(path.name) and _is_dead(path):
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _is_dead(path: Path) -> bool:
    """Whether nobody writes to it: its process has ended or, where that cannot be seen from here, it is old."""
    owner = _OWNER.match(path.name)
    if owner is None or owner[1] != _host():
        try:
            return time.time() - path.stat().st_mtime > FORGOTTEN_SECONDS
        except OSError:
            return False
    started = started_at(int(owner[2]))
    return started is None or int(started) != int(owner[3])


@lru_cache(maxsize=1)
def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


@lru_cache(maxsize=4)
def _start(pid: int) -> int:
    return int(started_at(pid) or 0)
