"""Convolutions with stride over images, or over clips whose frames lie upon each other as channels."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn

from nets.conv import image_shape
from nets.generators import halvings
from nets.mlp import init_linear
from nets.norms import NormName
from nets.norms import norm as norm_named
from nets.registry import register

__all__ = ["StackedCNN"]


@register("stacked-cnn", role="encoder")
class StackedCNN(nn.Module):
    """Convolutions of 4 x 4 with stride 2, flattened; the frames of a clip are channels (Simonyan & Zisserman 2014).

    The first convolution sees all frames, so it can take differences between any two of them, at the cost of one over
    a single image. Each further one has twice the channels, until the shorter side has 4 to 7 pixels; odd sides are
    rounded down. Leaky ReLU (0.2); weights are He et al.'s normal, biases 0.

    Args:
        in_shape: (T, C, H, W), (C, H, W) or (H, W), 8 x 8 or more.
        hidden_features: channels of the first convolution.
        norm: a name in `nets.norms`, behind all convolutions; not "batch" under a gradient penalty.

    Raises:
        ValueError: neither image nor video, or too small.
    """

    def __init__(self, in_shape: tuple[int, ...], hidden_features: int = 32, norm: NormName = "none") -> None:
        super().__init__()
        stacked = (math.prod(in_shape[:2]), *in_shape[2:]) if len(in_shape) == 4 else in_shape
        self.image = image_shape("stacked-cnn", stacked, smallest=8)
        channels, height, width = self.image
        times = halvings(height, width)
        widths = [channels, *(hidden_features << i for i in range(times))]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            # batch norm takes the mean away, a bias would learn nothing
            conv = nn.Conv2d(before, after, 4, stride=2, padding=1, bias=norm != "batch")
            layers += [
                init_linear(conv, "kaiming"),
                norm_named(norm, after, channels_first=True),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.out_features = widths[-1] * (height >> times) * (width >> times)

    def forward(self, x: Tensor) -> Tensor:
        """[B, *in_shape] to [B, out_features]."""
        return self.layers(x.reshape(x.shape[0], *self.image))
