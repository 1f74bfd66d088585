"""R3GAN: residual networks without any norm, stable by their initialisation and their loss.

Paper: Huang, Gokaslan, Kuleshov & Tompkin 2024, "The GAN is dead; long live the GAN! A Modern Baseline GAN". From it:
grouped inverted bottlenecks with leaky ReLU (0.2), no norm, Fix-up initialisation (Zhang et al. 2019: the last
convolution of each block is 0, the others shrink with the number of blocks), interpolating resampling, a learned
4 x 4 basis at the small end of both networks, mirrored generator and discriminator. To be trained with the
relativistic loss and R1 + R2 (`generative.losses`).
Deliberate differences:
- one width for all sizes (as its network for CIFAR-10), so a change of size needs no 1 x 1 convolution;
- any size: the basis has 4 to 7 pixels at its shorter side;
- the filter [1, 3, 3, 1] instead of [1, 2, 1] between even sizes, and borders that are repeated instead of 0
  (`nets.resample`);
- a tanh behind the generator, so that its pixels are in [-1, 1] as all generators' here;
- labels enter as a learned vector beside the noise; in the discriminator through the head ("projection").
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from nets.activations import FastTanh
from nets.conv import image_shape
from nets.generators import LabelledNoise, doublings, halvings
from nets.registry import register
from nets.resample import Downsample, Upsample

__all__ = ["R3GANEncoder", "R3GANGenerator"]

L = TypeVar("L", nn.Linear, nn.Conv2d)
SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # keeps the variance through a leaky ReLU (He et al. 2015)


def scaled(layer: L, gain: float = 1.0) -> L:
    """Normal weights of variance gain^2 / inputs and zero biases, in place; returns the layer."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """x + conv1x1(lrelu(grouped conv3x3(lrelu(conv1x1(x))))), twice as wide inside; x itself at the start.

    Args:
        features: channels of input and output.
        group_features: channels of a group; they must divide 2 * features.
        blocks: of the whole network, for Fix-up: weights shrink by blocks^(-1 / 4), as three layers to a block ask.
    """

    def __init__(self, features: int, group_features: int, blocks: int) -> None:
        super().__init__()
        inside = 2 * features
        if inside % group_features:
            raise ValueError(f"group_features={group_features} does not divide 2 * hidden_features = {inside}")
        gain = GAIN * blocks**-0.25
        self.layers = nn.Sequential(
            scaled(nn.Conv2d(features, inside, 1), gain),
            nn.LeakyReLU(SLOPE),
            scaled(nn.Conv2d(inside, inside, 3, padding=1, groups=inside // group_features), gain),
            nn.LeakyReLU(SLOPE),
            scaled(nn.Conv2d(inside, features, 1, bias=False), 0.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, features, H, W] to the same shape."""
        return x + self.layers(x)


@register("r3gan-generator", role="generator")
class R3GANGenerator(nn.Module):
    """R3GAN's generator (Huang et al. 2024); initialised by Fix-up.

    Args:
        in_features: Z, width of the noise.
        out_shape: (C, H, W) or (H, W); sides such as 8, 28, 32, 64.
        hidden_features: channels at every size; 768 in the paper's network for CIFAR-10.
        depth: residual blocks at every size.
        group_features: channels of a group of the 3 x 3 convolutions; they must divide 2 * hidden_features.
        classes: of labels; 0 for none.

    Raises:
        ValueError: the image's size is not reached by doubling, or the groups do not fit.
    """

    def __init__(
        self,
        in_features: int,
        out_shape: tuple[int, ...],
        hidden_features: int = 64,
        depth: int = 2,
        group_features: int = 16,
        classes: int = 0,
    ) -> None:
        super().__init__()
        times, (channels, height, width) = doublings("r3gan-generator", out_shape, at_least=0)
        blocks = depth * (times + 1)
        self.noise = LabelledNoise(in_features, classes)
        self.project = scaled(nn.Linear(self.noise.out_features, hidden_features, bias=False))
        self.basis = nn.Parameter(torch.randn(hidden_features, height >> times, width >> times))
        layers: list[nn.Module] = []
        for i in range(times + 1):
            layers += [Upsample(hidden_features)] if i else []
            layers += [Block(hidden_features, group_features, blocks) for _ in range(depth)]
        self.layers = nn.Sequential(*layers)
        self.to_pixels = scaled(nn.Conv2d(hidden_features, channels, 1, bias=False))
        self.tanh = FastTanh()
        self.out_shape = tuple(out_shape)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B, Z] (and int64 [B]) to [B, *out_shape], pixels in [-1, 1]."""
        x = self.project(self.noise(z, labels))[:, :, None, None] * self.basis
        return self.tanh(self.to_pixels(self.layers(x))).reshape(-1, *self.out_shape)


@register("r3gan", role="encoder")
class R3GANEncoder(nn.Module):
    """R3GAN's discriminator without its last layer (Huang et al. 2024); initialised by Fix-up.

    Blocks and halvings until the shorter side has 4 to 7 pixels (odd sides are rounded down), then one learned
    filter as large as the image for each channel.

    Args:
        in_shape: (C, H, W) or (H, W), 4 x 4 or more.
        hidden_features: channels at every size, and features that come out.
        depth: residual blocks at every size.
        group_features: channels of a group of the 3 x 3 convolutions; they must divide 2 * hidden_features.

    Raises:
        ValueError: no image, or too small, or the groups do not fit.
    """

    def __init__(
        self, in_shape: tuple[int, ...], hidden_features: int = 64, depth: int = 2, group_features: int = 16
    ) -> None:
        super().__init__()
        self.image = image_shape("r3gan", in_shape, smallest=4)
        channels, height, width = self.image
        times = halvings(height, width)
        blocks = depth * (times + 1)
        layers: list[nn.Module] = [scaled(nn.Conv2d(channels, hidden_features, 1, bias=False))]
        for i in range(times + 1):
            layers += [Downsample(hidden_features)] if i else []
            layers += [Block(hidden_features, group_features, blocks) for _ in range(depth)]
        size = (height >> times, width >> times)
        layers.append(scaled(nn.Conv2d(hidden_features, hidden_features, size, groups=hidden_features, bias=False)))
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.out_features = hidden_features

    def forward(self, x: Tensor) -> Tensor:
        """[B, *in_shape] to [B, out_features]."""
        return self.layers(x.reshape(x.shape[0], *self.image))
