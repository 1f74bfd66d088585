"""Convolutional parts: pooling, a block of convolution, norm and activation, and the plain encoder made of it."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from nets.activations import activation as activation_named
from nets.attend import transformed
from nets.mlp import Init, init_linear
from nets.norms import NormName
from nets.norms import norm as norm_named
from nets.registry import register
from nets.regularise import Dropout
from nets.resample import Downsample

__all__ = ["CNN", "ConvBlock", "GlobalPool", "Pool", "PoolName", "channels_last", "halving", "image_shape"]

PoolName = Literal["none", "max", "average", "blur"]


def image_shape(kind: str, in_shape: tuple[int, ...], smallest: int = 1) -> tuple[int, int, int]:
    """(channels, height, width) of an image's shape; (height, width) is an image of one channel.

    Args:
        kind: the encoder's, for the message.
        in_shape: (C, H, W) or (H, W).
        smallest: height and width that the encoder needs.

    Raises:
        ValueError: the shape is no image's, or the image is too small.
    """
    if len(in_shape) not in (2, 3):
        raise ValueError(f"encoder '{kind}' takes images (channels, height, width) or (height, width), not {in_shape}")
    channels, height, width = in_shape if len(in_shape) == 3 else (1, *in_shape)
    if min(height, width) < smallest:
        raise ValueError(f"encoder '{kind}' needs images of {smallest} x {smallest} or more, not {height} x {width}")
    return channels, height, width


def channels_last(x: Tensor) -> Tensor:
    """Images [B, C, H, W] with a pixel's channels side by side in memory; the numbers are the same.

    So torch's CPU kernels for few channels are fastest: a third of an update of a small CNN, half of a ResNet's. What
    follows keeps the order. Only in an ordinary call: inside vmap, grad and compilation it is `x` itself.
    """
    if x.device.type != "cpu" or transformed(x):
        return x
    return x.contiguous(memory_format=torch.channels_last)


@register("pool", role="layer")
class Pool(nn.Module):
    """The maximum or the mean of each window of pixels.

    Args:
        how: "max" or "average".
        kernel_size: side of the window.
        stride: step from window to window; 0 stands for `kernel_size`.
        padding: pixels added at each border: -inf for "max", 0 (and counted) for "average".
    """

    def __init__(
        self,
        how: Literal["max", "average"] = "max",
        kernel_size: int = 2,
        stride: int = 0,
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.how = how
        self.window = (kernel_size, stride or kernel_size, padding)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C, (H + 2 padding - kernel_size) // stride + 1, likewise]."""
        return functional.max_pool2d(x, *self.window) if self.how == "max" else functional.avg_pool2d(x, *self.window)


@register("global-pool", role="layer")
class GlobalPool(nn.Module):
    """The maximum or the mean of each channel over all positions: [B, C, ...] to [B, C] (Lin et al. 2013).

    Args:
        how: "max" or "average".
    """

    def __init__(self, how: Literal["max", "average"] = "average") -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] to [B, C]."""
        return x.flatten(2).mean(-1) if self.how == "average" else x.flatten(2).amax(-1)


def halving(name: PoolName, features: int) -> nn.Module:
    """A layer that halves height and width, by name.

    Args:
        name: "none" keeps the size; "max" or "average" of 2 x 2 (odd sides round down); "blur" halves behind a
            low-pass filter, `nets.resample.Downsample`.
        features: channels.
    """
    if name == "none":
        return nn.Identity()
    return Downsample(features) if name == "blur" else Pool(name)


@register("conv-block", role="layer")
class ConvBlock(nn.Module):
    """A convolution that keeps the size, a norm, an activation, dropout, and a halving of height and width.

    Args:
        in_features: channels of the input.
        out_features: channels of the output.
        activation: a name in `nets.activations`.
        norm: a name in `nets.norms`; "layer" is over channels and pixels together.
        pool: "average", "max" or "blur" halve height and width (odd ones round down), "none" keeps them.
        kernel_size: side of the filter, odd.
        stride: of the convolution; 2 halves height and width (odd ones round up).
        groups: of channels that are convolved apart (Xie et al. 2016); divides both numbers of channels.
        dropout: the probability of zeroing a number.
        init: "torch", "orthogonal", "kaiming" or "zero"; see `nets.mlp.init_linear`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str = "relu",
        norm: NormName = "none",
        pool: PoolName = "average",
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        dropout: float = 0.0,
        init: Init = "torch",
    ) -> None:
        super().__init__()
        # batch norm takes the mean away, a bias would learn nothing
        conv = nn.Conv2d(
            in_features,
            out_features,
            kernel_size,
            stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=norm != "batch",
        )
        self.conv = init_linear(conv, init)
        self.norm = norm_named(norm, out_features, channels_first=True)
        self.activation = activation_named(activation)
        self.dropout = Dropout(dropout)
        self.pool = halving(pool, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_features, H, W] to [B, out_features, H / 2, W / 2] (with one halving)."""
        return self.pool(self.dropout(self.activation(self.norm(channels_last(self.conv(x))))))


@register("cnn", role="encoder")
class CNN(nn.Module):
    """Convolutional blocks of growing width, flattened.

    The first block keeps the image's size, the others halve it and double the channels. Pixels about 0, such as
    [-1, 1], train best.

    Args:
        in_shape: (C, H, W) or (H, W).
        hidden_features: channels of the first block.
        depth: how many blocks; height and width must survive depth - 1 halvings.
        activation: a name in `nets.activations`.
        norm: a name in `nets.norms`; "layer" is over channels and pixels together.
        dropout: the probability of zeroing a number after each activation.
        pool: how to halve: "average", "max" or "blur" (anti-aliased).
        init: "torch", "orthogonal", "kaiming" or "zero"; see `nets.mlp.init_linear`.

    Raises:
        ValueError: no image, or too small for that depth.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        hidden_features: int = 16,
        depth: int = 3,
        activation: str = "relu",
        norm: NormName = "none",
        dropout: float = 0.0,
        pool: Literal["average", "max", "blur"] = "average",
        init: Init = "torch",
    ) -> None:
        super().__init__()
        self.image = image_shape("cnn", in_shape)
        channels, *sides = self.image
        if depth < 1:
            raise ValueError(f"encoder 'cnn' needs a block: depth is {depth}")
        height, width = (side >> (depth - 1) for side in sides)
        if min(height, width) < 1:
            raise ValueError(f"depth {depth} halves an image of {sides[0]} x {sides[1]} to nothing")
        widths = [channels, *(hidden_features << i for i in range(depth))]
        block = partial(ConvBlock, activation=activation, norm=norm, dropout=dropout, init=init)
        self.blocks = nn.Sequential(
            *(block(widths[i], widths[i + 1], pool=pool if i else "none") for i in range(depth))
        )
        self.out_features = widths[-1] * height * width

    def forward(self, x: Tensor) -> Tensor:
        """[B, *in_shape] to [B, out_features]."""
        return self.blocks(x.reshape(x.shape[0], *self.image)).flatten(1)
