"""The VAE: likelihoods, divergence and bounds against closed forms, the learner."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from generative.pictures import grid
from generative.vae import VAE, active_units, bernoulli_nll, gaussian_kl, gaussian_nll, importance_bound
from harness import data
from harness.learner import Lanes, learner_class
from nets.lanes import Execution


def _rows(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _start(seeds=(0,), dtype=torch.float64, **options):
    learner, config = VAE(), VAE.Config(**options)
    return learner, learner.start(Lanes((config,) * len(seeds), tuple(seeds), Execution("eager", dtype=dtype)))


def _small(**options):
    nets = {name: {"hidden_features": 8, "depth": 1} for name in ("encoder", "decoder")}
    return {"images": 1600, "batch": 16, "samples": 100, "latent_features": 3, **nets, **options}


def test_divergence_equals_torchs():
    mean, log_var = _rows(5, 3), _rows(5, 3, seed=1)
    expected = kl_divergence(Normal(mean, (0.5 * log_var).exp()), Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(gaussian_kl(mean, log_var), expected)
    assert gaussian_kl(torch.zeros(2), torch.zeros(2)) == 0


def test_likelihoods_equal_torchs():
    y, x, log_std = _rows(4, 2, 3).tanh(), _rows(4, 2, 3, seed=1), torch.tensor(-0.7, dtype=torch.float64)
    expected = -Normal(y, log_std.exp()).log_prob(x).sum((1, 2))
    torch.testing.assert_close(gaussian_nll(y, x, log_std), expected)
    pixels = (x > 0).double()
    expected = -Bernoulli((y + 1) / 2).log_prob(pixels).sum((1, 2))
    torch.testing.assert_close(bernoulli_nll(y, 2 * pixels - 1), expected, rtol=1e-3, atol=1e-3)


def test_a_grey_pixel_is_likeliest_under_its_own_value():
    x = torch.full((99, 1), -0.4, dtype=torch.float64)
    y = torch.linspace(-0.98, 0.98, 99, dtype=torch.float64).unsqueeze(-1)
    assert y[bernoulli_nll(y, x).argmin()].item() == pytest.approx(-0.4, abs=0.021)


def test_saturated_pixels_cost_something_finite_and_pull_back():
    y = torch.ones(1, 1, requires_grad=True)
    cost = bernoulli_nll(y, -torch.ones(1, 1))
    cost.backward()
    assert 5 < cost.item() < 15
    assert y.grad.item() > 0


def test_importance_bound_is_exact_for_a_linear_model_and_its_true_posterior():
    """p(z) = N(0, 1), p(x | z) = N(z, 1): the posterior is N(x / 2, 1 / 2), and p(x) = N(0, 2) whatever is drawn."""
    x, eps = _rows(6), _rows(4, 6, seed=1)
    z = x / 2 + math.sqrt(0.5) * eps
    log_q = Normal(x / 2, math.sqrt(0.5)).log_prob(z)
    log_weights = Normal(0.0, 1.0).log_prob(z) + Normal(z, 1.0).log_prob(x) - log_q
    torch.testing.assert_close(importance_bound(log_weights), Normal(0.0, math.sqrt(2)).log_prob(x))


def test_active_units_are_those_whose_mean_moves():
    means = torch.stack([torch.linspace(-1, 1, 50), torch.full((50,), 3.0), torch.linspace(0, 0.1, 50)], -1)
    assert active_units(means) == 1


def test_the_learner_is_registered_and_its_configuration_checked():
    assert learner_class("vae") is VAE
    assert (VAE.Config().likelihood, VAE.Config(data="digits").likelihood) == ("gaussian", "bernoulli")
    with pytest.raises(ValueError, match="likelihood: points"):
        VAE.Config(data="ring-8", likelihood="bernoulli")
    with pytest.raises(ValueError, match="decoder: 'dcgan-generator' makes images"):
        VAE.Config(data="ring-8", decoder={"kind": "dcgan-generator"})
    with pytest.raises(ValueError, match=r"decoder\.classes: say conditional"):
        VAE.Config(data="digits", decoder={"classes": 10})
    with pytest.raises(ValueError, match=r"encoder: .*images"):
        VAE.Config(data="ring-8", encoder={"kind": "cnn"})


def test_bounds_are_ordered_and_add_up():
    learner, state = _start(**_small(data="digits"))
    for _ in range(3):
        learner.advance(state)
    scores = {name: value.item() for name, value in learner.evaluate(state).items()}
    assert scores["elbo"] == pytest.approx(-scores["reconstruction"] - scores["kl"])
    assert scores["elbo"] < scores["importance_bound"] < 0
    assert scores["kl"] > 0


def test_beta_0_lets_the_divergence_grow_and_a_large_one_takes_it():
    config = VAE.Config(**_small(data="digits", lr=1e-2))
    configs = tuple(config.model_copy(update={"beta": beta}) for beta in (0.0, 100.0))
    learner = VAE()
    state = learner.start(Lanes(configs, (0, 0), Execution("eager")))
    for _ in range(5):
        metrics = learner.advance(state)
    assert metrics["train_kl"][0] > 10 * metrics["train_kl"][1]


@pytest.mark.parametrize("decoder", [{"kind": "mlp-generator"}, {"kind": "dcgan-generator", "hidden_features": 4}])
def test_samples_are_what_the_exported_decoder_makes(decoder):
    learner, state = _start((0, 1), **_small(data="digits", decoder=decoder))
    learner.advance(state)
    rows = learner.sample(state, 20)
    z = learner.lanes.noise("vae/evaluate", 0, (20, 3))[1]
    made = learner.network(state, 1).double().eval()(z).detach()
    torch.testing.assert_close(rows[1], (made + 1) / 2)
    assert rows.shape == (2, 20, *data.card("digits").shape)
    mean_and_log_var = learner.companions(state, 1)["encoder"].double()(torch.zeros(2, 8, 8, dtype=torch.float64))
    assert mean_and_log_var.shape == (2, 6)


def test_reconstructions_lie_beside_what_they_are_of():
    learner, state = _start(**_small(data="digits"))
    shown = learner.media(state, 0)["reconstructions"]
    assert shown.data.shape == shown.reference.shape
    np.testing.assert_array_equal(shown.reference, grid(data.load("digits")["test"].x[:64]))
    assert not np.array_equal(shown.data, shown.reference)
    learner, state = _start(**_small())
    shown = learner.media(state, 0)["reconstructions"]
    np.testing.assert_allclose(shown.reference, data.load("ring-8")["test"].x[:64])


@pytest.mark.slow
def test_digits_come_back_and_the_latent_is_used():
    learner, state = _start(data="digits", images=102_400, dtype=torch.float32)
    while int(state["progress"][0]) < learner.lanes.config.budget:
        learner.advance(state)
    scores = learner.evaluate(state)
    assert scores["importance_bound"].item() > -25
    assert scores["active_units"].item() >= 5
