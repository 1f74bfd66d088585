"""The ledger: states survive, leases are freed by death, fences rise, another experiment's trials are left alone."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from harness.ledger import BusyError, Ledger, TakenOverError
from harness.spec import Trial


def trials(*ids: str) -> list[Trial]:
    return [Trial(i, "toy", 1, {"steps": 10}, seed, "toy") for seed, i in enumerate(ids)]


def budgets(*ids: str) -> dict[str, tuple[int, str]]:
    return dict.fromkeys(ids, (10, "steps"))


@pytest.fixture
def ledger(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    yield ledger
    ledger.close()


def _drive_and_die(path: Path) -> None:
    ledger = Ledger(path)
    with ledger.drive("e", "e.yaml"):
        ledger.claim("e", ["a"])
        ledger.open_cohort("c", "e", ["a", "b"], (), ["a"])
        os._exit(9)


def test_registering_again_keeps_what_is_known(ledger: Ledger):
    ledger.register("e", trials("a", "b"), budgets("a", "b"))
    ledger.set_trials(["a"], state="done", score=0.5, score_name="s")
    ledger.register("e", trials("b", "a", "c"), budgets("a", "b", "c"))
    rows = ledger.trials("e")
    assert [r["id"] for r in rows] == ["b", "a", "c"]
    assert [r["state"] for r in rows] == ["planned", "done", "planned"]


def test_one_driver_at_a_time_and_none_after_its_death(ledger: Ledger, tmp_path: Path):
    ledger.register("e", trials("a", "b"), budgets("a", "b"))
    process = multiprocessing.get_context("spawn").Process(target=_drive_and_die, args=(tmp_path / "ledger.sqlite",))
    process.start()
    process.join()
    assert process.exitcode == 9
    row = ledger.experiment("e")
    assert row is not None
    assert (row["pid"], row["state"], row["alive"], row["lost"]) == (process.pid, "stopped", False, True)
    assert [t["state"] for t in ledger.trials("e")] == ["stopped", "planned"]
    assert ledger.find(["a"])["a"]["state"] == "stopped"
    with ledger.drive("e", "e.yaml"):
        assert ledger.experiment("e")["alive"]
    assert ledger.trials("e")[0]["attempts"] == 1
    assert ledger.trials("e")[1]["attempts"] == 0


def _rewrite(path: Path, **values: Any) -> None:
    """Changes the row of experiment e behind the ledger's back."""
    engine = sa.create_engine(f"sqlite:///{path}")
    sets = ", ".join(f"{name} = :{name}" for name in values)
    with engine.begin() as connection:
        connection.execute(sa.text(f"update experiments set {sets} where name = 'e'"), values)
    engine.dispose()


