"""The ledger's database: connections, transactions of which one writes at a time, troubles as one sentence each."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from harness import ledger_tables as tables
from harness.files import NoSpaceError, make_folder, room_for

__all__ = ["Database", "LedgerError", "missing_ledger"]

LOCKED_SECONDS = 30.0  # how long a lock is waited for
WRITERS = 0x5EEDBED  # PostgreSQL's advisory lock, which makes writers take turns


class LedgerError(Exception):
    """The ledger cannot be read or written; one sentence that says why, and the mend."""


def missing_ledger(root: Path) -> str:
    """One sentence where a run root holds trials but its ledger is gone; empty otherwise."""
    file = root.resolve() / "ledger.sqlite"
    if file.exists() or not any((file.parent / "trials").glob("*/config.json")):
        return ""
    mend = f"`seedbed repair --root {file.parent}` rebuilds it"
    return f"the ledger {file} is missing, though {file.parent} holds trials; {mend}"


class Database:
    """A ledger's database.

    Args:
        url: SQLAlchemy's, or the path of an SQLite file.
        rebuilt: it is being rebuilt for trials that are there already.

    Raises:
        LedgerError: it cannot be opened.
        NoSpaceError: the disk is full.
    """

    def __init__(self, url: str | Path, rebuilt: bool = False) -> None:
        if isinstance(url, Path) or "://" not in url:
            url = f"sqlite:///{Path(url).resolve()}"
        self._engine = sa.create_engine(url)
        self.name = self._engine.url.render_as_string(hide_password=True)
        self._file: Path | None = None
        self._inode: int | None = None
        if self._engine.dialect.name == "sqlite":
            self._file = Path(self._engine.url.database or "")
            self.name = str(self._file)
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)
        self._writer = self._engine.execution_options(writes=True)
        with self._told():
            if self._file is not None:
                self._check_lost(self._file, rebuilt)
                make_folder(self._file.parent)
            with self._engine.begin() as c:
                complete = tables.is_complete(c)
            if not complete:
                with self._writing() as c:
                    tables.complete(c)
            if self._file is not None:
                self._inode = self._file.stat().st_ino

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that reads."""
        with self._told():
            self._look()
            with self._engine.begin() as c:
                yield c

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that holds the only right to write from its start, so that what it reads stays true."""
        with self._told():
            self._look()
            with self._writing() as c:
                yield c

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._writer.begin() as c:
            if self._engine.dialect.name == "postgresql":
                c.execute(sa.select(sa.func.pg_advisory_xact_lock(WRITERS)))
            yield c

    def _check_lost(self, file: Path, rebuilt: bool) -> None:
        """A new ledger beside old trials would train them all again."""
        if not rebuilt and not file.exists() and (text := missing_ledger(file.parent)):
            raise LedgerError(text)

    def _look(self) -> None:
        """SQLite would go on in a file that was deleted or replaced, where nobody finds it."""
        if self._file is not None and (not self._file.exists() or self._file.stat().st_ino != self._inode):
            raise LedgerError(f"the ledger {self.name} was deleted or replaced while it was in use; {self._mend()}")

    def _mend(self) -> str:
        return f"`seedbed repair --root {self._file.parent}` rebuilds it" if self._file else "ask who runs the database"

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turns the database's own errors into one sentence."""
        try:
            with room_for(self._file) if self._file is not None else nullcontext():
                yield
        except NoSpaceError as error:
            raise NoSpaceError(f"no space left on the disk of the ledger {self.name}") from error
        except (sa.exc.DBAPIError, sqlite3.Error, OSError) as error:
            if (text := self._sentence(error)) is None:
                raise
            raise LedgerError(text) from error

    def _sentence(self, error: Exception) -> str | None:
        why = str(getattr(error, "orig", None) or error)
        if isinstance(error, sa.exc.DBAPIError) and self._file is None:
            return f"the ledger {self.name} cannot be used: {' '.join(why.split())}"
        ledger = f"the ledger {self.name}"
        if "locked" in why or "busy" in why:
            return f"{ledger} is locked by another program; close that, then run the command again"
        if "readonly" in why or "read-only" in why or isinstance(error, PermissionError):
            return f"{ledger} cannot be written; make it and its folder writable, or choose another --root"
        if "unable to open" in why or isinstance(error, OSError):
            return f"{ledger} cannot be opened ({why}); make its folder writable, or choose another --root"
        if any(sign in why for sign in ("not a database", "malformed", "disk I/O error", "no such table", "corrupt")):
            return f"{ledger} is damaged ({why}); {self._mend()}"
        return None


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says so, not before the first write
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(LOCKED_SECONDS * 1000)}")
    end = time.monotonic() + LOCKED_SECONDS
    while True:
        try:  # several first starts at once: this one change of the file does not wait for a lock by itself
            cursor.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
