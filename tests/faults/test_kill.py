"""kill -9 of the driver and of a worker: the same command completes, exactly as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.ledger import Ledger
from tests.invariants import check_invariants, weights

PROJECT = Path(__file__).parents[2]
FILE = """
name: e
trials:
  - {learner: toy, steps: 100, seeds: 3, sleep: 0.01, checkpoint_every: 10, report_every: 2}
  - {learner: toy, steps: 60, seeds: 2, width: 5, sleep: 0.01, checkpoint_every: 10, report_every: 2}
"""
MOMENTS = 50 + 30  # reports of the whole experiment
REAL = """
name: e
seeds: 2
trials:
  - {learner: ppo, env: CartPole-v1, steps: 6144, eval_episodes: 5, report_every: 512, checkpoint_every: 2048}
  - {learner: ppo, env: Acrobot-v1, steps: 4096, eval_episodes: 2, report_every: 512, checkpoint_every: 2048}
  - {learner: gan, data: ring-8, images: 12800, report_every: 1280, checkpoint_every: 2560}
  - {learner: classifier, epochs: 4, report_every: 512, checkpoint_every: 1024, net: {kind: gru}}
"""


class Driven:
    """The experiment driven by a process of its own."""

    def __init__(self, folder: Path, root: str, executor: str, text: str = FILE) -> None:
        file = folder / "e.yaml"
        file.write_text(text)
        self.root = folder / root
        command = [sys.executable, "-m", "tests.drive", str(file), str(self.root), executor]
        self.process = subprocess.Popen(
            command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def reports(self, count: int) -> int:
        """Reads events until so many reports came (or the process ended); returns how many did."""
        seen = 0
        assert self.process.stdout is not None
        while seen < count and (line := self.process.stdout.readline()):
            seen += json.loads(line)["kind"] == "report"
        return seen

    def middle_of(self, label: str) -> None:
        """Reads events until cohorts of a label are between a third and two thirds of their way."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            if event["kind"] == "report" and label in event["label"]:
                share = event["progress"] / event["budget"]
                if 1 / 3 < share < 2 / 3:
                    return
        raise AssertionError(f"{label} was never in the middle: {self.process.communicate()}")

    def kill(self) -> None:
        """kill -9 of the driver alone; waits until the processes it started are gone too.

        Ray's two agents notice within seconds, then try for a minute to reach their dead head before they leave.
        """
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait(10) == -signal.SIGKILL
        _, left = psutil.wait_procs(children, timeout=8)
        agents = [p for p in left if p.name() in ("ray::DashboardAgent", "ray::RuntimeEnvAgent")]
        for process in agents:
            process.kill()
        assert len(agents) == len(left), [p.cmdline() for p in left]

    def finish(self) -> None:
        """Waits for the end."""
        out, err = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, out[-2000:] + err[-2000:]


def in_the_middle(root: Path, driver: str = "dead") -> list[dict[str, Any]]:
    """The trials, after asserting that the kill hit the experiment in the middle; a dead driver's are stopped."""
    ledger = Ledger(root / "ledger.sqlite")
    trials = ledger.trials("e")
    state = "stopped" if driver == "dead" else "running"
    assert ledger.experiment("e")["state"] == state
    assert any(t["state"] == state for t in trials), trials
    return trials


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """sha256 of the final weights of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("oracle")
    driven = Driven(folder, "runs", "inline")
    driven.finish()
    check_invariants(folder / "runs", "e", every=2)
    return weights(folder / "runs", "e")


def killed_and_run_again(folder: Path, executor: str, moment: int, delay: float, oracle: dict[str, str]) -> None:
    driven = Driven(folder, "runs", executor)
    assert driven.reports(moment) == moment
    time.sleep(delay)
    driven.kill()
    before = in_the_middle(driven.root)
    Driven(folder, "runs", executor).finish()
    check_invariants(driven.root, "e", every=2)
    after = {t["id"]: t for t in Ledger(driven.root / "ledger.sqlite").trials("e")}
    for trial in before:
        again = 0 if trial["state"] == "done" else 1
        assert after[trial["id"]]["attempts"] == trial["attempts"] + again
    assert weights(driven.root, "e") == oracle


@pytest.mark.parametrize("moment", [1, 33, 61])
def test_kill_the_driver_inline(tmp_path: Path, moment: int, oracle: dict[str, str]):
    killed_and_run_again(tmp_path, "inline", moment, 0.005, oracle)


def test_kill_the_driver_on_ray(tmp_path: Path, oracle: dict[str, str]):
    killed_and_run_again(tmp_path, "ray", 40, 0.005, oracle)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_kill_the_driver_at_30_random_moments(tmp_path: Path, executor: str, oracle: dict[str, str]):
    rng = random.Random(2)
    for turn in range(30):
        folder = tmp_path / str(turn)
        folder.mkdir()
        killed_and_run_again(folder, executor, rng.randint(1, MOMENTS - 3), rng.random() * 0.03, oracle)


def test_kill_a_ray_worker(tmp_path: Path, oracle: dict[str, str]):
    driven = Driven(tmp_path, "runs", "ray")
    assert driven.reports(30) == 30
    children = psutil.Process(driven.process.pid).children(recursive=True)
    actors = [p for p in children if "_Actor" in p.name() + str(p.cmdline())]
    assert actors
    os.kill(actors[0].pid, signal.SIGKILL)
    in_the_middle(driven.root, driver="alive")
    driven.finish()
    check_invariants(driven.root, "e", every=2)
    trials = Ledger(driven.root / "ledger.sqlite").trials("e")
    assert max(t["attempts"] for t in trials) == 2
    decisions = [d for t in trials for d in Ledger(driven.root / "ledger.sqlite").decisions(t["cohort"])]
    assert any(d["kind"] == "retry" for d in decisions)
    assert weights(driven.root, "e") == oracle


@pytest.mark.slow
def test_kill_real_learners(tmp_path: Path):
    """Four kills, each in another learner: environments, optimisers and averages go on bit for bit."""
    Driven(tmp_path, "whole", "inline", REAL).finish()
    for label in ("gan", "CartPole", "Acrobot", "classifier"):
        driven = Driven(tmp_path, "runs", "inline", REAL)
        driven.middle_of(label)
        driven.kill()
        in_the_middle(driven.root)
    Driven(tmp_path, "runs", "inline", REAL).finish()
    trials = Ledger(tmp_path / "runs" / "ledger.sqlite").trials("e")
    assert {t["state"] for t in trials} == {"done"}
    assert {t["attempts"] for t in trials} == {2}
    assert weights(tmp_path / "runs", "e") == weights(tmp_path / "whole", "e")
    for trial in trials:
        lines = [(tmp_path / root / "trials" / trial["id"] / "metrics.jsonl").read_text() for root in ("whole", "runs")]
        whole, again = ([{**json.loads(x), "seconds": 0} for x in text.splitlines()] for text in lines)
        assert whole == again
