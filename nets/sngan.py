"""SNGAN's residual networks: a generator with (conditional) batch norm, an encoder with spectral norm, a projection.

Papers: Miyato, Kataoka, Koyama & Yoshida 2018, "Spectral Normalization for Generative Adversarial Networks" (the
networks of its tables 3 and 4); Miyato & Koyama 2018, "cGANs with Projection Discriminator" (labels). From them:
pre-activation blocks with ReLU, enlarging by repeated and shrinking by averaged pixels, learned 1 x 1 shortcuts,
Glorot's uniform weights (gain sqrt(2) on the main branch), the sum over all pixels as the discriminator's features.
Deliberate differences:
- no bias in the generator's blocks: a batch norm behind them would remove it;
- any size that doubling reaches from 4 to 7 pixels; one width throughout, as in the networks for 32 x 32;
- the encoder shrinks until the shorter side has 8 pixels at most (28 to 7, 32 to 8, 64 to 8), at least once;
- dense layers that make logits are the head's ("projection", or a linear one).
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from nets.activations import FastTanh
from nets.conv import image_shape
from nets.generators import doublings
from nets.norms import BatchNorm, ConditionalBatchNorm, SpectralConv2d, SpectralLinear
from nets.registry import register

__all__ = ["ProjectionHead", "SNGANEncoder", "SNGANGenerator"]

L = TypeVar("L", nn.Linear, nn.Conv2d)


def glorot(layer: L, gain: float = 1.0) -> L:
    """Glorot's uniform weights (Glorot & Bengio 2010) and zero biases, in place; returns the layer."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    if isinstance(layer, SpectralConv2d | SpectralLinear):
        layer.settle()
    return layer


class GeneratorBlock(nn.Module):
    """Norm, ReLU, doubling, convolution, norm, ReLU, convolution; beside it a doubled 1 x 1 shortcut.

    Args:
        features: channels of input and output.
        classes: of the conditional batch norms; 0 for plain ones.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (batch_norm(features, classes) for _ in range(2))
        gain = math.sqrt(2)
        self.conv1 = glorot(nn.Conv2d(features, features, 3, padding=1, bias=False), gain)
        self.conv2 = glorot(nn.Conv2d(features, features, 3, padding=1, bias=False), gain)
        self.shortcut = glorot(nn.Conv2d(features, features, 1, bias=False))

    def forward(self, x: Tensor, *labels: Tensor) -> Tensor:
        """[B, features, H, W] to [B, features, 2 H, 2 W]."""
        y = self.conv1(doubled(functional.relu(self.norm1(x, *labels))))
        y = self.conv2(functional.relu(self.norm2(y, *labels)))
        return y + doubled(self.shortcut(x))  # 1 x 1 before doubling: equal, and a quarter of the work


def batch_norm(features: int, classes: int) -> nn.Module:
    """Batch norm, conditional if there are classes."""
    return ConditionalBatchNorm(features, classes) if classes else BatchNorm(features)


def doubled(x: Tensor) -> Tensor:
    """Every pixel repeated in a square of four."""
    return functional.interpolate(x, scale_factor=2, mode="nearest")


@register("sngan-generator", role="generator")
class SNGANGenerator(nn.Module):
    """SNGAN's residual generator (Miyato et al. 2018); Glorot's uniform weights.

    Args:
        in_features: Z, width of the noise.
        out_shape: (C, H, W) or (H, W); sides such as 8, 28, 32, 64.
        hidden_features: channels; 256 in the paper.
        classes: of labels, which choose scales and shifts of the batch norms; 0 for none.

    Raises:
        ValueError: the image's size is not reached by doubling.
    """

    def __init__(
        self, in_features: int, out_shape: tuple[int, ...], hidden_features: int = 64, classes: int = 0
    ) -> None:
        super().__init__()
        times, (channels, height, width) = doublings("sngan-generator", out_shape)
        self.base = (hidden_features, height >> times, width >> times)
        self.project = glorot(nn.Linear(in_features, math.prod(self.base)))
        self.blocks = nn.ModuleList(GeneratorBlock(hidden_features, classes) for _ in range(times))
        self.norm = BatchNorm(hidden_features)
        self.to_pixels = glorot(nn.Conv2d(hidden_features, channels, 3, padding=1))
        self.tanh = FastTanh()
        self.classes = classes
        self.out_shape = tuple(out_shape)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B, Z] (and int64 [B]) to [B, *out_shape], pixels in [-1, 1].

        Raises:
            ValueError: labels without classes, or classes without labels.
        """
        if (labels is None) != (self.classes == 0):
            raise ValueError("a generator takes labels exactly if it is built with classes > 0")
        rest = () if labels is None else (labels,)
        x = self.project(z).reshape(-1, *self.base)
        for block in self.blocks:
            x = block(x, *rest)
        x = self.to_pixels(functional.relu(self.norm(x)))
        return self.tanh(x).reshape(-1, *self.out_shape)


