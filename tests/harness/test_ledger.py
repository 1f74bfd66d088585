"""The ledger: states survive, leases are freed by death, fences rise, another experiment's trials are left alone."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

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
    assert row["pid"] == process.pid
    assert not row["alive"]
    with ledger.drive("e", "e.yaml"):
        assert ledger.experiment("e")["alive"]
    assert ledger.trials("e")[0]["attempts"] == 1
    assert ledger.trials("e")[1]["attempts"] == 0


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
