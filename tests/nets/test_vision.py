"""Perceptrons, convolutions, resampling and the published encoders against closed forms and known counts."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.func import grad, vmap
from torch.nn import functional

from nets.activations import ACTIVATIONS, activation
from nets.conv import CNN, ConvBlock, GlobalPool, Pool
from nets.encoders import ImpalaBlock
from nets.lanes import call
from nets.mlp import MLP, Embedding, MLPEncoder, ResidualMLP
from nets.registry import build
from nets.resample import Downsample, ResizeConv, TransposedConv, Upsample
from nets.resnet import BasicBlock, Bottleneck
from nets.video import Conv3dBlock

IMAGE_KINDS = ("cnn", "lenet", "resnet", "nature-cnn", "impala", "grid-cnn")


@pytest.fixture(autouse=True)
def quiet():
    """The same weights in every run, and every warning an error (a missing batching rule is one)."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(0)
        warnings.simplefilter("error")
        yield


def count(net) -> int:
    return sum(p.numel() for p in net.parameters())


# activations, perceptrons, embeddings


def test_activations_equal_their_definitions():
    x = torch.linspace(-6, 6, 49, dtype=torch.float64).reshape(7, 7)
    expected = {
        "identity": x,
        "relu": x.clamp(min=0),
        "leaky_relu": torch.where(x > 0, x, 0.01 * x),
        "elu": torch.where(x > 0, x, x.exp() - 1),
        "gelu": x / 2 * (1 + torch.erf(x / 2**0.5)),
        "silu": x / (1 + (-x).exp()),
        "softplus": (1 + x.exp()).log(),
        "sigmoid": 1 / (1 + (-x).exp()),
        "tanh": x.tanh(),
        "exact_tanh": x.tanh(),
        "softmax": x.exp() / x.exp().sum(-1, keepdim=True),
    }
    assert set(ACTIVATIONS) == set(expected)
    for name, y in expected.items():
        torch.testing.assert_close(activation(name)(x), y, rtol=1e-12, atol=1e-12, msg=name)


def test_mlp_encoder_and_linear_head_are_the_mlp_bit_for_bit():
    torch.manual_seed(3)
    plain = MLP(4, [8, 8], 2, "tanh", init="orthogonal", out_gain=0.01)
    torch.manual_seed(3)
    config = {"kind": "mlp", "hidden_features": 8, "activation": "tanh", "init": "orthogonal"}
    built = build(config, 4, {"kind": "linear", "out_features": 2, "init": "orthogonal", "gain": 0.01})
    for a, b in zip(plain.parameters(), built.parameters(), strict=True):
        assert torch.equal(a, b)
    x = torch.randn(5, 3, 4)
    assert torch.equal(plain(x), built(x))


def test_widths_of_an_mlp_encoder():
    assert MLPEncoder((2, 3), hidden_features=5, depth=3)(torch.randn(4, 2, 3)).shape == (4, 5)
    assert MLPEncoder((6,), hidden_features=(5, 7)).out_features == 7
    assert [type(layer).__name__ for layer in MLPEncoder((3,), 4, 1, norm="batch", dropout=0.5).layers] == [
        "Linear",
        "BatchNorm",
        "ReLU",
        "Dropout",
    ]
    with pytest.raises(ValueError, match="needs a layer"):
        MLPEncoder((6,), depth=0)


def test_residual_mlp_without_its_second_layers_is_an_embedding():
    net, x = ResidualMLP((2, 2), 6), torch.randn(3, 2, 2)
    for block in net.blocks:
        assert not torch.equal(net(x), net.norm(net.embed(x.flatten(1))))
        torch.nn.init.zeros_(block.linear2.weight)
    assert torch.equal(net(x), net.norm(net.embed(x.flatten(1))))


def test_embedding_picks_rows():
    net, tokens = Embedding(50, 40, std=0.5), torch.tensor([[3, 0], [3, 49]])
    assert torch.equal(net(tokens), net.weight[tokens])
    assert net.weight.std().item() == pytest.approx(0.5, rel=0.05)


# pooling and resampling


