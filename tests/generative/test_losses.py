"""GAN losses against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import softplus

from generative.losses import (
    LOSSES,
    PENALTIES,
    logits_and_slopes,
    rpgan_discriminator_loss,
    rpgan_generator_loss,
)
from nets.lanes import Execution, grad_and_value


def test_equal_logits_cost_log_two():
    logits = torch.randn(5, dtype=torch.float64)
    assert math.isclose(rpgan_discriminator_loss(logits, logits), math.log(2), rel_tol=1e-12)
    assert math.isclose(rpgan_generator_loss(logits, logits), math.log(2), rel_tol=1e-12)


def test_losses_see_only_the_difference_of_pairs():
    real, fake = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 3.0]).double()
    expected = (math.log1p(math.exp(-0.5)) + math.log1p(math.exp(5.0))) / 2
    assert math.isclose(rpgan_discriminator_loss(real, fake), expected, rel_tol=1e-12)
    assert math.isclose(rpgan_discriminator_loss(real + 7, fake + 7), expected, rel_tol=1e-12)
    assert math.isclose(rpgan_generator_loss(fake, real), expected, rel_tol=1e-12)


def test_generator_and_discriminator_gain_at_each_others_cost():
    real, fake = torch.zeros(1).double(), torch.zeros(1).double().requires_grad_()
    (up,) = torch.autograd.grad(rpgan_discriminator_loss(real, fake), fake)
    (down,) = torch.autograd.grad(rpgan_generator_loss(real, fake), fake)
    assert up.item() == 0.5
    assert down.item() == -0.5


def test_slopes_of_a_quadratic_critic():
    weight = torch.tensor([[2.0, 1.0], [1.0, 3.0]]).double()
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]).double()
    logits, slopes, buffers = logits_and_slopes(lambda x: (0.5 * ((x @ weight) * x).sum(-1), {"n": x[0]}), x)
    assert torch.equal(buffers["n"], x[0])
    torch.testing.assert_close(logits, torch.tensor([1.0, 6.0, 0.0]).double())
    torch.testing.assert_close(slopes, torch.tensor([5.0, 40.0, 0.0]).double())  # |W x|^2


def test_penalty_has_a_second_derivative_under_lanes():
    """D(x) = tanh(a . x): the penalty is |a|^2 (1 - tanh^2)^2; its gradient against finite differences."""
    execution = Execution("eager", dtype=torch.float64)
    a, x = torch.randn(3, 2).double(), torch.randn(3, 6, 2).double()

    def penalty(a, x):
        return logits_and_slopes(lambda x: (torch.tanh(x @ a), ()), x)[1].mean()

    def closed(a, x):
        return ((1 - torch.tanh(x @ a).square()).square() * a.square().sum()).mean()

    grads, values = execution.each(grad_and_value(penalty))(a, x)
    eps = 1e-6
    for k in range(3):
        torch.testing.assert_close(values[k], closed(a[k], x[k]))
        for i in range(2):
            step = torch.zeros(2).double()
            step[i] = eps
            slope = (closed(a[k] + step, x[k]) - closed(a[k] - step, x[k])) / (2 * eps)
            torch.testing.assert_close(grads[k, i], slope, rtol=1e-6, atol=1e-8)


def test_losses_stay_finite_for_large_logits():
    real, fake = torch.tensor([1e4]), torch.tensor([-1e4])
    assert rpgan_discriminator_loss(real, fake) == 0
    assert rpgan_generator_loss(real, fake) == softplus(torch.tensor(2e4)) == 2e4


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        ("rpgan", math.log1p(math.exp(-3)), math.log1p(math.exp(3))),
        ("non-saturating", math.log1p(math.exp(-2)) + math.log1p(math.exp(-1)), math.log1p(math.exp(1))),
        ("hinge", 0.0, 1.0),
        ("wasserstein", -3.0, 1.0),
    ],
)
def test_losses_at_known_logits(name, discriminator, generator):
    real, fake = torch.tensor([2.0, 2.0]).double(), torch.tensor([-1.0, -1.0]).double()
    loss = LOSSES[name]
    assert math.isclose(loss.discriminator(real, fake), discriminator, abs_tol=1e-12)
    assert math.isclose(loss.generator(real if loss.paired else real[:0], fake), generator, rel_tol=1e-12)


@pytest.mark.parametrize(
    ("name", "penalty"), [("none", 0.0), ("r1", 12.5), ("r1+r2", 25.0), ("gradient-penalty", 16.0)]
)
def test_penalties_of_a_linear_critic(name, penalty):
    """D(x) = 3 x_0 + 4 x_1 has the slope 5 everywhere."""
    slope = torch.tensor([3.0, 4.0]).double()
    real, fake = torch.randn(6, 2).double(), torch.randn(6, 2).double()
    judged = PENALTIES[name](lambda x: (x @ slope, {"seen": x}), real, fake, torch.rand(6).double())
    torch.testing.assert_close(judged.real, real @ slope)
    torch.testing.assert_close(judged.fake, fake @ slope)
    assert math.isclose(judged.penalty, penalty, rel_tol=1e-9, abs_tol=1e-12)
    assert judged.buffers["seen"].shape[1] == 2


def test_gradient_penalty_looks_between_real_and_generated_rows():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.sum(-1), ()

    real, fake = torch.zeros(4, 2).double(), torch.ones(4, 2).double()
    PENALTIES["gradient-penalty"](critic, real, fake, torch.tensor([0.0, 0.25, 0.5, 1.0]).double())
    torch.testing.assert_close(seen[0][:, 0], torch.tensor([1.0, 0.75, 0.5, 0.0]).double())
