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
from harness.learner import BUILTIN, Lanes, State, learner_class
from harness.spec import SyntheticConfig, TransferConfig, Trial
from nets.lanes import module_of
from nets.registry import build
from nets.transfer import load_encoders
from tests.toy import Toy, ToyConfig


class HeirConfig(ToyConfig, TransferConfig):
    """A toy with a network that has an encoder."""


class PupilConfig(HeirConfig, SyntheticConfig):
    """An heir that also learns from another trial's rows."""

    def check_parent(self, field: str, parent: Trial) -> None:
        if field == "synthetic_from" and parent.config["width"] != self.width:
            raise ValueError(f"synthetic_from: {parent.label} is {parent.config['width']} wide, not {self.width}")


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


class Pupil(Heir):
    """It keeps what it was given."""

    Config = PupilConfig

    def companions(self, state: State, lane: int) -> dict[str, nn.Module]:
        taught = self.lanes.samplers[lane]
        return super().companions(state, lane) | ({"taught": taught} if taught else {})


@pytest.fixture(autouse=True)
def heir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILTIN, "heir", "tests.harness.test_parents:Heir")
    monkeypatch.setitem(BUILTIN, "pupil", "tests.harness.test_parents:Pupil")


def written(folder: Path, text: str) -> Path:
    file = folder / "e.yaml"
    file.write_text("name: e\n" + text)
    return file


def driver_of(folder: Path, text: str, **options: Any) -> Driver:
    return Driver(load_experiment(written(folder, text)), folder / "runs", executor="inline", **options)


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


CLASSIFIER = "learner: classifier, updates: 8, evaluate_every: 512"
WIDE = "net: {kind: mlp, hidden_features: 16, depth: 2}"


@pytest.mark.parametrize(
    ("parent", "child", "says"),
    [
        (
            f"{CLASSIFIER}, data: digits, {WIDE}",
            f"{CLASSIFIER}, data: digits, {WIDE.replace('16', '8')}",
            "does not fit",
        ),
        (f"{CLASSIFIER}, data: digits, {WIDE}", f"{CLASSIFIER}, data: mnist-1d, {WIDE}", r"\[16, 64\] does not fit"),
        (f"{CLASSIFIER}, data: digits, net: {{kind: cnn}}", f"{CLASSIFIER}, data: digits, {WIDE}", "not"),
        ("learner: gan, data: digits", f"{CLASSIFIER}, data: digits, {WIDE}", "not"),
        ("learner: vae, data: digits", f"{CLASSIFIER}, data: digits, {WIDE.replace('16', '8')}", "not"),
        ("learner: ppo, env: CartPole-v1", "learner: dqn, env: Acrobot-v1", "not"),
        ("learner: ppo, env: CartPole-v1", "learner: dqn, env: CartPole-v1, net: {hidden_features: [9, 9]}", "not"),
    ],
)
def test_the_plan_refuses_an_encoder_of_another_shape(tmp_path: Path, parent: str, child: str, says: str):
    text = f"trials: [{{{parent}}}, {{{child}, encoder_from: trials.0}}]"
    with pytest.raises(SpecError, match=rf"trials\.1: encoder_from: the encoder of .* \(trials\.0\) .*{says}"):
        driver_of(tmp_path, text)


@pytest.mark.parametrize(
    ("parent", "child"),
    [
        (f"{CLASSIFIER}, data: digits, {WIDE}", f"{CLASSIFIER}, data: digits, {WIDE}, lr: 1e-3"),
        ("learner: vae, data: digits, encoder: {kind: cnn, norm: none}", "learner: ppo, env: CartPole-v1"),
        ("learner: ppo, env: CartPole-v1", "learner: a2c, env: CartPole-v1"),
        ("learner: sac, env: Pendulum-v1", "learner: td3, env: Pendulum-v1"),
    ],
)
def test_the_plan_says_the_same_as_the_training(tmp_path: Path, parent: str, child: str):
    """A plan that passes is one whose child can start from the parent's own weights, and the other way round."""
    own = [load_experiment(written(tmp_path, f"trials: [{{{one}}}]")).trials[0] for one in (parent, child)]
    nets = [build(*learner_class(t.learner).Config.model_validate(t.config).encoder_recipe) for t in own]
    try:
        load_encoders(nets[1], nets[0].state_dict())
    except ValueError:
        with pytest.raises(SpecError, match="does not fit this network"):
            load_experiment(written(tmp_path, f"trials: [{{{parent}}}, {{{child}, encoder_from: trials.0}}]"))
    else:
        load_experiment(written(tmp_path, f"trials: [{{{parent}}}, {{{child}, encoder_from: trials.0}}]"))


