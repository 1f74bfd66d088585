"""What generators share - sizes and labels - and the plain one, a perceptron.

A generator turns noise [B, Z] into samples [B, *out_shape]; images have pixels in [-1, 1]. One that is built with
`classes` above 0 is called with labels too: `net(z, labels)`. A discriminator needs no class of its own: it is an
encoder ("mlp", "dcgan", "sngan", "r3gan", ...) and a head, so the encoder can go on as a classifier's or an agent's.

    generator = build({"kind": "dcgan-generator"}, input_shape=64, output=(1, 28, 28))
    critic = build({"kind": "dcgan", "norm": "none"}, (1, 28, 28), {"kind": "linear", "out_features": 1, "bias": False})

The head has no bias, because relativistic losses see differences of logits only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nets.activations import activation as activation_named
from nets.mlp import MLP
from nets.registry import register

__all__ = ["LabelledNoise", "MLPGenerator", "doublings", "halvings"]


def halvings(height: int, width: int) -> int:
    """How often an image is halved until its shorter side has 4 to 7 pixels; smaller ones are not."""
    return max(min(height, width).bit_length() - 3, 0)


def doublings(kind: str, out_shape: tuple[int, ...], at_least: int = 1) -> tuple[int, tuple[int, int, int]]:
    """How a generator reaches a size: (how often it doubles, (channels, height, width) of the image).

    It starts from a shorter side of 4 to 7 pixels: 28 = 7 * 2 * 2, 32 = 4 * 2 * 2 * 2.

    Args:
        kind: the generator's, for the message.
        out_shape: (C, H, W) or (H, W).
        at_least: doublings that the generator needs.

    Raises:
        ValueError: no image, or height and width are not reached by doubling.
    """
    if len(out_shape) not in (2, 3):
        raise ValueError(f"'{kind}' makes images (channels, height, width) or (height, width), not {out_shape}")
    channels, height, width = out_shape if len(out_shape) == 3 else (1, *out_shape)
    times = halvings(height, width)
    if times < at_least or min(height, width) < 4 or height % 2**times or width % 2**times:
        raise ValueError(
            f"'{kind}' doubles an image at least {at_least} times, from a shorter side of 4 to 7 pixels: "
            f"{height} x {width} is not reached; sides such as 8, 10, 12, 14, 28, 32, 64 are"
        )
    return times, (channels, height, width)


class LabelledNoise(nn.Module):
    """Noise with a learned vector of its label beside it (Mirza & Osindero 2014), standard normal at the start.

    Args:
        in_features: Z, width of the noise and of the vectors.
        classes: how many; 0 leaves the noise as it is.
    """

    def __init__(self, in_features: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, in_features) if classes else None
        self.out_features = 2 * in_features if classes else in_features

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B, Z] and, with classes, int64 [B] to [B, out_features].

        Raises:
            ValueError: labels without classes, or classes without labels.
        """
        if (labels is None) != (self.embedding is None):
            raise ValueError("a generator takes labels exactly if it is built with classes > 0")
        return z if self.embedding is None else torch.cat([z, self.embedding(labels)], -1)


@register("mlp-generator", role="generator")
class MLPGenerator(nn.Module):
    """A perceptron from noise to points or small images (Goodfellow et al. 2014); torch's default initialisation.

    Args:
        in_features: Z, width of the noise.
        out_shape: of a sample: (F,), (H, W), (C, H, W).
        hidden_features: width of the hidden layers.
        depth: how many hidden layers.
        activation: a name in `nets.activations`.
        bounded: whether a tanh keeps the numbers in [-1, 1], as pixels are; False for points.
        classes: of labels; 0 for none.
    """

    def __init__(
        self,
        in_features: int,
        out_shape: tuple[int, ...],
        hidden_features: int = 128,
        depth: int = 3,
        activation: str = "leaky_relu",
        bounded: bool = True,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.noise = LabelledNoise(in_features, classes)
        self.body = MLP(self.noise.out_features, [hidden_features] * depth, math.prod(out_shape), activation)
        self.last = activation_named("tanh" if bounded else "identity")
        self.out_shape = tuple(out_shape)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B, Z] (and int64 [B]) to [B, *out_shape]."""
        return self.last(self.body(self.noise(z, labels))).reshape(-1, *self.out_shape)
