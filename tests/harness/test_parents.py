"""Trials that start from another trial's encoder: order, identity, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from harness.driver import Driver
from harness.experiment import SpecError, load_experiment
from harness.learner import BUILTIN, Lanes, State
from harness.spec import TransferConfig
from nets.lanes import module_of
from nets.registry import build
from tests.toy import Toy, ToyConfig


class HeirConfig(ToyConfig, TransferConfig):
    """A toy with a network that has an encoder."""


class Heir(Toy):
    """Its encoder starts from another's and drifts with every step."""

    Config = HeirConfig

    def build(self) -> nn.Module:
        width = self.lanes.config.width
        return build({"kind": "mlp", "hidden_features": width, "depth": 1}, (2,), 1)

    def start(self, lanes: Lanes) -> State:
        state = super().start(lanes)
        _, params, _ = lanes.stack(self.build, "heir/init")
        return {**state, "params": params, "first": {n: p.clone() for n, p in params.items()}}

    def advance(self, state: State) -> dict[str, torch.Tensor]:
        for p in state["params"].values():
            p += 0.01
        return super().advance(state)

    def network(self, state: State, lane: int) -> nn.Module:
        return module_of(self.build, state["params"], {}, lane)

    def companions(self, state: State, lane: int) -> dict[str, nn.Module]:
        return {"first": module_of(self.build, state["first"], {}, lane)}


@pytest.fixture(autouse=True)
def heir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILTIN, "heir", "tests.harness.test_parents:Heir")


def driver_of(folder: Path, text: str, **options: Any) -> Driver:
    file = folder / "e.yaml"
    file.write_text("name: e\n" + text)
    return Driver(load_experiment(file), folder / "runs", executor="inline", **options)


PAIR = """
trials:
  - {learner: heir, steps: 10, seeds: [3, 4]}
  - {learner: heir, steps: 5, seeds: [4, 3], grid: {encoder_from: ["", trials.0]}}
"""


def test_the_encoder_is_that_of_the_trial_of_the_same_seed(tmp_path: Path):
    outcome = driver_of(tmp_path, PAIR).train()
    assert outcome.state == "done"
    trials = tmp_path / "runs" / "trials"
    rows = outcome.trials
    for child, parent in ((rows[4], rows[1]), (rows[5], rows[0])):
        assert child["seed"] == parent["seed"]
        assert child["config"]["encoder_from"] == parent["id"]
        first = load_file(trials / child["id"] / "first.safetensors")
        best = load_file(trials / parent["id"] / "best.safetensors")
        shared = [n for n in first if n.startswith("encoder.")]
        assert shared
        assert all(torch.equal(first[n], best[n]) for n in shared)
        assert not torch.equal(first["head.linear.weight"], best["head.linear.weight"])
    assert rows[2]["config"]["encoder_from"] == ""


def test_the_identity_follows_the_parent(tmp_path: Path):
    def ids(steps: int) -> list[str]:
        (tmp_path / "e.yaml").write_text("name: e\n" + PAIR.replace("steps: 10", f"steps: {steps}"))
        return [t.id for t in load_experiment(tmp_path / "e.yaml").trials]

    same, other = ids(10), ids(11)
    assert same[2:4] == other[2:4]
    assert not {*same[4:]} & {*other[4:]}


def test_a_trial_of_an_earlier_experiment_by_its_id(tmp_path: Path):
    parent = driver_of(tmp_path, "trials: [{learner: heir, steps: 10}]").train().trials[0]
    text = f"trials: [{{learner: heir, steps: 5, encoder_from: '{parent['id']}'}}]"
    assert driver_of(tmp_path, text).train().state == "done"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("trials: [{learner: heir, encoder_from: trials.0}]", "no trials above this entry"),
        ("trials: [{learner: heir, encoder_from: somewhere}]", "encoder_from"),
        ("trials: [{learner: heir, encoder_from: 0123456789abcdef}]", "is not in this run root"),
        (
            "trials: [{learner: heir, grid: {width: [2, 3]}}, {learner: heir, encoder_from: trials.0}]",
            "2 trials of seed 0",
        ),
        ("trials: [{learner: heir, seeds: [5, 6]}, {learner: heir, encoder_from: trials.0}]", "0 trials of seed 0"),
    ],
)
def test_refusals_come_before_anything_is_written(tmp_path: Path, text: str, says: str):
    with pytest.raises(SpecError, match=says):
        driver_of(tmp_path, text).plan()
    assert not (tmp_path / "runs" / "trials").exists()


def test_a_child_of_a_failed_trial_fails_and_is_run_again_with_it(tmp_path: Path):
    text = """
trials:
  - {learner: heir, steps: 10, error_at: 5.0}
  - {learner: heir, steps: 5, encoder_from: trials.0}
  - {learner: heir, steps: 5, lr: 0.2}
"""
    outcome = driver_of(tmp_path, text).train()
    assert [t["state"] for t in outcome.trials] == ["failed", "failed", "done"]
    assert "whose encoder it starts from, is failed" in outcome.trials[1]["reason"]
    again = driver_of(tmp_path, text, retry_failed=True).train()
    assert [t["state"] for t in again.trials] == ["failed", "failed", "done"]
    assert [t["attempts"] for t in again.trials] == [2, 0, 1]


def test_an_encoder_of_another_shape_is_refused(tmp_path: Path):
    text = "trials: [{learner: heir, steps: 10}, {learner: heir, width: 4, steps: 5, encoder_from: trials.0}]"
    outcome = driver_of(tmp_path, text).train()
    assert outcome.trials[1]["state"] == "failed"
    assert "fit" in outcome.trials[1]["reason"]