def test_a_driver_on_another_host_lives_as_long_as_a_reader_sees_its_signs_change(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whatever the two hosts' clocks say: nothing in the row is compared with a time of day."""
    clock = [1000.0]
    monkeypatch.setattr("harness.holding.time.monotonic", lambda: clock[0])
    ledger.register("e", trials("a"), budgets("a"))
    with ledger.drive("e", "e.yaml"):
        ledger.claim("e", ["a"])
        ledger.open_cohort("c", "e", ["a"], (), ["a"])
        _rewrite(tmp_path / "ledger.sqlite", host="elsewhere", updated=0.0)
        states = []
        for beat, seconds in [(7, 0), (7, 119), (8, 119), (8, 119), (8, 121), (9, 0)]:
            clock[0] += seconds
            _rewrite(tmp_path / "ledger.sqlite", beats=beat)
            row = ledger.experiment("e")
            assert row is not None
            assert [t["state"] for t in ledger.trials("e")] == [row["state"]]
            states.append((row["state"], row["alive"], row["lost"]))
    running, stopped = ("running", True, False), ("stopped", False, True)
    assert states == [running, running, running, running, stopped, running]


def test_a_driver_on_another_host_is_watched_before_it_is_taken_over(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("harness.ledger.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("harness.holding.LEASE_SECONDS", 0.2)
    file = tmp_path / "ledger.sqlite"
    second, said = Ledger(file), []
    with ledger.drive("e", "e.yaml"):
        _rewrite(file, host="elsewhere")
        beating = threading.Timer(0.05, lambda: _rewrite(file, beats=1))
        beating.start()
        with pytest.raises(BusyError, match="on elsewhere"), second.drive("e", "e.yaml", said.append):
            pass
        beating.join()
        began = time.monotonic()
        with second.drive("e", "e.yaml", said.append):  # silent now
            assert time.monotonic() - began >= 0.2
            with pytest.raises(TakenOverError, match=f"process {os.getpid()} on .* has taken experiment e over"):
                ledger.set_state("e", "done")
            with pytest.raises(TakenOverError):
                ledger.check_held()
            assert second.experiment("e")["state"] == "running"
    assert ["looking whether it still lives" in text for text in said] == [True, True]
    assert second.experiment("e")["state"] == "stopped"  # the first one's end wrote nothing
    second.close()


def test_a_driver_gives_signs_of_life_whatever_it_waits_for(ledger: Ledger, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("harness.holding.HEARTBEAT_SECONDS", 0.02)
    with ledger.drive("e", "e.yaml"):
        end = time.monotonic() + 10
        while (beats := ledger.experiment("e")["beats"]) < 3 and time.monotonic() < end:
            time.sleep(0.01)
        assert beats >= 3
    beats = ledger.experiment("e")["beats"]
    time.sleep(0.1)
    assert ledger.experiment("e")["beats"] == beats  # a driver that has ended says nothing more


def test_a_step_of_the_clock_does_not_end_a_driver(ledger: Ledger, monkeypatch: pytest.MonkeyPatch):
    with ledger.drive("e", "e.yaml"):
        now = time.time
        monkeypatch.setattr("time.time", lambda: now() + 3600)
        monkeypatch.setattr("psutil.boot_time", lambda: 0.0)
        assert ledger.experiment("e")["alive"]


def _drive_at(path: Path, barrier: Any, told: Any) -> None:
    barrier.wait()
    try:
        ledger = Ledger(path)
        with ledger.drive("e", "e.yaml"):
            told.put("drives")
            time.sleep(0.5)
    except BusyError:
        told.put("busy")
    except Exception as error:
        told.put(f"{type(error).__name__}: {error}")


@pytest.mark.parametrize("row", ["no file yet", "a dead driver"])
def test_of_many_that_start_at_once_one_drives(tmp_path: Path, row: str):
    context = multiprocessing.get_context("fork")
    path = tmp_path / "ledger.sqlite"
    if row == "a dead driver":
        first = context.Process(target=_drive_and_die, args=(path,))
        first.start()
        first.join()
    barrier, told = context.Barrier(8), context.Queue()
    processes = [context.Process(target=_drive_at, args=(path, barrier, told)) for _ in range(8)]
    for process in processes:
        process.start()
    answers = sorted(told.get(timeout=30) for _ in processes)
    for process in processes:
        process.join()
    assert answers == ["busy"] * 7 + ["drives"]


def test_a_driver_that_failed_is_not_running(ledger: Ledger):
    with pytest.raises(ValueError, match="told to"), ledger.drive("e", "e.yaml"):
        raise ValueError("told to")
    row = ledger.experiment("e")
    assert row is not None
    assert (row["state"], row["pid"], row["lost"]) == ("stopped", None, True)


def test_a_living_driver_keeps_others_out_its_own_process_included(ledger: Ledger):
    with ledger.drive("e", "e.yaml"):
        other = Ledger(Path(ledger.place))
        with pytest.raises(BusyError, match="seedbed stop e"), other.drive("e", "e.yaml"):
            pass
        other.close()
    with ledger.drive("e", "e.yaml"):
        pass


def test_a_drive_of_this_process_that_could_not_write_its_end_holds_nothing(ledger: Ledger, tmp_path: Path):
    with ledger.drive("e", "e.yaml"):
        row = dict(ledger.experiment("e"))
    left = {name: row[name] for name in ("host", "pid", "started", "holder")}
    _rewrite(tmp_path / "ledger.sqlite", **left)
    assert not ledger.experiment("e")["alive"]
    with ledger.drive("e", "e.yaml"):
        assert ledger.experiment("e")["alive"]


def test_trials_of_a_living_experiment_are_left_to_it(ledger: Ledger):
    ledger.register("one", trials("a", "b"), budgets("a", "b"))
    ledger.register("two", trials("a", "b"), budgets("a", "b"))
    with ledger.drive("one", "one.yaml"):
        assert ledger.claim("one", ["a"]) == ["a"]
        assert ledger.claim("two", ["a", "b"]) == ["b"]  # queued only, and already left alone
        assert ledger.open_cohort("c", "one", ["a"], (), ["a"]) == 1
        assert ledger.claim("two", ["a", "b"]) == ["b"]
    fences = []
    assert ledger.claim("two", ["a", "b"], lambda *fence: fences.append(fence)) == ["a", "b"]
    assert fences == [("c", 2)]  # a worker of the lost driver must not write any more
    assert ledger.open_cohort("c", "one", ["a"], (), ["a"]) is None
    assert ledger.trials("two")[0]["reused"] is False
    assert ledger.trials("one")[0]["reused"] is True


@pytest.mark.parametrize("state", ["done", "diverged", "failed"])
def test_a_trial_that_ended_meanwhile_is_neither_claimed_nor_opened(ledger: Ledger, state: str):
    ledger.register("e", trials("a", "b"), budgets("a", "b"))
    assert ledger.claim("e", ["a", "b"]) == ["a", "b"]
    ledger.set_trials(["a"], state=state)
    assert ledger.claim("e", ["a", "b"]) == ["b"]
    assert ledger.open_cohort("c", "e", ["a", "b"], (), ["a", "b"]) is None
    assert ledger.open_cohorts("e") == []
    ledger.retry(["a", "b"])
    assert ledger.claim("e", ["a", "b"]) == (["a", "b"] if state == "failed" else ["b"])


def test_fences_rise(ledger: Ledger):
    ledger.register("e", trials("a"), budgets("a"))
    ledger.claim("e", ["a"])
    assert [ledger.open_cohort("c", "e", ["a"], (), ["a"]) for _ in range(3)] == [1, 2, 3]
    assert ledger.trials("e")[0]["attempts"] == 3
