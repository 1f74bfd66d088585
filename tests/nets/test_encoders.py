"""Encoders against torch's own layers, and every classifier forward, backward, alone and as lanes."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from nets.attention import SelfAttention, TransformerEncoder, attend
from nets.classifiers import KINDS, image_classifier
from nets.conv import ConvBlock, ConvEncoder
from nets.lanes import Execution, call, grad_and_value
from nets.recurrent import GRU


def _small(kind: str) -> nn.Module:
    return image_classifier(kind, (8, 8), 8, 2, 10, norm="layer", heads=2)


def test_gru_equals_torch():
    ours, theirs = GRU(5, 7, depth=2).double(), nn.GRU(5, 7, num_layers=2, batch_first=True).double()
    for layer, cell in enumerate(ours.cells):
        for name, parameter in cell.named_parameters():
            parameter.data.copy_(getattr(theirs, f"{name}_l{layer}"))
    x, h = torch.randn(3, 6, 5).double(), torch.randn(2, 3, 7).double()
    for start in (None, h):
        for got, expected in zip(ours(x, start), theirs(x, start), strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_gru_goes_on_from_its_state():
    net, x = GRU(4, 6, depth=2), torch.randn(2, 9, 4)
    whole, last = net(x)
    first, state = net(x[:, :5])
    second, end = net(x[:, 5:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(end, last)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_equals_torch(causal):
    q, k, v = (torch.randn(3, 2, 5, 4, dtype=torch.float64) for _ in range(3))
    expected = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    torch.testing.assert_close(attend(q, k, v, causal), expected, rtol=0, atol=1e-12)
    ours, theirs = (
        SelfAttention(8, 2, causal).double(),
        nn.MultiheadAttention(8, 2, batch_first=True).double(),
    )
    theirs.in_proj_weight.data.copy_(ours.in_proj.weight)
    theirs.in_proj_bias.data.copy_(ours.in_proj.bias)
    theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1) if causal else None
    torch.testing.assert_close(
        ours(x), theirs(x, x, x, attn_mask=mask, need_weights=False)[0], rtol=0, atol=1e-12
    )


def test_causal_encoder_does_not_see_what_comes_later():
    net = TransformerEncoder(3, 8, 2, length=6, heads=2, causal=True)
    x = torch.randn(2, 6, 3)
    changed = x.clone()
    changed[:, 4:] += 1
    torch.testing.assert_close(net(x)[:, :4], net(changed)[:, :4])
    assert not torch.allclose(net(x)[:, 4:], net(changed)[:, 4:])


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="3 heads do not divide a width of 8"):
        SelfAttention(8, 3)


def test_conv_shapes_and_limits():
    assert ConvBlock(2, 5)(torch.randn(3, 2, 8, 6)).shape == (3, 5, 4, 3)
    encoder = ConvEncoder(1, (8, 8), 4, 3)
    assert encoder(torch.randn(2, 1, 8, 8)).shape == (2, encoder.out_features) == (2, 64)
    with pytest.raises(ValueError, match="depth 5 halves an image of 8 x 8 to nothing"):
        ConvEncoder(1, (8, 8), 4, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind):
    net = _small(kind)
    logits = net(torch.rand(6, 8, 8))
    assert logits.shape == (6, 10)
    functional.cross_entropy(logits, torch.arange(6)).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_independent(kind):
    net, x = _small(kind).eval(), torch.rand(4, 8, 8)
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_lanes_equal_the_network_alone_without_warnings(kind):
    execution = Execution("eager", dtype=torch.float64)
    net, params, buffers = execution.stack(lambda: _small(kind), [3, 4])
    x = torch.rand(2, 5, 8, 8, dtype=torch.float64)

    def loss(params, buffers, x):
        return call(net, params, buffers, x)[0].square().mean()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grads, values = execution.each(grad_and_value(loss))(params, buffers, x)
    for lane, seed in enumerate((3, 4)):
        torch.manual_seed(seed)
        alone = _small(kind).double()
        value = alone(x[lane]).square().mean()
        value.backward()
        torch.testing.assert_close(values[lane], value, rtol=0, atol=1e-12)
        for name, parameter in alone.named_parameters():
            torch.testing.assert_close(grads[name][lane], parameter.grad, rtol=0, atol=1e-12)
