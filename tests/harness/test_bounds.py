"""Absurd numbers are one sentence that names the field, before anything is built."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from harness import bounds
from harness.data import DataError
from harness.driver import Driver
from harness.experiment import load_experiment
from harness.spec_errors import SpecError


def load(folder: Path, **entry: object):
    file = folder / "e.yaml"
    file.write_text(json.dumps({"name": "e", "trials": [{"learner": "ppo", **entry}]}))
    return load_experiment(file)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"n_steps": 1e15}, r"trials\.0\.n_steps: 1,000,000,000,000,000 is more than 10,000,000"),
        ({"net": {"depth": 1e6}}, r"trials\.0\.net\.depth: 1,000,000 is more than 1,000"),
        ({"net": {"hidden_features": 1e9}}, r"trials\.0\.net\.hidden_features: 1,000,000,000 is more than"),
        ({"net": {"hidden_features": [4] * 2000}}, r"hidden_features: 2,000 entries are more than 1,000"),
        ({"net": {"hidden_features": [4, 1e9]}}, r"net\.hidden_features\.1: 1,000,000,000 is more than"),
        ({"net": {"hidden_features": 3e6}}, r"net: 9,\d+,\d+,\d+,\d+ weights .* take .* GiB, this machine has .* GiB"),
        ({"n_envs": 1e6, "n_steps": 1e6}, r"trials\.0\.n_steps: a trial would hold .* GiB, more than the .* GiB"),
        ({"n_envs": 1e9}, r"trials\.0\.n_envs: 1,000,000,000 is more than 1,000,000"),
        ({"steps": 1e18}, r"trials\.0\.steps: 1,000,000,000,000,000,000 is more than 1,000,000,000,000,000"),
        ({"grid": {"n_steps": [64, 1e15]}}, r"trials\.0\.grid\.n_steps\.1: 1,000,000,000,000,000 is more than"),
        ({"epochs": 1e9}, r"trials\.0\.epochs: 1,000,000,000 is more than"),
        ({"epochs": 1e7, "n_envs": 1e6}, r"trials\.0\.epochs: a trial would hold .* GiB, more than"),
        ({"learner": "classifier", "batch": 1e9}, r"trials\.0\.batch: 1,000,000,000 is more than"),
        ({"learner": "gan", "latent_features": 1e9}, r"trials\.0\.latent_features: 1,000,000,000 is more than"),
        ({"learner": "sb3", "algo": "ppo", "hyper": {"n_steps": 1e12}}, r"trials\.0\.hyper\.n_steps: .* is more than"),
        ({"resources": {"cpus": 1e9}}, r"trials\.0\.resources\.cpus: .*4096"),
        ({"resources": {"gpus": 99}}, r"trials\.0\.resources\.gpus: .*64"),
        ({"resources": {"device": "cuda:99"}}, r"trials\.0\.resources\.device: .*0 to 63"),
        ({"resources": {"lanes": 1e9}}, r"trials\.0\.resources\.lanes: .*10000"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_absurd_numbers_are_refused_within_seconds(tmp_path: Path, entry: dict, sentence: str):
    began = time.monotonic()
    with pytest.raises(SpecError, match=sentence) as caught:
        load(tmp_path, **entry)
    assert time.monotonic() - began < 10
    assert "\n" not in str(caught.value)


def test_a_missing_data_set_is_still_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(config: object) -> dict[str, int]:
        raise DataError("data set 'x' needs a file: make data")

    monkeypatch.setattr("supervised.config.TrainingConfig.held_bytes", property(missing))
    sentence = r"^\S+e\.yaml:1: trials\.0: data set 'x' needs a file: make data$"
    with pytest.raises(SpecError, match=sentence):
        load(tmp_path, learner="classifier")
    monkeypatch.setattr("supervised.seq2seq.data.pairs", missing)  # a validator of this learner reads its texts
    with pytest.raises(SpecError, match=sentence):
        load(tmp_path, learner="seq2seq")


def test_what_only_the_users_code_understands_is_free(tmp_path: Path):
    call = "tests.own_function:silent"
    (trial,) = load(tmp_path, learner="function", call=call, config={"n_steps": 10**15, "depth": 10**9}).trials
    assert trial.config["config"]["depth"] == 10**9


def test_ray_on_this_machine_is_not_asked_for_more_than_it_has(tmp_path: Path):
    cores = os.cpu_count() or 1
    experiment = load(tmp_path, resources={"cpus": cores + 1})
    with pytest.raises(SpecError, match=rf"trials\.0\.resources\.cpus: {cores + 1} are more than the {cores} of this"):
        Driver(experiment, tmp_path / "runs", executor="ray")
    assert not (tmp_path / "runs").exists()
    Driver(experiment, tmp_path / "runs", executor="inline")
    Driver(experiment, tmp_path / "runs", executor="ray", ray_address="ray.example:6379")


@pytest.mark.parametrize(
    ("device", "gpus", "sentence"),
    [
        ("cuda", 0, "cuda is asked for, but torch sees no CUDA device on this machine; use auto or cpu"),
        ("cuda:5", 2, "cuda:5 is asked for, but torch sees only 2 of them on this machine; use auto or cpu"),
        ("cuda:1", 2, None),
        ("auto", 0, None),
    ],
)
def test_a_device_that_this_machine_lacks_ends_a_run_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, sentence: str | None
):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    experiment = load(tmp_path, resources={"device": device})
    Driver(experiment, tmp_path / "runs", executor="ray", ray_address="ray.example:6379")
    for executor in ("inline", "ray"):
        if sentence is None:
            Driver(experiment, tmp_path / "runs", executor=executor)
            continue
        with pytest.raises(SpecError, match=rf"^trials\.0\.resources\.device: {sentence}"):
            Driver(experiment, tmp_path / "runs", executor=executor)


def test_replay_may_lie_on_the_disk(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bounds, "memory_of_this_machine", lambda: 2**30)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"total": 8 * 2**30}))
    bounds.check_memory({"n_steps": 2**30, "buffer_size": 8 * 2**30})
    with pytest.raises(ValueError, match=r"n_steps: a trial would hold 2\.0 GiB, more than the 1\.0 GiB of"):
        bounds.check_memory({"n_steps": 2 * 2**30})
    with pytest.raises(ValueError, match=r"buffer_size: a trial would hold 9\.0 GiB, more than the 8\.0 GiB"):
        bounds.check_memory({"buffer_size": 9 * 2**30})