class EncoderBlock(nn.Module):
    """ReLU, convolution, ReLU, convolution and a shortcut, all spectrally normalised; both halved where asked.

    Args:
        in_features: channels of the input.
        out_features: channels of the output.
        halve: whether 2 x 2 means halve height and width (odd ones round down).
        first: whether the input is the image, which no ReLU may cut.
    """

    def __init__(self, in_features: int, out_features: int, halve: bool, first: bool = False) -> None:
        super().__init__()
        gain = math.sqrt(2)
        self.conv1 = glorot(SpectralConv2d(in_features, out_features, 3), gain)
        self.conv2 = glorot(SpectralConv2d(out_features, out_features, 3), gain)
        learned = halve or in_features != out_features
        self.shortcut = glorot(SpectralConv2d(in_features, out_features, 1)) if learned else nn.Identity()
        self.halve = halve
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_features, H, W] to [B, out_features, H / 2, W / 2] or the same size."""
        y = self.conv1(x if self.first else functional.relu(x))
        y = self.conv2(functional.relu(y))
        if not self.halve:
            return y + self.shortcut(x)
        # averaging commutes with a 1 x 1 convolution, and costs a quarter in front of it
        return functional.avg_pool2d(y, 2) + self.shortcut(functional.avg_pool2d(x, 2))


@register("sngan", role="encoder")
class SNGANEncoder(nn.Module):
    """SNGAN's residual discriminator without its last layer (Miyato et al. 2018); Glorot's uniform weights.

    Every convolution has a spectral norm of 1 (`nets.norms.SpectralConv2d`): rows do not influence each other, so
    gradient penalties are fine too.

    Args:
        in_shape: (C, H, W) or (H, W), 4 x 4 or more.
        hidden_features: channels, and features that come out; 128 in the paper.
        depth: residual blocks behind those that halve.

    Raises:
        ValueError: no image, or too small.
    """

    def __init__(self, in_shape: tuple[int, ...], hidden_features: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.image = image_shape("sngan", in_shape, smallest=4)
        side = min(self.image[1:])
        blocks = [EncoderBlock(self.image[0], hidden_features, halve=True, first=True)]
        while side >> len(blocks) > 8:
            blocks.append(EncoderBlock(hidden_features, hidden_features, halve=True))
        blocks += [EncoderBlock(hidden_features, hidden_features, halve=False) for _ in range(depth)]
        self.blocks = nn.Sequential(*blocks)
        self.out_features = hidden_features

    def forward(self, x: Tensor) -> Tensor:
        """[B, *in_shape] to [B, out_features]: the sum over the pixels."""
        x = self.blocks(x.reshape(x.shape[0], *self.image))
        return functional.relu(x).sum((2, 3))


@register("projection", role="head")
class ProjectionHead(nn.Module):
    """The projection discriminator's head (Miyato & Koyama 2018): w . f + v_label . f of features f.

    Glorot's uniform weights. Its second input are the labels: `net(images, labels)`.

    Args:
        in_features: width of the features.
        out_features: logits of a row.
        classes: of labels.
        spectral: whether both matrices are spectrally normalised, as in the paper.
        bias: whether w . f has one; relativistic losses do not see it.
    """

    def __init__(
        self, in_features: int, out_features: int, classes: int, spectral: bool = True, bias: bool = False
    ) -> None:
        super().__init__()
        layer = SpectralLinear if spectral else nn.Linear
        self.linear = glorot(layer(in_features, out_features, bias=bias))
        self.by_class = glorot(layer(in_features, classes * out_features, bias=False))
        self.shape = (classes, out_features)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """[B, in_features] and int64 [B] to [B, out_features]."""
        every = self.by_class(features).reshape(-1, *self.shape)  # all classes' products, then one is taken
        index = labels[:, None, None].expand(-1, 1, self.shape[1])
        return self.linear(features) + torch.gather(every, 1, index).squeeze(1)
