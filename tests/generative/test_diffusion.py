"""Diffusion: the paper's functions against closed forms, the sampler on a known denoiser, the learner."""

from __future__ import annotations

import pytest
import torch

from generative.diffusion import Diffusion, denoised, heun, loss_weight, noise_levels, preconditioning
from harness.learner import Lanes, learner_class
from nets.lanes import Execution

LEVELS = torch.tensor([0.002, 0.1, 0.5, 3.0, 80.0], dtype=torch.float64)
MEAN = torch.tensor([0.3, -0.2], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.25, 0.1], [0.1, 0.09]], dtype=torch.float64)


def _start(seeds=(0,), dtype=torch.float64, **options):
    learner, config = Diffusion(), Diffusion.Config(**options)
    return learner, learner.start(Lanes((config,) * len(seeds), tuple(seeds), Execution("eager", dtype=dtype)))


def _small(**options):
    return {"images": 1600, "batch": 16, "samples": 100, "steps": 3, "net": {"hidden_features": 8}, **options}


def _gaussian_denoiser(x, level):
    """E[clean | x] where the data is N(MEAN, COVARIANCE)."""
    total = COVARIANCE + level**2 * torch.eye(2, dtype=x.dtype)
    return MEAN + torch.linalg.solve(total, (x - MEAN).T).T @ COVARIANCE


def _sampled(steps):
    """Mean and covariance of what the sampler makes of noise: it is affine here, so its map says both exactly."""
    levels = noise_levels(steps, 0.002, 80.0)
    corners = torch.cat([torch.zeros(1, 2), 80.0 * torch.eye(2)]).double()
    mean, *ends = heun(_gaussian_denoiser, corners, levels)
    matrix = torch.stack(ends) - mean
    return mean, matrix.T @ matrix


def test_the_networks_inputs_and_targets_have_variance_1_at_every_level():
    sd = 0.7
    c_skip, c_out, c_in, c_noise = preconditioning(LEVELS, sd)
    torch.testing.assert_close(c_in**2 * (sd**2 + LEVELS**2), torch.ones_like(LEVELS))
    target = ((1 - c_skip) ** 2 * sd**2 + c_skip**2 * LEVELS**2) / c_out**2  # of (x - c_skip (x + n)) / c_out
    torch.testing.assert_close(target, torch.ones_like(LEVELS))
    torch.testing.assert_close(loss_weight(LEVELS, sd) * c_out**2, torch.ones_like(LEVELS))
    torch.testing.assert_close((4 * c_noise).exp(), LEVELS)


def test_a_network_that_returns_0_denoises_as_if_the_data_were_one_gaussian():
    x = torch.randn(5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = denoised(lambda x, level: torch.zeros_like(x), x, LEVELS)
    torch.testing.assert_close(found, x * (0.25 / (0.25 + LEVELS**2)).reshape(5, 1, 1))


def test_levels_fall_from_the_first_to_the_last_and_end_in_0():
    levels = noise_levels(18, 0.002, 80.0, 7.0)
    assert len(levels) == 19
    assert levels[0] == pytest.approx(80)
    assert levels[-2:] == [pytest.approx(0.002), 0.0]
    assert levels == sorted(levels, reverse=True)
    assert noise_levels(3, 1.0, 4.0, 2.0)[1] == pytest.approx(2.25)  # the square of the mean root


def test_the_sampler_has_the_datas_mean_and_covariance_for_the_true_denoiser():
    mean, covariance = _sampled(64)
    torch.testing.assert_close(mean, MEAN, rtol=0, atol=2e-3)
    torch.testing.assert_close(covariance, COVARIANCE, rtol=0, atol=2e-3)


def test_the_sampler_is_of_second_order():
    coarse, fine = ((_sampled(steps)[1] - COVARIANCE).norm() for steps in (32, 64))
    assert 3 < coarse / fine < 5  # Euler's method: 2


def test_the_learner_is_registered_and_its_configuration_checked():
    assert learner_class("diffusion") is Diffusion
    with pytest.raises(ValueError, match=r"net: .*images"):
        Diffusion.Config(data="ring-8", net={"kind": "unet"})
    with pytest.raises(ValueError, match="sides that are multiples of 16"):
        Diffusion.Config(data="digits", net={"kind": "unet", "factors": [1, 1, 1, 1, 1]})
    with pytest.raises(ValueError, match=r"net\.classes: say conditional"):
        Diffusion.Config(data="digits", net={"classes": 10})
    with pytest.raises(ValueError, match="sigma_max"):
        Diffusion.Config(sigma_min=1.0, sigma_max=0.5)


def test_samples_before_training_have_the_datas_mean_and_spread():
    learner, state = _start(**_small(steps=18))
    rows = learner.sample(state, 2000)[0]
    train = torch.as_tensor(learner._mean), torch.as_tensor(learner._std)
    assert rows.mean().item() == pytest.approx(train[0].item(), abs=0.1)
    assert rows.std().item() == pytest.approx(train[1].item(), rel=0.1)


@pytest.mark.slow
def test_guidance_follows_the_label_further_and_0_forgets_it():
    shared = _small(data="digits", conditional=True)
    rows = {}
    for guidance in (0, 1, 2):
        learner, state = _start(**shared, guidance=guidance)
        for _ in range(2):
            learner.advance(state)
        rows[guidance] = learner.sample(state, 20)[0]
        learner.labels = lambda count: torch.zeros(count, dtype=torch.int64)
        same = torch.equal(learner.sample(state, 20)[0], rows[guidance])
        assert same == (guidance == 0)
    assert not torch.equal(rows[1], rows[2])


@pytest.mark.slow
def test_images_are_learned_by_a_unet_whose_dropout_is_the_lanes_own():
    net = {"kind": "unet", "hidden_features": 4, "factors": [1], "patch": 2, "dropout": 0.2}
    options = _small(data="digits", images=400, batch=4, net=net)
    learner, state = _start((0, 1), **options)
    learner.advance(state)
    learner.evaluate(state)
    learner.advance(state)
    alone, expected = _start((1,), **options)
    for _ in range(2):
        alone.advance(expected)
    for name, value in expected["params"]["ema"].items():
        torch.testing.assert_close(state["params"]["ema"][name][1:], value, rtol=1e-9, atol=1e-9)
    assert learner.sample(state, 3).shape == (2, 3, 8, 8)
    network = learner.network(state, 1)
    assert network(torch.zeros(2, 8, 8), torch.zeros(2)).shape == (2, 8, 8)


@pytest.mark.slow
def test_defaults_cover_the_ring():
    learner, state = _start(seeds=(0, 1), dtype=torch.float32)
    while int(state["progress"][0]) < learner.lanes.config.budget:
        learner.advance(state)
    scores = learner.evaluate(state)
    assert (scores["modes"] == 8).all()
    assert scores["min_mode_share"].min() >= 0.0625
    assert scores["hq_share"].min() >= 0.85
    assert scores["spread"].min() >= 0.8
    assert scores["spread"].max() <= 1.25
