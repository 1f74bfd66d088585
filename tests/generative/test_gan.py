"""The GAN learner: configuration, schedules, learning, what it returns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from generative.gan import GAN, anneal
from generative.metrics import frechet_distance, moments
from harness import data
from harness.learner import Lanes, select
from nets.lanes import Execution

WIDER = {
    "generator": {"kind": "mlp-generator", "hidden_features": 32, "depth": 2},
    "net": {"kind": "mlp", "hidden_features": 32, "depth": 2},
}


def _start(config, seeds=(0,), mode="eager", dtype=torch.float64):
    learner = GAN()
    return learner, learner.start(Lanes((config,) * len(seeds), tuple(seeds), Execution(mode, dtype=dtype)))


def _config(name="ring-8", **options):
    small = {"hidden_features": 8, "depth": 1}
    nets = {"generator": {"kind": "mlp-generator", **small}, "net": {"kind": "mlp", **small}}
    return GAN.Config(**{"data": name, "batch": 16, "images": 1600, **nets, **options})


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
    assert set(GAN.Config.per_lane_fields()) == {"lr_g", "lr_d", "gamma", "augment_p"}
    assert GAN.Config(data="digits").net != GAN.Config(data="ring-8").net


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
    real, modes = learner.real("gan/real", 0, (10, 1, 16))
    assert real.shape == (2, 10, 1, 16, 2)
    assert not torch.equal(real[0], real[1])
    distance = (real - torch.as_tensor(data.centres("ring-8"))[modes]).norm(dim=-1)
    assert distance.max() < 0.12
    learner, _ = _start(_config("digits"))
    images = learner.real("gan/real", 0, (10, 1, 16))[0].flatten(0, 3)
    train = {x.tobytes() for x in data.load("digits")["train"].x}
    assert all(((x + 1) / 2).numpy().astype(np.float32).tobytes() in train for x in images)


def test_points_come_nearer():
    learner, state = _start(
        _config(**WIDER, batch=64, images=12_800, lr_g=5e-3, lr_d=5e-3, gamma=0.1),
        dtype=torch.float32,
    )
    held_out = moments(torch.as_tensor(data.load("ring-8")["test"].x.copy()))
    before = frechet_distance(moments(learner.sample(state, 2000)[0]), held_out)
    while int(state["progress"][0]) < learner.lanes.config.budget:
        metrics = learner.advance(state)
    after = learner.evaluate(state)
    assert set(after) >= {"modes", "min_mode_share", "hq_share", "overlap", "spread"}
    assert set(metrics) == {"d_loss", "g_loss", "d_real", "d_fake", "r1", "r2", "d_grad_norm", "g_grad_norm"}
    assert all(value.isfinite().all() for value in metrics.values())
    assert frechet_distance(moments(learner.sample(state, 2000)[0]), held_out) < 0.5 * before


@pytest.mark.parametrize("name", ["ring-8", "digits"])
def test_network_draws_what_is_judged(name):
    learner, state = _start(_config(name), seeds=(0, 1))
    learner.advance(state)
    rows = learner.sample(state, 20)[1]
    z = learner.lanes.noise("gan/evaluate", 0, (20, learner.lanes.config.latent_features))[1]
    drawn = learner.network(state, 1).double()(z)
    torch.testing.assert_close(rows, learner.in_data_range(drawn).detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(learner.sample(state, 7)[1], rows[:7], rtol=0, atol=1e-12)
    assert learner.media(state, 1)


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


CONVOLUTIONAL = {
    "generator": {"kind": "dcgan-generator", "hidden_features": 4},
    "net": {"kind": "dcgan", "hidden_features": 4},
}


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "non-saturating", "penalty": "r1", "penalty_every": 3},
        {"loss": "wasserstein", "penalty": "gradient-penalty", "d_steps": 3, "gamma": 10.0, "gamma_end": 1.0},
        {"conditional": True, "augment": ["colour", "translation", "cutout"]},
        {"loss": "hinge", "penalty": "none", "net": {"kind": "dcgan", "hidden_features": 4, "norm": "batch"}},
        {
            "loss": "hinge",
            "penalty": "none",
            "conditional": True,
            "generator": {"kind": "sngan-generator", "hidden_features": 4},
            "net": {"kind": "sngan", "hidden_features": 4, "depth": 1},
        },
    ],
)
def test_every_way_to_play_trains_both_players(options):
    config = _config("digits", **{**CONVOLUTIONAL, **options})
    learner, state = _start(config, seeds=(0, 1), mode="loop", dtype=torch.float32)
    before = select(state, [0, 1])
    metrics = learner.advance(state)
    assert all(value.isfinite().all() for value in metrics.values())
    for player in ("g", "d", "ema"):
        for name, value in state["params"][player].items():
            if name != "head.linear.bias":  # inside hinge's margins the pulls of both sides on it cancel
                assert not torch.equal(value, before["params"][player][name]), f"{player} {name}"
    rows = learner.sample(state, 12)
    assert rows.shape == (2, 12, 8, 8)
    assert 0 <= rows.min() <= rows.max() <= 1


def test_a_lazy_penalty_is_taken_every_few_updates_and_weighs_so_much_more():
    """The discriminator's slope is the same for gamma every update as for its share every third, on that update."""
    lazy, eager = (_config(penalty="r1", penalty_every=n, gamma=g, images=1600) for n, g in ((3, 0.5), (1, 1.5)))
    states = []
    for config in (lazy, eager):
        learner, state = _start(config)
        batch = [rows[:, 0] for rows in _batch(learner)]
        old = {name: state[name] for name in ("params", "buffers", "optimiser")}
        new, _ = learner._update_each(old, learner._hyperparameters(0), state["alive"], *batch)
        states.append(new["params"]["d"])
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-9, atol=1e-12)
    learner, state = _start(lazy)
    assert "r1" in learner.advance(state)


