"""The one place that writes files: whole or not at all, one error for a full disk, nothing of a dead writer stays."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from harness import files
from harness.files import NoSpaceError

FULL = Path("/dev/full")  # every write to it finds no space
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def _safetensors() -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def _sqlite() -> None:
    with sqlite3.connect(":memory:") as database:
        database.execute("PRAGMA max_page_count = 2")
        for name in "abcd":
            database.execute(f"CREATE TABLE {name} (x)")


def _sqlalchemy() -> None:
    with sa.create_engine("sqlite://").begin() as c:
        c.exec_driver_sql("PRAGMA max_page_count = 2")
        for name in "abcd":
            c.exec_driver_sql(f"CREATE TABLE {name} (x)")


def _quota() -> None:
    raise OSError(errno.EDQUOT, "Disk quota exceeded")


def _while_tidying() -> None:
    try:
        _quota()
    finally:
        raise RuntimeError("the file cannot be closed")


@needs_full
@pytest.mark.parametrize(
    "write",
    [
        lambda: FULL.write_bytes(b"x"),
        _safetensors,
        _sqlite,
        _sqlalchemy,
        _quota,
        _while_tidying,
    ],
)
def test_every_librarys_word_for_a_full_disk_is_one_error(write: Callable[[], None], tmp_path: Path):
    with (
        pytest.raises(NoSpaceError, match=f"^no space left on the disk of {tmp_path}$") as caught,
        files.room_for(tmp_path),
    ):
        write()
    assert files.disk_trouble(caught.value) == f"no space left on the disk of {tmp_path}"
    with pytest.raises(Exception) as raw:  # also where nobody named a path
        write()
    assert files.disk_trouble(raw.value).startswith("no space left on the disk: ")
    assert "sqlalche.me" not in files.disk_trouble(raw.value)


@pytest.mark.parametrize("number", [errno.EFBIG, errno.EACCES, errno.EMFILE])
def test_other_errors_are_not_a_full_disk(number: int, tmp_path: Path):
    with pytest.raises(OSError) as caught, files.room_for(tmp_path):
        raise OSError(number, os.strerror(number))
    assert caught.value.errno == number
    assert files.disk_trouble(caught.value) == ""


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_a_broken_disk_is_said_to_be_one(number: int):
    text = files.disk_trouble(OSError(number, os.strerror(number)))
    assert text.startswith("the disk cannot be written: ")
    assert os.strerror(number) in text


def test_sqlites_unclear_errors_are_asked_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken() -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
        raise error

    with pytest.raises(sqlite3.OperationalError), files.room_for(tmp_path / "not" / "there"):
        broken()
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 4096}))
    with pytest.raises(NoSpaceError), files.room_for(tmp_path / "not" / "there"):
        broken()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "new" / "a.json"
    files.write_json(target, {"x": 1})
    monkeypatch.setattr("os.fsync", lambda handle: _quota())
    with pytest.raises(NoSpaceError, match=str(target)):
        files.write_json(target, {"x": 2}, durable=True)
    with pytest.raises(NoSpaceError, match=str(target)):
        files.write_tensors(target, {"x": torch.zeros(3)})
    assert target.read_text() == '{\n "x": 1\n}'
    assert os.listdir(target.parent) == ["a.json"]


def test_weights_can_be_read_by_whoever_may_read_the_rest(tmp_path: Path):
    files.write_tensors(tmp_path / "a.safetensors", {"x": torch.ones(3)})
    files.write_text(tmp_path / "a.txt", "x")
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "a.txt").stat().st_mode
    assert torch.equal(load_file(tmp_path / "a.safetensors")["x"], torch.ones(3))
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "a.txt"]


def test_a_temporary_folder_is_not_named_to_the_person(tmp_path: Path):
    with pytest.raises(NoSpaceError) as caught, files.room_for(tmp_path / files.temporary_name("tmp") / "state"):
        _quota()
    assert str(caught.value) == f"no space left on the disk of {tmp_path}"


def test_a_half_appended_line_is_cut_off(tmp_path: Path):
    file = tmp_path / "metrics.jsonl"
    files.append(file, "one line\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (15, before[1]))  # takes a part of the next line, as a full disk does
    try:
        with pytest.raises(OSError) as caught:
            files.append(file, "another line\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert file.read_text() == "one line\n"


def _killed(folder: Path) -> list[Path]:
    """What a process that was killed while it wrote has left."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        left = folder / files.temporary_name("tmp")
        left.mkdir()
        (left / "state.safetensors").write_text("half")
        (folder / files.temporary_name("new")).write_text("half")
        os.write(writing, b"!")
        time.sleep(60)
    os.read(reading, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
    return sorted(folder.glob(".*"))


def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path):
    dead = _killed(tmp_path)
    assert len(dead) == 2
    elsewhere = tmp_path / ".new-00000000-1-1-12345678"  # on a host that cannot be asked
    forgotten = tmp_path / ".tmp-00000000-2-1-12345678"
    reused = tmp_path / f".new-{files._host()}-{os.getpid()}-1-12345678"  # of another process that had our pid
    for path in (elsewhere, reused, tmp_path / ".lock", tmp_path / ".page-old.html"):
        path.touch()
    forgotten.mkdir()
    long_ago = time.time() - 2 * files.FORGOTTEN_SECONDS
    for path in (forgotten, tmp_path / ".lock", tmp_path / ".page-old.html"):
        os.utime(path, (long_ago, long_ago))
    with files.replacing(tmp_path / "a.txt") as mine:
        mine.write_text("mine")
        files.clear_dead(tmp_path, tmp_path / "not there")
        assert sorted(tmp_path.glob(".*")) == sorted([mine, elsewhere, tmp_path / ".lock"])
    assert (tmp_path / "a.txt").read_text() == "mine"
