"""Rivals in processes of their own: many commands at once after a kill, shared trials, drivers on two hosts."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["tests.faults.test_rivals", "harness.driver", "harness.function"])
ROUNDS = int(os.environ.get("SEEDBED_RIVALS", "50"))
TRAIN = """
import os, time
def train(run):
    step = (run.restore() or {"step": 0})["step"]
    with open(os.path.join(os.path.dirname(__file__), "starts"), "a") as file:
        file.write(f"{os.getpid()} from {step}\\n")
    while step < STEPS:
        time.sleep(PACE)
        step += 1
        run.log(step, score=float(step))
        if step % 5 == 0:
            run.checkpoint({"step": step})
"""


def drive(file: str, root: str, at: float, host: str, said: Any) -> None:
    """Runs an experiment from a moment on, as a process of some host; leases are short."""
    import socket

    from harness import holding
    from harness.driver import Driver
    from harness.experiment import load_experiment
    from harness.ledger import BusyError, TakenOverError

    os.setsid()
    if host:
        socket.gethostname = lambda: host  # type: ignore[assignment]
    holding.LEASE_SECONDS, holding.HEARTBEAT_SECONDS = 3.0, 0.3
    while time.time() < at:
        pass
    try:
        outcome = Driver(load_experiment(Path(file)), Path(root), executor="inline").train()
        said.put((os.getpid(), outcome.state))
    except TakenOverError:
        said.put((os.getpid(), "taken over"))
    except BusyError:
        said.put((os.getpid(), "busy"))
    except Exception as error:
        said.put((os.getpid(), repr(error)))


class Field:
    """A run root, and processes that run experiments in it."""

    def __init__(self, folder: Path, steps: int, pace: float) -> None:
        self.folder, self.root, self.said = folder, folder / "root", forks.Queue()
        code = TRAIN.replace("STEPS", str(steps)).replace("PACE", str(pace))
        (folder / "rival_train.py").write_text(code)
        self.write("e", f"[{{learner: function, call: 'rival_train:train', steps: {steps}}}]")

    def write(self, name: str, trials: str) -> None:
        (self.folder / f"{name}.yaml").write_text(f"name: {name}\ntrials: {trials}\n")

    def start(self, name: str = "e", at: float = 0.0, host: str = "") -> Any:
        arguments = (str(self.folder / f"{name}.yaml"), str(self.root), at, host, self.said)
        process = forks.Process(target=drive, args=arguments)
        process.start()
        return process

    def until(self, there: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not there() and time.monotonic() < end:
            time.sleep(0.005)
        assert there()

    def checkpointed(self) -> bool:
        return any(self.root.glob("cohorts/*/ckpt-*"))

    def answers(self, processes: list[Any], seconds: float = 120) -> list[str]:
        found = sorted(self.said.get(timeout=seconds)[1] for _ in processes)
        for process in processes:
            process.join(seconds)
        return found

    def lines(self) -> list[list[int]]:
        files = sorted(self.root.glob("trials/*/metrics.jsonl"))
        return [[json.loads(line)["progress"] for line in file.read_text().splitlines()] for file in files]

    def host(self) -> str:
        with contextlib.closing(sqlite3.connect(self.root / "ledger.sqlite")) as connection:
            return str(connection.execute("select host from experiments").fetchone()[0])

    def starts(self) -> int:
        return len((self.folder / "starts").read_text().splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("drivers", [10, 2])
def test_one_of_many_that_start_at_once_after_a_kill(tmp_path: Path, drivers: int):
    wrong = []
    for k in range(ROUNDS):
        folder = tmp_path / str(k)
        folder.mkdir()
        field = Field(folder, 10, 0.05)
        first = field.start()
        field.until(field.checkpointed)
        os.kill(first.pid, signal.SIGKILL)
        first.join()
        at = time.time() + 0.5
        answers = field.answers([field.start(at=at) for _ in range(drivers)])
        right = answers == ["busy"] * (drivers - 1) + ["done"]
        if not right or field.lines() != [list(range(1, 11))] or field.starts() != 2:
            wrong.append((k, answers, field.lines(), field.starts()))
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(20))
def test_experiments_that_share_a_trial_train_it_once(tmp_path: Path, moment: int):
    field = Field(tmp_path, 12, 0.05)
    entry = "{{learner: function, call: 'rival_train:train', steps: 12, seeds: [{}]}}"
    field.write("a", "[" + entry.format("1, 2, 3") + "]")
    field.write("b", "[" + entry.format("2, 4") + "]")
    first = field.start("a")
    field.until(lambda: (field.root / "ledger.sqlite").exists())
    time.sleep(0.12 * moment)
    assert field.answers([first, field.start("b")]) == ["done", "done"]
    assert field.lines() == [list(range(1, 13))] * 4
    assert field.starts() == 4
    with contextlib.closing(sqlite3.connect(field.root / "ledger.sqlite")) as connection:
        assert connection.execute("select state, attempts from trials").fetchall() == [("done", 1)] * 4


@pytest.mark.slow
@pytest.mark.parametrize("longer", [False, True], ids=["shorter than the lease", "longer"])
def test_a_driver_that_sleeps_and_one_on_another_host(tmp_path: Path, longer: bool):
    field = Field(tmp_path, 60, 0.1)
    first = field.start()
    field.until(field.checkpointed)
    os.kill(first.pid, signal.SIGSTOP)
    second = field.start(host="elsewhere")
    if longer:
        field.until(lambda: field.host() == "elsewhere")
    os.kill(first.pid, signal.SIGCONT)
    answers = field.answers([first, second])
    assert answers == (["done", "taken over"] if longer else ["busy", "done"])
    assert field.lines() == [list(range(1, 61))]
    assert field.starts() == (2 if longer else 1)


@pytest.mark.slow
def test_the_other_one_goes_on_from_the_checkpoint_of_a_dead_experiment(tmp_path: Path):
    field = Field(tmp_path, 40, 0.1)
    field.write("other", "[{learner: function, call: 'rival_train:train', steps: 40}]")
    first = field.start()
    field.until(field.checkpointed)
    second = field.start("other")
    time.sleep(1.0)
    assert field.starts() == 1  # it waits
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert field.answers([second]) == ["done"]
    assert field.lines() == [list(range(1, 41))]
    restarted = (tmp_path / "starts").read_text().splitlines()[1]
    assert int(restarted.split()[-1]) >= 5
