"""Generators and discriminators: sizes, labels, initialisation, and gradients of gradients as lanes."""

import math

import pytest
import torch
from torch import nn
from torch.func import vjp

from nets.generators import doublings, halvings
from nets.lanes import Execution, call, grad_and_value
from nets.norms import ConditionalBatchNorm, SpectralConv2d, SpectralLinear
from nets.registry import build

pytestmark = pytest.mark.filterwarnings("error:There is a performance drop")  # a missing batching rule

GENERATORS = ["mlp-generator", "dcgan-generator", "sngan-generator", "r3gan-generator"]
ENCODERS = ["dcgan", "sngan", "r3gan"]
LABELS = torch.tensor([0, 1, 1])


def small(kind, **fields):
    groups = {"group_features": 4} if kind.startswith("r3gan") else {}
    return {"kind": kind, "hidden_features": 4, **groups, **fields}


@pytest.fixture(autouse=True)
def seeded():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("shape", [(8, 8), (3, 12, 10), (1, 28, 28), (3, 32, 64)], ids=str)
@pytest.mark.parametrize("kind", GENERATORS)
def test_generators_make_images_of_any_doubled_size(kind, shape):
    net = build(small(kind), 6, shape)
    x = net(30 * torch.randn(2, 6))
    assert x.shape == (2, *shape)
    assert x.abs().max() <= 1
    assert not torch.equal(x[0], x[1])


@pytest.mark.parametrize("shape", [(8, 8), (3, 9, 11), (28, 28), (3, 64, 32)], ids=str)
@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders_take_any_image(kind, shape):
    net = build(small(kind), shape)
    assert net(torch.randn(2, *shape)).shape == (2, net.out_features)


def test_sizes():
    assert [halvings(side, 99) for side in (3, 4, 7, 8, 15, 16, 28, 32, 64)] == [0, 0, 0, 1, 1, 2, 2, 3, 4]
    assert doublings("x", (28, 56)) == (2, (1, 28, 56))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (("dcgan-generator", 4, (9, 9)), "9 x 9 is not reached"),
        (("sngan-generator", 4, (3, 28, 30)), "28 x 30 is not reached"),
        (("dcgan-generator", 4, (4, 4)), "doubles an image at least 1 times"),
        (("r3gan-generator", 4, (2,)), r"'r3gan-generator' makes images .* not \(2,\)"),
        (("dcgan", (7, 7), None), "needs images of 8 x 8 or more"),
        (("sngan", (7,), None), "takes images"),
    ],
)
def test_wrong_sizes_are_named(config, message):
    kind, in_shape, out_shape = config
    with pytest.raises(ValueError, match=message):
        build({"kind": kind}, in_shape, out_shape)


def test_groups_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="group_features=16 does not divide 2 \\* hidden_features = 24"):
        build({"kind": "r3gan", "hidden_features": 12}, (8, 8))


@pytest.mark.parametrize("kind", GENERATORS)
def test_labels_change_the_samples(kind):
    net, plain = build(small(kind, classes=2), 6, (8, 8)), build(small(kind), 6, (8, 8))
    for p in net.parameters():  # scales of 1 are equal for all classes at the start
        nn.init.normal_(p, std=0.3)
    z = torch.randn(3, 6)
    net.eval(), plain.eval()
    assert not torch.equal(net(z, LABELS), net(z, 1 - LABELS))
    net(z, LABELS).sum().backward()
    tables = [p for m in net.modules() if isinstance(m, ConditionalBatchNorm | nn.Embedding) for p in m.parameters()]
    assert len(tables) == (4 if kind == "sngan-generator" else 1)
    assert all(p.grad.any(1).all() for p in tables)  # every row of every table is in use
    for wrong in (lambda: net(z), lambda: plain(z, LABELS)):
        with pytest.raises(ValueError, match="takes labels exactly if"):
            wrong()


def test_points_are_not_bounded():
    net = build({"kind": "mlp-generator", "bounded": False}, 2, (2,))
    assert net(1e4 * torch.randn(8, 2)).abs().max() > 1


@pytest.mark.parametrize("bias", [False, True])
def test_projection_head_in_closed_form(bias):
    head = build(
        {"kind": "projection", "in_features": 4, "out_features": 2, "classes": 3, "spectral": False, "bias": bias}
    )
    f, labels = torch.randn(5, 4), torch.tensor([2, 0, 1, 1, 2])
    table = head.by_class.weight.reshape(3, 2, 4)[labels]
    expected = head.linear(f) + torch.einsum("bof,bf->bo", table, f)
    torch.testing.assert_close(head(f, labels), expected)
    assert (head.linear.bias is not None) == bias


def test_dcgan_starts_as_in_the_paper():
    for net in (build({"kind": "dcgan-generator"}, 8, (8, 8)), build({"kind": "dcgan"}, (16, 16))):
        for p in net.parameters():
            if p.dim() == 4:
                assert p.std().item() == pytest.approx(0.02, rel=0.1)


