"""Denoisers of diffusion models: a small U-Net for images and a residual perceptron for points.

A denoiser takes noisy rows [B, *in_shape], how noisy each is (a number of order 1 for each row, for instance ln(sigma)
/ 4) and, built with `classes` above 0, int64 labels [B], where `classes` itself stands for "not known". It returns
rows of the same shape.

    net = build({"kind": "unet", "hidden_features": 32}, input_shape=(1, 28, 28))
    net(x, level)                                                  # [B, 1, 28, 28]

Papers: Ronneberger et al. 2015 (U-Net); Ho et al. 2020 (for diffusion); Dhariwal & Nichol 2021 (the noise's scale and
shift behind the second norm); Karras et al. 2022 (sums over sqrt 2, last layers near 0 at the start); Hoogeboom et al.
2023 (patches instead of levels at full size).
Deliberate differences: as many blocks up as down; pixels are averaged down and repeated up; attention, where wanted,
at the smallest size only.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from nets.attention import SelfAttention
from nets.conv import image_shape
from nets.norms import norm
from nets.registry import register
from nets.regularise import Dropout

__all__ = ["MLPDenoiser", "UNet", "waves"]

L = TypeVar("L", nn.Linear, nn.Conv2d)
LOWEST, HIGHEST = 1 / 8, 8.0  # waves in a unit of the level: ln(sigma) / 4 is in [-1.6, 1.1]


def waves(level: Tensor, features: int) -> Tensor:
    """sin and cos of the level at geometrically rising frequencies: [B] to [B, features], features even."""
    exponent = torch.linspace(0, 1, features // 2, dtype=level.dtype, device=level.device)
    angle = 2 * math.pi * LOWEST * (HIGHEST / LOWEST) ** exponent * level.unsqueeze(-1)
    return torch.cat([angle.sin(), angle.cos()], -1)


def faint(layer: L) -> L:
    """Weights of 1e-5 times their size and no bias, in place; returns the layer (Karras et al. 2022, code)."""
    with torch.no_grad():
        layer.weight.mul_(1e-5)
        if layer.bias is not None:
            layer.bias.zero_()
    return layer


class Condition(nn.Module):
    """What a denoiser is told beside its rows, as one vector a row: the noise's level and the label.

    Args:
        features: width of the vector.
        classes: of labels; 0 for none.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.width = 2 * math.ceil(features / 4)
        self.level = nn.Linear(self.width, features)
        self.label = nn.Embedding(classes + 1, features) if classes else None
        self.out = nn.Linear(features, features)

    def forward(self, level: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B] and, with classes, int64 [B] to [B, features].

        Raises:
            ValueError: labels without classes, or classes without labels.
        """
        if (labels is None) != (self.label is None):
            raise ValueError("a denoiser takes labels exactly if it is built with classes > 0")
        told = self.level(waves(level, self.width))
        if self.label is not None:
            told = told + self.label(labels)
        return functional.silu(self.out(functional.silu(told)))


class Block(nn.Module):
    """(shortcut(x) + conv(silu(norm(conv(silu(norm(x)))) (1 + scale) + shift))) / sqrt 2.

    Args:
        in_features: channels of the input.
        out_features: channels of the output.
        told_features: width of the vector that gives scale and shift.
        dropout: the probability of zeroing a number before the second convolution.
    """

    def __init__(self, in_features: int, out_features: int, told_features: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = norm("group", in_features, channels_first=True)
        self.conv1 = nn.Conv2d(in_features, out_features, 3, padding=1)
        self.told = nn.Linear(told_features, 2 * out_features)
        self.norm2 = norm("group", out_features, channels_first=True)
        self.dropout = Dropout(dropout)
        self.conv2 = faint(nn.Conv2d(out_features, out_features, 3, padding=1))
        same = in_features == out_features
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_features, out_features, 1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """[B, in_features, H, W] and [B, told_features] to [B, out_features, H, W]."""
        scale, shift = self.told(told)[:, :, None, None].chunk(2, 1)
        y = self.norm2(self.conv1(functional.silu(self.norm1(x)))) * (1 + scale) + shift
        return (self.shortcut(x) + self.conv2(self.dropout(functional.silu(y)))) * math.sqrt(0.5)


class PixelAttention(nn.Module):
    """(x + attention between all pixels of norm(x)) / sqrt 2.

    Args:
        features: channels, a multiple of `heads`.
        heads: of the attention.
    """

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.norm = norm("group", features, channels_first=True)
        self.attention = SelfAttention(features, heads)
        faint(self.attention.out_proj)

    def forward(self, x: Tensor) -> Tensor:
        """[B, features, H, W] to the same shape."""
        pixels = self.norm(x).flatten(2).transpose(1, 2)
        return (x + self.attention(pixels).transpose(1, 2).reshape(x.shape)) * math.sqrt(0.5)


@register("unet", role="denoiser")
class UNet(nn.Module):
    """A small U-Net: residual blocks at falling and rising sizes, joined at each size (Ho et al. 2020).

    torch's default initialisation; the last layers of blocks and network are nearly 0 at the start.

    Args:
        in_shape: (C, H, W) or (H, W).
        hidden_features: channels at the first size.
        factors: channels at each size, over `hidden_features`; each size is half of the one before.
        depth: residual blocks at each size, down and up.
        heads: of attention between the pixels of the smallest size; 0 for none.
        patch: side of the squares of pixels that are one pixel of the first size.
        dropout: the probability of zeroing a number inside a block.
        classes: of labels; 0 for none.

    Raises:
        ValueError: no image, or its sides cannot be halved so often.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        hidden_features: int = 32,
        factors: tuple[int, ...] = (1, 2),
        depth: int = 1,
        heads: int = 0,
        patch: int = 1,
        dropout: float = 0.0,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.image = image_shape("unet", in_shape)
        channels, height, width = self.image
        unit = patch * 2 ** (len(factors) - 1)
        if height % unit or width % unit:
            raise ValueError(
                f"a 'unet' of patch={patch} and {len(factors)} factors needs sides that are multiples of {unit}, "
                f"not {height} x {width}: fewer factors or another patch"
            )
        widths = [factor * hidden_features for factor in factors]
        told = 4 * hidden_features
        self.condition = Condition(told, classes)
        self.patch = patch
        self.first = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)
        self.depth = depth
        downward = [w for w in widths for _ in range(depth)]
        upward = downward[::-1]
        ins = pairwise([widths[0], *downward])
        self.down = nn.ModuleList(Block(before, after, told, dropout) for before, after in ins)
        self.middle = Block(widths[-1], widths[-1], told, dropout)
        self.attention = PixelAttention(widths[-1], heads) if heads else nn.Identity()
        ins = pairwise([widths[-1], *upward])
        self.up = nn.ModuleList(Block(before + after, after, told, dropout) for before, after in ins)
        self.norm = norm("group", widths[0], channels_first=True)
        self.last = faint(nn.Conv2d(widths[0], channels * patch**2, 3, padding=1))

    def forward(self, x: Tensor, level: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B, *in_shape], [B] (and int64 [B]) to [B, *in_shape]."""
        told = self.condition(level, labels)
        y = self.first(functional.pixel_unshuffle(x.reshape(-1, *self.image), self.patch))
        kept = []
        for i, block in enumerate(self.down):
            y = functional.avg_pool2d(y, 2) if i and i % self.depth == 0 else y
            y = block(y, told)
            kept.append(y)
        y = self.attention(self.middle(y, told))
        for i, block in enumerate(self.up):
            y = functional.interpolate(y, scale_factor=2, mode="nearest") if i and i % self.depth == 0 else y
            y = block(torch.cat([y, kept.pop()], 1), told)
        return functional.pixel_shuffle(self.last(functional.silu(self.norm(y))), self.patch).reshape(x.shape)


class Layer(nn.Module):
    """x + linear(silu(linear(silu(x)) (1 + scale) + shift)), scale and shift from what the denoiser is told.

    Args:
        features: width of input, output and of the vector that tells.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(features, features)
        self.told = nn.Linear(features, 2 * features)
        self.linear2 = faint(nn.Linear(features, features))

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """[B, features] twice to [B, features]."""
        scale, shift = self.told(told).chunk(2, -1)
        return x + self.linear2(functional.silu(self.linear1(functional.silu(x)) * (1 + scale) + shift))


@register("mlp-denoiser", role="denoiser")
class MLPDenoiser(nn.Module):
    """A residual perceptron for points or tiny images, told the noise's level in every layer.

    torch's default initialisation; the last layers of layers and network are nearly 0 at the start.

    Args:
        in_shape: of one row; flattened.
        hidden_features: width.
        depth: residual layers of two linear layers each.
        classes: of labels; 0 for none.
    """

    def __init__(self, in_shape: tuple[int, ...], hidden_features: int = 128, depth: int = 3, classes: int = 0) -> None:
        super().__init__()
        self.condition = Condition(hidden_features, classes)
        self.first = nn.Linear(math.prod(in_shape), hidden_features)
        self.layers = nn.ModuleList(Layer(hidden_features) for _ in range(depth))
        self.last = faint(nn.Linear(hidden_features, math.prod(in_shape)))

    def forward(self, x: Tensor, level: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B, *in_shape], [B] (and int64 [B]) to [B, *in_shape]."""
        told = self.condition(level, labels)
        y = self.first(x.flatten(1))
        for layer in self.layers:
            y = layer(y, told)
        return self.last(functional.silu(y)).reshape(x.shape)
