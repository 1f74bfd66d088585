"""Several workers train one cohort together: the same numbers as one worker, also when one of them is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from harness import load
from harness.driver import Driver
from harness.experiment import load_experiment
from harness.ledger import Ledger
from harness.spec_errors import SpecError
from tests.faults.test_kill import Driven
from tests.invariants import check_invariants

ONE = """
name: e
trials:
  - learner: classifier
    data: digits
    epochs: 8
    batch: 32
    accumulate: {accumulate}
    report_every: 256
    evaluate_every: 1536
    checkpoint_every: 512
    seeds: 2
    net: {{kind: mlp, hidden_features: 32}}
    resources: {{mode: eager, workers: {workers}}}
"""
ALONE, TOGETHER = ONE.format(accumulate=2, workers=1), ONE.format(accumulate=1, workers=2)


def networks(root: Path) -> list[dict]:
    """Final weights in the order of seeds."""
    trials = Ledger(root / "ledger.sqlite").trials("e")
    return [load_file(root / "trials" / t["id"] / "final.safetensors") for t in sorted(trials, key=lambda t: t["seed"])]


def curves(root: Path):
    """What was measured, in the order of seeds."""
    frame = load("e", root).metrics().sort_values(["seed", "progress"])
    return frame.drop(columns=["trial", "label", "seconds"]).reset_index(drop=True)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run root of two workers that nothing disturbed."""
    folder = tmp_path_factory.mktemp("together")
    driven = Driven(folder, "runs", "ray", TOGETHER)
    driven.finish()
    return driven.root


def test_two_workers_train_what_one_does_with_the_batch_in_two_parts(together, tmp_path):
    alone = Driven(tmp_path, "runs", "inline", ALONE)
    alone.finish()
    for one, two in zip(networks(alone.root), networks(together), strict=True):
        assert_close(two, one, rtol=1e-4, atol=1e-6)
    one, two = curves(alone.root), curves(together)
    assert list(one.columns) == list(two.columns)
    assert (one.progress == two.progress).all()
    assert (one["loss"] - two["loss"]).abs().max() < 1e-4
    check_invariants(together, "e", every=256)
    assert not list((together / "cache" / "gangs").glob("*"))


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_kill_one_of_two_workers(together, tmp_path, rank):
    driven = Driven(tmp_path, "runs", "ray", TOGETHER)
    assert driven.reports(10) == 10
    actors = [p for p in psutil.Process(driven.process.pid).children(recursive=True) if "_Actor" in str(p.cmdline())]
    assert len(actors) == 2
    os.kill(sorted(a.pid for a in actors)[rank], signal.SIGKILL)
    driven.finish()
    for found, expected in zip(networks(driven.root), networks(together), strict=True):
        assert_close(found, expected, rtol=0, atol=0)
    check_invariants(driven.root, "e", every=256)
    log = (driven.root / "experiments" / "e" / "driver.log").read_text()
    assert log.count("its worker died") == 1


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (TOGETHER, "need Ray: leave out --executor inline"),
        (TOGETHER.replace("workers: 2", "workers: 3"), "3 workers cannot share 32 rows of a batch equally"),
        ("name: e\ntrials:\n  - {learner: ppo, resources: {workers: 2}}\n", "`ppo` trains in one worker; leave it out"),
    ],
)
def test_what_cannot_be_shared_is_refused_before_anything_starts(tmp_path, text, what):
    file = tmp_path / "e.yaml"
    file.write_text(text)
    with pytest.raises(SpecError, match=what):
        Driver(load_experiment(file), tmp_path / "runs", executor="inline")
    assert not (tmp_path / "runs").exists()


def test_more_workers_than_cores_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    file = tmp_path / "e.yaml"
    file.write_text(TOGETHER)
    with pytest.raises(SpecError, match="2 workers of 1 CPUs need more than the 1 of this machine"):
        Driver(load_experiment(file), tmp_path / "runs", executor="ray")
