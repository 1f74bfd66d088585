"""The kill campaign: SIGKILL at named points and at random moments; the same command ends as if nothing had happened.

Parts of it: `-k "moments and ppo"`, and SEEDBED_KILLS, the random kills of each case. With SEEDBED_KILL_REPORT a
line for each part is appended to that file.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from harness.ledger import Ledger
from nets.lanes import has_compiler
from tests.conformance.test_learners import TINY
from tests.faults.points import POINTS
from tests.invariants import check_invariants, facts

TOY = """
name: e
trials:
  - {learner: toy, steps: 60, seeds: 3, checkpoint_every: 10, report_every: 5, resources: {mode: eager}}
  - {learner: toy, steps: 40, seeds: 2, width: 5, checkpoint_every: 10, report_every: 5, resources: {mode: eager}}
"""
KILLS = int(os.environ.get("SEEDBED_KILLS", "7"))  # of each of 32 cases: 224
CHUNKS = 10
COMPILED = ("ppo", "dqn", "classifier mlp", "gan ring-8", "vae ring-8")

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["tests.faults.test_campaign", "harness.driver", "agents.ppo", "wandb"])


def drive(file: str, root: str, learner: str, executor: str, point: str) -> None:
    """Runs an experiment in a process of its own.

    Args:
        file: the experiment.
        root: the run root.
        learner: whose trials train ten chunks, whatever their budget says; "" for none.
        executor: "inline" or "ray".
        point: where it is killed; "" for nowhere.
    """
    import torch

    from harness.driver import Driver
    from harness.experiment import load_experiment
    from harness.learner import BUILTIN, learner_class
    from tests.faults.points import install

    os.setsid()
    log = os.open(f"{root}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    BUILTIN["toy"] = "tests.toy:Toy"
    if learner:
        learner_class(learner).Config.budget = property(lambda self: CHUNKS * self.chunk)
    if point:
        os.environ["SEEDBED_TEST_POINT"] = f"{point}|{root}.count|{os.getpid()}"
        install(point, Path(f"{root}.count"))
    outcome = Driver(load_experiment(Path(file)), Path(root), executor=executor).train()
    os._exit(outcome.exit_code)


class Case:
    """One experiment, run whole and killed again and again."""

    def __init__(self, folder: Path, text: str, learner: str = "", executor: str = "inline") -> None:
        self.folder, self.learner, self.executor = folder, learner, executor
        (folder / "e.yaml").write_text(text)

    def start(self, root: Path, point: str = "") -> Any:
        arguments = (str(self.folder / "e.yaml"), str(root), self.learner, self.executor, point)
        process = forks.Process(target=drive, args=arguments)
        process.start()
        return process

    def finish(self, root: Path) -> float:
        """Runs to the end; returns the seconds it took."""
        began = time.monotonic()
        process = self.start(root)
        process.join(300)
        assert process.exitcode == 0, Path(f"{root}.log").read_text()[-2000:]
        return time.monotonic() - began


def left_behind(root: Path) -> list[str]:
    """Temporary files of cohorts and trials; the command, not the driver, clears an experiment's own folder."""
    return [str(path.relative_to(root)) for part in ("cohorts", "trials") for path in (root / part).rglob(".*")]


def report(text: str) -> None:
    print(text)
    if file := os.environ.get("SEEDBED_KILL_REPORT"):
        with Path(file).open("a") as opened:
            opened.write(text + "\n")


def killed_at_points(folder: Path, executor: str, names: list[str]) -> None:
    case = Case(folder, TOY)
    case.finish(folder / "whole")
    case.executor = executor
    whole = facts(folder / "whole")
    assert len(whole) == 5
    for name in names:
        root = folder / "runs"
        process = case.start(root, name)
        process.join(120)
        assert process.exitcode == -9, name
        assert "killed" in Path(f"{root}.count").read_text(), name
        case.finish(root)
        assert facts(root) == whole, name
        check_invariants(root, "e", every=5)
        assert left_behind(root) == [], name
        shutil.rmtree(root)
        Path(f"{root}.count").unlink()
    report(f"{len(names)} points, {executor}: all equal")


def test_a_kill_at_a_named_point(tmp_path: Path):
    killed_at_points(tmp_path, "inline", ["oldest checkpoint is half gone"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("executor", ["inline", "ray"])
@pytest.mark.parametrize("part", range(7))
def test_a_kill_at_every_named_point(tmp_path: Path, part: int, executor: str):
    killed_at_points(tmp_path, executor, list(POINTS)[part * 3 : part * 3 + 3])


def text_of(name: str, mode: str) -> str:
    """An experiment of a case: two seeds, ten chunks, a report after each, a checkpoint after every second."""
    from harness.learner import learner_class

    learner, fields = name.split()[0], TINY[name][0]
    chunk = learner_class(learner).Config(**fields).chunk
    rhythm = {"report_every": chunk, "checkpoint_every": 2 * chunk, "evaluate_every": 5 * chunk}
    trial = {"learner": learner, **fields, **rhythm, "seeds": [11, 5], "resources": {"mode": mode}}
    return json.dumps({"name": "e", "trials": [trial]})


def killed_at_moments(folder: Path, name: str, mode: str, kills: int, exact: bool = True) -> None:
    case = Case(folder, text_of(name, mode), name.split()[0])
    case.finish(folder / "warm-up")  # what is compiled or unpacked once
    seconds = case.finish(folder / "whole")
    whole = facts(folder / "whole")
    assert len(whole) == 2
    rng, in_time, states = random.Random(name + mode), 0, []
    while in_time < kills:
        root = folder / f"killed-{in_time}"
        process = case.start(root)
        time.sleep(rng.uniform(0.01, 1.0) * seconds)
        process.kill()
        process.join()
        if process.exitcode == 0:  # it was faster this time
            shutil.rmtree(root)
            continue
        in_time += 1
        case.finish(root)
        found = facts(root)
        if exact:
            assert found == whole
        else:
            states.append(found == whole)
            for trial in whole:
                one, two = (load_file(r / "trials" / trial / "final.safetensors") for r in (root, folder / "whole"))
                assert_close(one, two, rtol=1e-5, atol=1e-6)
                assert [row["progress"] for row in found[trial][1]] == [row["progress"] for row in whole[trial][1]]
        assert not Ledger(root / "ledger.sqlite").experiment("e")["alive"]
        assert left_behind(root) == []
        shutil.rmtree(root)
    equal = "all equal" if exact else f"{sum(states)} with equal bits, all within 1e-5"
    report(f"{name}, {mode}: {kills} kills in {seconds:.2f} s: {equal}")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", TINY)
def test_a_kill_at_random_moments(tmp_path: Path, name: str):
    killed_at_moments(tmp_path, name, "eager", KILLS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not has_compiler(), reason="compiling lanes needs a C++ compiler")
@pytest.mark.parametrize("name", COMPILED)
def test_a_kill_at_random_moments_of_compiled_lanes(tmp_path: Path, name: str):
    killed_at_moments(tmp_path, name, "compiled", 4, exact=False)
