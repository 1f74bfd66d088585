"""What can be wrong with the ledger is one sentence with the mend, from each command, without a traceback."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from flows.cli import app
from harness.driver import Driver
from harness.experiment import load_experiment
from harness.files import NoSpaceError
from harness.learner import BUILTIN
from harness.ledger import Ledger, LedgerError
from harness.spec import Trial


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(BUILTIN, "toy", "tests.toy:Toy")
    (tmp_path / "e.yaml").write_text("name: e\ntrials: [{learner: toy, steps: 20, seeds: 2}]\n")
    driver = Driver(load_experiment(tmp_path / "e.yaml"), tmp_path / "runs", executor="inline")
    driver.train()
    driver.ledger.close()
    return tmp_path / "runs"


@contextmanager
def locked(file: Path) -> Iterator[None]:
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.close()


@contextmanager
def damaged(file: Path) -> Iterator[None]:
    for end in ("-wal", "-shm"):
        file.with_name(file.name + end).unlink(missing_ok=True)
    file.write_bytes(b"words " * 3000)
    yield


@contextmanager
def lost(file: Path) -> Iterator[None]:
    file.unlink()
    yield


@contextmanager
def a_folder(file: Path) -> Iterator[None]:
    file.unlink()
    file.mkdir()
    yield


TROUBLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "locked": (locked, "is locked by another program; close that, then run the command again"),
    "damaged": (damaged, "`seedbed repair --root"),
    "a folder": (a_folder, "make its folder writable, or choose another --root"),
}
COMMANDS = {
    "run": ["run", "../e.yaml", "--executor", "inline", "--no-prefect", "--tracker", "files"],
    "plan": ["plan", "../e.yaml"],
    "status": ["status", "e"],
    "logs": ["logs", "0"],
    "report": ["report", "e"],
    "stop": ["stop", "e"],
    "export": ["export", "0"],
}
READERS = ("status", "logs", "report", "stop", "export")


def say(command: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.chdir(root)
    monkeypatch.setenv("COLUMNS", "400")
    done = CliRunner().invoke(app, [*COMMANDS[command], "--root", str(root)])
    assert "Traceback" not in done.output
    return done.exit_code, done.output


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("trouble", TROUBLES)
def test_every_command_says_it_in_one_sentence(
    root: Path, monkeypatch: pytest.MonkeyPatch, trouble: str, command: str
) -> None:
    monkeypatch.setattr("harness.ledger_access.LOCKED_SECONDS", 0.05)
    make, sentence = TROUBLES[trouble]
    with make(root / "ledger.sqlite"):  # type: ignore[attr-defined]
        code, text = say(command, root, monkeypatch)
    if trouble == "locked" and command != "run":
        assert "locked" not in text  # SQLite lets readers read beside one who writes
        return
    if trouble == "a folder" and command in READERS:
        assert code in (1, 2)  # no file: there is no ledger
        return
    assert code == 1, text
    assert sentence in text
    assert len([line for line in text.splitlines() if "ledger.sqlite" in line]) == 1


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_lost_ledger_does_not_train_everything_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    with lost(root / "ledger.sqlite"):
        code, text = say(command, root, monkeypatch)
    assert code == 1
    assert "is missing, though" in text
    assert f"`seedbed repair --root {root}` rebuilds it" in text
    assert not (root / "ledger.sqlite").exists()


def test_a_ledger_deleted_while_it_is_in_use_is_noticed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with ledger.drive("e", "e.yaml"):
        (tmp_path / "ledger.sqlite").unlink()
        with pytest.raises(LedgerError, match="was deleted or replaced while it was in use"):
            ledger.set_state("e", "done")
    ledger.close()


def test_a_lock_that_passes_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    ledger = Ledger(file)
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, connection.execute, ["ROLLBACK"]).start()
    with ledger.drive("e", "e.yaml"):
        assert ledger.experiment("e")["alive"]
    connection.close()
    ledger.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_ledger_that_must_not_be_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "ledger.sqlite").chmod(0o400)
    code, text = say("run", root, monkeypatch)
    assert code in (1, 2)
    assert "writable" in text


def test_a_full_disk_is_told_from_damage(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    trials = [Trial(f"{i:064d}", "toy", 1, {"steps": 10, "text": "x" * 4000}, i, "toy") for i in range(200)]
    with ledger._database.reading() as c:  # SQLite's own limit stands in for the disk's
        pages = c.exec_driver_sql("PRAGMA page_count").scalar()
    sa.event.listen(
        ledger._database._engine, "begin", lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={pages}").scalar()
    )
    with pytest.raises(NoSpaceError, match=f"no space left on the disk of the ledger {tmp_path / 'ledger.sqlite'}"):
        ledger.register("e", trials, {t.id: (10, "steps") for t in trials})
    assert ledger.trials("e") == []
    ledger.close()


def test_a_ledger_of_an_earlier_version_gets_the_columns_that_it_lacks(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    ledger = Ledger(file)
    ledger.register("e", [Trial("a", "toy", 1, {"steps": 10}, 0, "toy")], {"a": (10, "steps")})
    with ledger.drive("e", "e.yaml"):
        pass
    ledger.close()
    connection = sqlite3.connect(file, isolation_level=None)
    for column in ("holder", "beats"):
        connection.execute(f"ALTER TABLE experiments DROP COLUMN {column}")
    connection.execute("ALTER TABLE experiments ADD COLUMN heard FLOAT")  # which they had
    connection.close()
    again = Ledger(file)
    with again.drive("e", "e.yaml"):
        assert again.experiment("e")["beats"] == 0
    assert [t["id"] for t in again.trials("e")] == ["a"]
    again.close()