def test_all_convolutions_of_sngan_are_spectral():
    net = build(small("sngan"), (1, 8, 8))
    spectral = [m for m in net.modules() if isinstance(m, SpectralConv2d)]
    assert len(spectral) == 7  # 3 of the first block, 2 of each that keeps the size
    assert {n for n, p in net.named_parameters() if p.dim() == 4} == {
        f"{n}.weight" for n, m in net.named_modules() if isinstance(m, SpectralConv2d)
    }
    for layer in spectral:
        sigma = torch.linalg.matrix_norm(layer.eval().normalised_weight().detach().flatten(1), 2)
        assert sigma.item() == pytest.approx(1, abs=0.05)


def test_r3gan_starts_as_the_identity_with_variance_one():
    net = build({"kind": "r3gan", "hidden_features": 64}, (1, 16, 16))
    x = torch.randn(64, 1, 16, 16)
    plain = net.layers[0](x)
    for layer in net.layers[1:]:
        plain = layer(plain) if type(layer).__name__ != "Block" else plain
    assert torch.equal(net(x), plain)
    blocks = [layer.layers for layer in net.layers if type(layer).__name__ == "Block"]
    assert len(blocks) == 6
    gain = math.sqrt(2 / 1.04) * 6**-0.25
    for layers in blocks:
        assert layers[0].weight.std().item() == pytest.approx(gain / 8, rel=0.05)
        assert layers[2].weight.std().item() == pytest.approx(gain / 12, rel=0.05)  # 16 channels of 3 x 3
        assert not layers[4].weight.any()


def critic(kind):
    head = {"kind": "projection", "out_features": 1, "classes": 2}
    net = build(small(kind, **({"norm": "layer"} if kind == "dcgan" else {})), (8, 8), head)
    for name, p in net.named_parameters():
        if name.endswith("layers.4.weight"):  # R3GAN's zeros
            nn.init.normal_(p, std=0.1)
    for layer in net.modules():
        if isinstance(layer, SpectralConv2d | SpectralLinear):
            layer.settle(500)  # only then is the gradient, which holds u and v fixed, that of the true norm
    return net


@pytest.mark.parametrize("kind", ENCODERS)
def test_gradient_penalties_as_lanes(kind):
    """The gradient of R1 for K = 2, against one lane after the other, and against a difference quotient."""
    execution = Execution("eager", dtype=torch.float64)
    net, params, buffers = execution.stack(lambda: critic(kind), [0, 1])
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)

    def penalty(params, buffers, x):
        logits, pull, new = vjp(lambda x: call(net, params, buffers, x, LABELS, training=True), x, has_aux=True)
        (slope,) = pull(torch.ones_like(logits))
        return slope.square().sum() + logits.sum(), new

    def update(params, buffers, x):
        return grad_and_value(lambda p: penalty(p, buffers, x), has_aux=True)(params)

    grads, (values, new) = execution.each(update)(params, buffers, x)
    expected, (expected_values, expected_new) = Execution("loop").each(update)(params, buffers, x)
    torch.testing.assert_close((values, new), (expected_values, expected_new), rtol=1e-9, atol=1e-9)
    for name, g in grads.items():
        torch.testing.assert_close(g, expected[name], rtol=1e-9, atol=1e-9)
        assert g.any(), name
    direction = {n: torch.randn_like(p[0]) for n, p in params.items()}
    one = [{n: t[0] for n, t in tree.items()} for tree in (params, buffers)]

    def moved(step):
        return penalty({n: p + step * direction[n] for n, p in one[0].items()}, one[1], x[0])[0]

    slope = sum((grads[n][0] * d).sum() for n, d in direction.items())
    quotient = (moved(1e-7) - moved(-1e-7)) / 2e-7
    torch.testing.assert_close(slope, quotient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", GENERATORS)
def test_generators_can_be_differentiated_twice_as_lanes(kind):
    """A path-length-like penalty on the slope with respect to the noise."""
    execution = Execution("eager", dtype=torch.float64)
    net, params, buffers = execution.stack(lambda: build(small(kind), 3, (8, 8)), [0, 1])
    z = torch.randn(2, 4, 3, dtype=torch.float64)

    def penalty(params, buffers, z):
        x, pull, new = vjp(lambda z: call(net, params, buffers, z, training=True), z, has_aux=True)
        return pull(torch.cos(x))[0].square().sum(), new

    def update(params, buffers, z):
        return grad_and_value(lambda p: penalty(p, buffers, z), has_aux=True)(params)

    grads, (values, _) = execution.each(update)(params, buffers, z)
    expected, (expected_values, _) = Execution("loop").each(update)(params, buffers, z)
    torch.testing.assert_close(values, expected_values, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(grads, expected, rtol=1e-9, atol=1e-9)
    assert all(g.isfinite().all() for g in grads.values())
    assert sum(int(g.any()) for g in grads.values()) >= 3
