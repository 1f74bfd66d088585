"""Perceptrons over sines: what the waves are, and that steep functions are learned fast."""

from __future__ import annotations

import math

import pytest
import torch

from nets.fourier import FourierMLP
from nets.registry import build


def test_waves_have_the_lengths_asked_for_and_are_never_trained():
    net = FourierMLP((2, 3), hidden_features=8, waves=5, longest=8.0, shortest=0.5)
    lengths = 2 * math.pi / net.turns.norm(dim=-1)
    torch.testing.assert_close(lengths, torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5]))
    assert {name for name, _ in net.named_buffers()} == {"turns"}
    assert not any("turns" in name for name, _ in net.named_parameters())
    assert net(torch.randn(4, 2, 3)).shape == (4, net.out_features)


def test_the_perceptron_sees_the_input_its_sines_and_its_cosines():
    net = FourierMLP((2,), hidden_features=8, waves=3)
    seen = {}
    net.mlp.layers[0].register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0]))
    x = torch.randn(4, 2)
    net(x)
    angle = x @ net.turns.T
    torch.testing.assert_close(seen["x"], torch.cat([x, angle.sin(), angle.cos()], dim=-1))


def test_it_learns_detail_on_a_wide_range_that_a_perceptron_does_not():
    x = torch.linspace(-4, 4, 512).unsqueeze(-1)
    y = (2 * math.pi * x / 0.4).sin()
    errors = {}
    for kind in ("mlp", "fourier-mlp"):
        torch.manual_seed(0)
        net = build({"kind": kind, "hidden_features": 64}, 1, 1)
        optimiser = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(200):
            optimiser.zero_grad()
            loss = (net(x) - y).square().mean()
            loss.backward()
            optimiser.step()
        errors[kind] = loss.item()
    assert errors["fourier-mlp"] < 0.1 < 0.4 < errors["mlp"], errors


@pytest.mark.parametrize("waves", [{"waves": 0}, {"shortest": 0.0}, {"longest": 0.1, "shortest": 0.2}])
def test_waves_that_cannot_be_are_refused(waves):
    with pytest.raises(ValueError, match="take at least 1, falling, above 0"):
        FourierMLP((2,), **waves)