def test_pooling():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert Pool("max")(x).flatten().tolist() == [5, 7, 13, 15]
    assert Pool("average")(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert Pool("max", 3, stride=2, padding=1)(x).flatten().tolist() == [5, 7, 13, 15]
    assert (GlobalPool("average")(x).item(), GlobalPool("max")(x).item()) == (7.5, 15)
    assert GlobalPool()(torch.randn(2, 3, 4, 5, 6)).shape == (2, 3)


@pytest.mark.parametrize("layer", [Downsample(2), Downsample(2, taps=3), Upsample(2)])
def test_resampling_keeps_a_constant_image(layer):
    x = torch.tensor([3.0, -2.0]).reshape(1, 2, 1, 1).expand(2, 2, 6, 4)
    y = layer(x)
    torch.testing.assert_close(y, x[..., :1, :1].expand_as(y), rtol=1e-6, atol=0)


def test_downsampling_removes_what_subsampling_would_alias():
    stripes = torch.tensor([1.0, -1.0]).repeat(5).expand(1, 1, 10, 10)
    assert stripes[..., ::2, ::2].eq(1).all()
    for taps in (3, 4):
        assert Downsample(1, taps)(stripes)[..., 1:-1].abs().max() < 1e-6
    ramp = torch.arange(10.0).expand(1, 1, 10, 10)
    torch.testing.assert_close(Downsample(1)(ramp)[0, 0, 0, 1:-1], torch.tensor([2.5, 4.5, 6.5]))
    odd = torch.randn(1, 1, 7, 5)
    assert Downsample(1, 4)(odd).shape[2:] == (3, 2)
    assert Downsample(1, 3)(odd).shape[2:] == (4, 3)


def test_upsampling_is_bilinear():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    expected = functional.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(Upsample(3).double()(x), expected, rtol=0, atol=1e-12)


def test_resize_convolution_repeats_pixels():
    net = ResizeConv(1, 1, activation="identity")
    net.conv.weight.data.zero_()[..., 1, 1] = 1
    net.conv.bias.data.zero_()
    x = torch.randn(2, 1, 3, 3)
    assert torch.equal(net(x), x.repeat_interleave(2, -1).repeat_interleave(2, -2))


def test_transposed_convolution_starts_as_dcgan():
    net = TransposedConv(32, 16)
    assert net(torch.randn(2, 32, 4, 4)).shape == (2, 16, 8, 8)
    assert net.conv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert net.conv.bias is None  # the batch norm has one


# convolutional blocks


def test_conv_block_equals_its_parts():
    block, x = ConvBlock(2, 4, norm="layer", groups=2), torch.randn(3, 2, 6, 5)
    y = functional.conv2d(x, block.conv.weight, block.conv.bias, padding=1, groups=2)
    y = functional.avg_pool2d(functional.group_norm(y, 1).relu(), 2)
    torch.testing.assert_close(block(x), y)
    wide = ConvBlock(2, 4, pool="none", kernel_size=5, stride=2, dropout=0.5)
    assert wide(x).shape == (3, 4, 3, 3)
    assert not torch.equal(wide(x), wide(x))
    assert torch.equal(wide.eval()(x), wide(x))


def test_a_residual_block_without_its_last_layer_is_its_activation():
    x = torch.randn(2, 4, 5, 5)
    basic, bottleneck, impala = BasicBlock(4, 4), Bottleneck(4, 4), ImpalaBlock(4, "relu", "torch")
    for block in (basic, bottleneck, impala):
        assert not torch.equal(block(x), x)
    torch.nn.init.zeros_(basic.conv2[1].weight)
    torch.nn.init.zeros_(bottleneck.conv3[1].weight)
    for parameter in impala.conv2.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(basic(x), x.relu())
    assert torch.equal(bottleneck(x), x.relu())
    assert torch.equal(impala(x), x)


def test_bottlenecks_have_the_published_weights():
    assert count(Bottleneck(256, 256)) == 70_400  # ResNet-50
    assert count(Bottleneck(256, 256, groups=32, expansion=2)) == 71_168  # ResNeXt-50 32x4d
    with pytest.raises(ValueError, match="expansion of 4 does not divide 6 channels"):
        Bottleneck(4, 6)
    assert Bottleneck(4, 8, stride=2)(torch.randn(2, 4, 5, 5)).shape == (2, 8, 3, 3)


# encoders


@pytest.mark.parametrize(
    ("config", "shape", "output", "parameters"),
    [
        ({"kind": "lenet"}, (28, 28), 10, 61_706),
        ({"kind": "resnet"}, (3, 32, 32), 10, 272_474),  # ResNet-20: 0.27 million
        ({"kind": "nature-cnn"}, (4, 84, 84), None, 1_684_128),
        ({"kind": "impala"}, (3, 64, 64), None, 622_144),
        ({"kind": "grid-cnn"}, (4, 10, 10), None, 131_792),
    ],
)
def test_published_encoders_have_their_weights(config, shape, output, parameters):
    with torch.device("meta"):
        net = build(config, shape, output)
        assert net(torch.empty(2, *shape)).shape == (2, output or net.out_features)
    assert count(net) == parameters


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_image_encoders_take_any_size_and_one_channel(kind):
    with torch.device("meta"):
        for shape in ((36, 36), (1, 37, 45), (3, 50, 41)):
            net = build({"kind": kind}, shape)
            assert net(torch.empty(2, *shape)).shape == (2, net.out_features)
    torch.manual_seed(1)
    with_channel = build({"kind": kind}, (1, 36, 36))
    torch.manual_seed(1)
    without = build({"kind": kind}, (36, 36))
    x = torch.randn(2, 36, 36)
    assert torch.equal(without(x), with_channel(x.unsqueeze(1)))


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_image_encoders_refuse_what_is_no_image(kind):
    with pytest.raises(ValueError, match=rf"'{kind}' takes images .* not \(5,\)"):
        build({"kind": kind}, 5)


@pytest.mark.parametrize(("kind", "side"), [("lenet", 12), ("nature-cnn", 36), ("grid-cnn", 3)])
def test_image_encoders_say_how_small_is_too_small(kind, side):
    with torch.device("meta"):
        assert build({"kind": kind}, (side, side))(torch.empty(1, side, side)).dim() == 2
        with pytest.raises(ValueError, match=f"'{kind}' needs images of {side} x {side} or more"):
            build({"kind": kind}, (side, side - 1))


# video


def test_factorised_convolution_has_as_many_weights():
    whole, factorised = Conv3dBlock(16, 32), Conv3dBlock(16, 32, factorised=True)
    kernels = [sum(p.numel() for p in net.parameters() if p.dim() == 5) for net in (whole, factorised)]
    assert kernels[0] == 27 * 16 * 32
    assert 0.98 < kernels[1] / kernels[0] <= 1


@pytest.mark.parametrize("factorised", [False, True])
def test_video_shapes_and_order_in_time(factorised):
    block = Conv3dBlock(2, 3, stride=2, time_stride=2, factorised=factorised)
    assert block(torch.randn(2, 2, 5, 6, 7)).shape == (2, 3, 3, 3, 4)
    net = build({"kind": "video-cnn", "hidden_features": 4, "depth": 2, "factorised": factorised}, (5, 3, 8, 8))
    x = torch.randn(2, 5, 3, 8, 8)
    assert net(x).shape == (2, net.out_features) == (2, 8)
    assert not torch.allclose(net(x), net(x.flip(1)))
    with pytest.raises(ValueError, match="takes videos"):
        build({"kind": "video-cnn"}, (3, 8, 8))


# second derivatives, for gradient penalties


@pytest.mark.parametrize(
    "make",
    [
        lambda: CNN((1, 8, 8), 2, 2, activation="silu", pool="blur"),
        lambda: BasicBlock(1, 2, stride=2, norm="group"),
        lambda: TransposedConv(1, 2, norm="none", activation="tanh"),
        lambda: torch.nn.Sequential(Upsample(1), Pool("max", 3, 2, 1), ResizeConv(1, 2, activation="gelu")),
    ],
    ids=["cnn", "basic-block", "transposed-conv", "pool"],
)
def test_gradient_penalties_of_lanes_equal_single_ones(make):
    net = make().double()
    names = [name for name, _ in net.named_parameters()]
    params = {name: torch.randn(2, *net.get_parameter(name).shape, dtype=torch.float64) for name in names}
    x = torch.randn(2, 3, 1, 8, 8, dtype=torch.float64)

    def penalty(params, x):
        slope = grad(lambda x: call(net, params, dict(net.named_buffers()), x)[0].square().sum())(x)
        return slope.square().mean()

    lanes = vmap(grad(penalty))(params, x)
    for k in range(2):
        single = grad(penalty)({name: p[k] for name, p in params.items()}, x[k])
        for name in names:
            assert single[name].abs().max() > 0
            torch.testing.assert_close(lanes[name][k], single[name], rtol=1e-9, atol=1e-9)


# sequences


def test_cnn_1d_is_torchs_convolutions_and_halves_the_steps():
    net = build({"kind": "cnn-1d", "hidden_features": 25}, (40, 1), 10)
    assert count(net) == 5210  # what Greydanus & Kobak count for MNIST-1D
    x, plain = torch.randn(3, 40, 1), net.encoder
    y = x.transpose(1, 2)
    for conv in (plain.layers[i] for i in (0, 4, 8)):
        y = functional.relu(functional.conv1d(y, conv.weight, conv.bias, stride=2, padding=conv.padding))
    assert torch.equal(plain(x), y.flatten(1))
    assert plain(x[..., 0]).shape == (3, plain.out_features) == (3, 125)
    assert build({"kind": "cnn-1d", "depth": 2}, (7,)).out_features == 64
    with pytest.raises(ValueError, match="takes sequences"):
        build({"kind": "cnn-1d"}, (1, 8, 8))
    with pytest.raises(ValueError, match="odd kernel"):
        build({"kind": "cnn-1d", "kernel_size": 4}, (8, 1))
