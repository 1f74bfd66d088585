"""The GAN learner: configuration, schedules, learning, what it returns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from generative.gan import GAN, anneal
from harness import data
from harness.learner import Lanes, select
from nets.lanes import Execution


def _start(config, seeds=(0,), mode="eager", dtype=torch.float64):
    learner = GAN()
    return learner, learner.start(Lanes((config,) * len(seeds), tuple(seeds), Execution(mode, dtype=dtype)))


def _config(name="ring-8", **options):
    return GAN.Config(**{"data": name, "batch": 16, "hidden_features": 8, "depth": 1, "images": 1600, **options})


def test_anneal_is_half_a_cosine():
    assert anneal(1.0, 0.2, 0.0) == 1
    assert anneal(1.0, 0.2, 0.5) == pytest.approx(0.6)
    assert anneal(1.0, 0.2, 1.0) == anneal(1.0, 0.2, 2.0) == pytest.approx(0.2)


@pytest.mark.parametrize("name", ["ring-8", "digits"])
def test_defaults_follow_the_data_and_are_resolved(name):
    config = GAN.Config(data=name)
    assert GAN.Config(**config.model_dump(mode="json")) == config
    assert config.budget % config.chunk == 0
    assert config.data_sets == (name,)
    assert GAN.Config(data=name, gamma=7).gamma == 7
    assert set(GAN.Config.per_lane_fields()) == {"lr_g", "lr_d", "gamma"}
    assert GAN.Config(data="digits") != GAN.Config(data="ring-8", **{"hidden_features": config.hidden_features})


def test_hyperparameters_anneal_and_the_average_forgets_ever_less():
    config = _config(gamma=2.0, gamma_end=0.5, lr_g=0.1, lr_end=0.01)
    learner, _ = _start(config)
    first, last = learner._hyperparameters(0), learner._hyperparameters(config.budget)
    assert (first["gamma"].item(), last["gamma"].item()) == (2.0, 1.0)
    assert (first["lr_g"].item(), last["lr_g"].item()) == (0.1, pytest.approx(0.001))
    assert (first["beta2"].item(), last["beta2"].item()) == (0.9, pytest.approx(0.99))
    assert first["ema"] == 0
    assert last["ema"].item() == pytest.approx(0.5 ** (16 / 80))  # a twentieth of 1,600 images


def test_real_rows_are_the_datas_own():
    learner, _ = _start(_config(), seeds=(0, 1))
    real = learner._real(0)
    assert real.shape == (2, 10, 16, 2)
    assert not torch.equal(real[0], real[1])
    distance = torch.cdist(real[0].flatten(0, 1), torch.as_tensor(data.ring_centres())).min(-1).values
    assert distance.max() < 0.12
    learner, _ = _start(_config("digits"))
    images = learner._real(0)[0].flatten(0, 1)
    train = {x.tobytes() for x in data.load("digits")["train"].x}
    assert all(((x + 1) / 2).numpy().astype(np.float32).tobytes() in train for x in images)


def test_points_come_nearer():
    learner, state = _start(
        _config(hidden_features=32, depth=2, batch=64, images=12_800, lr_g=5e-3, lr_d=5e-3),
        dtype=torch.float32,
    )
    before = learner.evaluate(state)
    while int(state["progress"][0]) < learner.lanes.config.budget:
        metrics = learner.advance(state)
    after = learner.evaluate(state)
    assert set(after) == {"frechet", "modes", "min_mode_share", "hq_share", "overlap", "spread"}
    assert set(metrics) == {"d_loss", "g_loss", "r1", "r2", "margin"}
    assert all(value.isfinite().all() for value in metrics.values())
    assert after["frechet"] < 0.5 * before["frechet"]


@pytest.mark.parametrize("name", ["ring-8", "digits"])
def test_network_draws_what_media_show(name):
    learner, state = _start(_config(name), seeds=(0, 1))
    learner.advance(state)
    shown = learner.media(state, 1)["samples"]
    z = learner.lanes.noise("gan/evaluate", 0, (2000, learner.lanes.config.latent_features))[1]
    rows = learner.network(state, 1).double()(z).detach().numpy()
    if name == "ring-8":
        assert shown.kind == "points"
        assert shown.reference.shape == shown.data.shape == (1000, 2)
        np.testing.assert_allclose(shown.data, rows[:1000], rtol=0, atol=1e-6)
    else:
        assert shown.kind == "image"
        assert shown.data.dtype == np.uint8
        assert shown.data.shape == shown.reference.shape == (8 * 9 * 4, 8 * 9 * 4)
        first = np.round(255 * np.clip((rows[0] + 1) / 2, 0, 1))
        np.testing.assert_array_equal(shown.data[:32:4, :32:4], first)


def test_an_ended_lane_stands_still():
    learner, state = _start(_config(), seeds=(0, 1))
    learner.advance(state)
    state["alive"][0] = False
    before = select(state, [0, 1])
    learner.advance(state)
    for tree in ("g", "d", "ema"):
        for name, value in state["params"][tree].items():
            assert torch.equal(value[0], before["params"][tree][name][0])
            assert not torch.equal(value[1], before["params"][tree][name][1])


def test_average_generator_follows_the_trained_one():
    learner, state = _start(_config())
    learner.advance(state)
    for name, value in state["params"]["ema"].items():
        assert not torch.equal(value, state["params"]["g"][name])
        torch.testing.assert_close(value, state["params"]["g"][name], rtol=0, atol=0.1)


@pytest.mark.slow
def test_defaults_cover_the_ring():
    learner, state = _start(GAN.Config(), seeds=(0, 1, 2, 3), dtype=torch.float32)
    while int(state["progress"][0]) < learner.lanes.config.budget:
        learner.advance(state)
    scores = learner.evaluate(state)
    assert (scores["modes"] == 8).all()
    assert scores["min_mode_share"].min() >= 0.05
    assert scores["hq_share"].min() >= 0.65
    assert scores["spread"].min() >= 0.5
    assert scores["spread"].max() <= 2