def test_an_encoder_that_is_there_is_looked_at_by_the_plan(tmp_path: Path):
    given = driver_of(tmp_path, f"trials: [{{{CLASSIFIER}, data: digits, {WIDE}}}]").train().trials[0]["id"]
    fits = f"trials: [{{{CLASSIFIER}, data: digits, {WIDE}, lr: 1e-3, encoder_from: '{given}'}}]"
    assert len(driver_of(tmp_path, fits).plan().due) == 1
    with pytest.raises(SpecError, match=f"encoder_from: the encoder of trial {given} does not fit"):
        driver_of(tmp_path, fits.replace("16", "8")).plan()


def test_a_vae_hands_on_its_encoder(tmp_path: Path):
    text = f"""
trials:
  - {{learner: vae, data: digits, images: 1280, samples: 100, encoder: {WIDE[5:]}}}
  - {{{CLASSIFIER}, data: digits, {WIDE}, encoder_from: trials.0}}
"""
    outcome = driver_of(tmp_path, text).train()
    assert [row["state"] for row in outcome.trials] == ["done", "done"]


TWO_KINDS = """
trials:
  - {learner: heir, steps: 10, seeds: 2}
  - {learner: heir, steps: 12, seeds: 2}
  - {learner: pupil, steps: 5, seeds: 2, encoder_from: trials.0, grid: {synthetic_from: ["", trials.1]}}
"""


def test_parents_of_both_kinds_each_lane_its_own(tmp_path: Path):
    outcome = driver_of(tmp_path, TWO_KINDS).train()
    assert outcome.state == "done"
    folder, rows = tmp_path / "runs" / "trials", outcome.trials
    for child, teacher in ((rows[6], rows[2]), (rows[7], rows[3])):
        assert child["config"]["synthetic_from"] == teacher["id"]
        taught, best = (
            load_file(folder / i / f)
            for i, f in ((child["id"], "taught.safetensors"), (teacher["id"], "best.safetensors"))
        )
        assert all(torch.equal(taught[n], best[n]) for n in best)
    for child, parent in zip(rows[4:], rows[:2] * 2, strict=True):
        first, best = (
            load_file(folder / i / f)
            for i, f in ((child["id"], "first.safetensors"), (parent["id"], "best.safetensors"))
        )
        assert torch.equal(first["encoder.layers.0.weight"], best["encoder.layers.0.weight"])
    assert not (folder / rows[4]["id"] / "taught.safetensors").exists()


def test_one_parent_by_its_id_beside_one_of_the_same_file_and_both_wait(tmp_path: Path):
    given = driver_of(tmp_path, "trials: [{learner: heir, steps: 10}]").train().trials[0]["id"]
    pupil = f"{{learner: pupil, encoder_from: '{given}', synthetic_from: trials.0}}"
    child = driver_of(tmp_path, f"trials: [{{learner: heir, steps: 11}}, {pupil}]").experiment.trials[1]
    assert set(child.parents) == {given, child.config["synthetic_from"]}


def test_a_parent_of_the_same_file_that_cannot_give_what_is_needed_is_refused(tmp_path: Path):
    text = "trials: [{learner: heir}, {learner: pupil, width: 4, synthetic_from: trials.0}]"
    with pytest.raises(SpecError, match=r"trials\.1: synthetic_from: heir is 3 wide, not 4"):
        driver_of(tmp_path, text)
    lost = "trials: [{learner: heir, error_at: 5.0, steps: 10}, {learner: pupil, synthetic_from: trials.0}]"
    assert "whose rows it learns from, is failed" in driver_of(tmp_path, lost).train().trials[1]["reason"]
    with pytest.raises(SpecError, match="synthetic_from: trial 0123456789abcdef is not in this run root"):
        driver_of(tmp_path, "trials: [{learner: pupil, synthetic_from: 0123456789abcdef}]").plan()
