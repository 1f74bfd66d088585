"""The ledger: states survive, leases are freed by death, fences rise, another experiment's trials are left alone."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from harness.ledger import BusyError, Ledger
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


@pytest.mark.parametrize(("silence", "state"), [(60.0, "running"), (200.0, "stopped")])
def test_a_driver_on_another_host_lives_for_its_lease(ledger: Ledger, tmp_path: Path, silence: float, state: str):
    ledger.register("e", trials("a"), budgets("a"))
    with ledger.drive("e", "e.yaml"):
        ledger.claim("e", ["a"])
        ledger.open_cohort("c", "e", ["a"], (), ["a"])
        _rewrite(tmp_path / "ledger.sqlite", host="elsewhere", heard=time.time() - silence)
        row = ledger.experiment("e")
        assert row is not None
        assert (row["state"], row["alive"], row["lost"]) == (state, state == "running", state == "stopped")
        assert [t["state"] for t in ledger.trials("e")] == [state]


def test_a_driver_gives_signs_of_life_whatever_it_waits_for(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("harness.ledger.HEARTBEAT_SECONDS", 0.02)
    with ledger.drive("e", "e.yaml"):
        _rewrite(tmp_path / "ledger.sqlite", heard=0.0)
        end = time.monotonic() + 10
        while (heard := ledger.experiment("e")["heard"]) == 0.0 and time.monotonic() < end:
            time.sleep(0.01)
        assert time.time() - heard < 10
    _rewrite(tmp_path / "ledger.sqlite", heard=0.0)
    time.sleep(0.1)
    assert ledger.experiment("e")["heard"] == 0.0  # a driver that has ended says nothing more


def test_a_driver_that_failed_is_not_running(ledger: Ledger):
    with pytest.raises(ValueError, match="told to"), ledger.drive("e", "e.yaml"):
        raise ValueError("told to")
    row = ledger.experiment("e")
    assert row is not None
    assert (row["state"], row["pid"], row["lost"]) == ("stopped", None, True)


def test_a_living_driver_keeps_others_out(ledger: Ledger, monkeypatch: pytest.MonkeyPatch):
    with ledger.drive("e", "e.yaml"):
        monkeypatch.setattr("harness.ledger.psutil.Process.pid", property(lambda self: -1), raising=False)
        with pytest.raises(BusyError, match="seedbed stop e"), ledger.drive("e", "e.yaml"):
            pass


def test_trials_of_a_living_experiment_are_left_to_it(ledger: Ledger):
    ledger.register("one", trials("a", "b"), budgets("a", "b"))
    ledger.register("two", trials("a", "b"), budgets("a", "b"))
    with ledger.drive("one", "one.yaml"):
        assert ledger.claim("one", ["a"]) == ["a"]
        ledger.open_cohort("c", "one", ["a"], (), ["a"])
        assert ledger.claim("two", ["a", "b"]) == ["b"]
    assert ledger.claim("two", ["a", "b"]) == ["a", "b"]
    assert ledger.trials("two")[0]["reused"] is False
    assert ledger.trials("one")[0]["reused"] is True


def test_fences_rise(ledger: Ledger):
    ledger.register("e", trials("a"), budgets("a"))
    assert [ledger.open_cohort("c", "e", ["a"], (), ["a"]) for _ in range(3)] == [1, 2, 3]
    assert ledger.trials("e")[0]["attempts"] == 3
