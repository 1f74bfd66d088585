"""The MLP and activations by name."""

import pytest
import torch

from nets.activations import ACTIVATIONS, activation
from nets.mlp import MLP


def test_shapes_and_gradients():
    net = MLP(4, (8, 6), 3, "tanh", "orthogonal", 0.01)
    out = net(torch.randn(5, 7, 4))
    assert out.shape == (5, 7, 3)
    out.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_no_hidden_layer_is_linear():
    assert len(MLP(4, (), 3).layers) == 1


def test_orthogonal_init():
    net = MLP(64, (64,), 2, init="orthogonal", out_gain=0.5)
    hidden, out = net.layers[0].weight, net.layers[2].weight
    torch.testing.assert_close(hidden @ hidden.T, 2 * torch.eye(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(out @ out.T, 0.25 * torch.eye(2), atol=1e-5, rtol=0)
    assert net.layers[0].bias.abs().max() == 0


def test_fast_tanh_equals_tanh():
    x = torch.linspace(-20, 20, 2001, dtype=torch.float64, requires_grad=True)
    y = activation("tanh")(x)
    torch.testing.assert_close(y, torch.tanh(x), rtol=0, atol=1e-12)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(slope, 1 - torch.tanh(x) ** 2, rtol=0, atol=1e-12)


def test_unknown_activation_names_the_known_ones():
    with pytest.raises(ValueError, match="gelu"):
        activation("gelo")
    assert set(ACTIVATIONS) >= {"relu", "tanh"}