def _batch(learner):
    config = learner.lanes.config
    shape = (1, 1, config.batch)
    real, labels = learner.real("gan/real", 0, shape)
    z = learner.lanes.noise("gan/latent", 0, (1, 2, config.batch, config.latent_features))
    mix = learner.lanes.noise("gan/mix", 0, shape, "uniform")
    return real, labels, z, mix, learner.lanes.noise("gan/augment", 0, (1, 2, 2, config.batch, 0, 3), "uniform")


def test_a_conditional_generator_makes_what_it_is_asked_for():
    learner, state = _start(_config("digits", conditional=True))
    labels = learner.labels(12)
    assert labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    z = torch.zeros(1, 12, learner.lanes.config.latent_features).double()
    rows = learner._sample_each(state["params"]["ema"], state["buffers"]["g"], z, labels)[0]
    torch.testing.assert_close(rows[0], rows[10])
    assert not torch.equal(rows[0], rows[1])


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"data": "no-such"}, "no-such"),
        ({"data": "ring-8", "augment": ["cutout"]}, "augment"),
        ({"data": "digits", "net": {"kind": "dcgan", "norm": "batch"}}, "net.norm"),
        ({"data": "ring-8", "generator": {"kind": "dcgan-generator"}}, "generator"),
        ({"data": "ring-8", "net": {"kind": "dcgan"}}, "net"),
        ({"data": "digits", "generator": {"kind": "mlp-generator", "classes": 3}}, "generator.classes"),
    ],
)
def test_what_does_not_go_together_is_refused(options, field):
    with pytest.raises(ValueError, match=field):
        GAN.Config(**options)


def test_a_fall_of_coverage_is_said_once_and_of_the_lane_that_fell():
    learner, state = _start(_config(), seeds=(3, 4))
    for modes in ([8, 8], [6, 8], [6, 8], [6, 7], [4, 7]):
        learner._warn_of_collapse({"modes": torch.tensor(modes).double()}, state["alive"])
    assert learner.notes == [
        "seed 3: modes fell from 8 to 6: a collapse?",
        "seed 3: modes fell from 6 to 4: a collapse?",
    ]
    learner._warn_of_collapse({"modes": torch.tensor([1, 1]).double()}, torch.tensor([False, False]))
    assert len(learner.notes) == 2


@pytest.mark.slow
def test_defaults_cover_the_ring():
    learner, state = _start(GAN.Config(), seeds=(0, 1, 2, 3), dtype=torch.float32)
    while int(state["progress"][0]) < learner.lanes.config.budget:
        learner.advance(state)
    scores = learner.evaluate(state)
    assert (scores["modes"] == 8).all()
    assert scores["min_mode_share"].min() >= 0.05
    assert scores["hq_share"].min() >= 0.92
    assert scores["spread"].min() >= 0.8
    assert scores["spread"].max() <= 1.25
