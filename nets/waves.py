"""Images as sums of plane waves whose phases the noise shifts: what is seen moves by any part of a pixel at no cost.

Papers: Karras et al. 2021 (StyleGAN3: the generator's input is a map of plane waves that a learned affine function of
the code translates); Skorokhodov et al. 2021 (INR-GAN: an image is a function of coordinates). Why: Liu et al. 2018
(CoordConv) show that transposed convolutions hardly learn to draw a given thing at a given place.
Deliberate differences: waves are summed into the image at once, without layers behind them; they have the period of an
image twice as high and wide, so that nothing comes back at the other side.

Legend: B images, C channels, N waves, Z features of the noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nets.conv import image_shape
from nets.generators import LabelledNoise
from nets.mlp import MLP
from nets.registry import register

__all__ = ["WaveGenerator", "plane_waves"]


def plane_waves(height: int, width: int, shortest: float) -> list[tuple[float, float]]:
    """Waves (along y, along x), in radians a pixel, whose sums are all smooth images of a torus twice as large.

    Args:
        height: of the image, in pixels.
        width: likewise.
        shortest: wave, in pixels; of two waves of opposite direction, which are the same, one is taken.
    """
    reach = 2 * max(height, width)
    lattice = [(math.pi * i / height, math.pi * j / width) for i in range(-reach, reach + 1) for j in range(reach + 1)]
    bound = 2 * math.pi / shortest * (1 + 1e-9)
    return [(y, x) for y, x in lattice if math.hypot(y, x) <= bound and (x > 0 or y >= 0)]


@register("wave-generator", role="generator")
class WaveGenerator(nn.Module):
    """Sums of plane waves: a perceptron says how much of each, a linear layer by how much all are shifted; then tanh.

    Args:
        in_features: Z, width of the noise.
        out_shape: of a sample: (C, H, W) or (H, W).
        place_features: the last so many of the noise's features decide only where the image is, and alone decide it; 0:
            all decide what is seen and where.
        hidden_features: width of the perceptron's hidden layers.
        depth: how many hidden layers.
        activation: a name in `nets.activations`.
        shortest: wave, in pixels; 2 is the shortest that pixels can show.
        smooth: width in pixels of the blobs that are drawn at the start; shorter waves start weaker.
        reach: the place's gain: by how many times further than a linear layer's default it moves at the start.
        classes: of labels, which decide with the noise what is seen; 0 for none.

    Raises:
        ValueError: no image, or no feature is left for what is seen, or there is no wave.
    """

    waves: Tensor  # radians a pixel along (y, x), [N, 2]
    basis: Tensor  # cosines, then sines of the waves at all pixels, [2 N, H * W]
    weights: Tensor  # of the waves at the start, [N]

    def __init__(
        self,
        in_features: int,
        out_shape: tuple[int, ...],
        place_features: int = 0,
        hidden_features: int = 128,
        depth: int = 3,
        activation: str = "leaky_relu",
        shortest: float = 4.0,
        smooth: float = 2.0,
        reach: float = 3.0,
        classes: int = 0,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape("wave-generator", out_shape)
        if not 0 <= place_features < in_features:
            raise ValueError(f"place_features={place_features} of {in_features} leaves nothing for what is seen")
        if shortest < 2:
            raise ValueError(f"shortest={shortest:g}: pixels show no wave shorter than 2")
        waves = torch.tensor(plane_waves(height, width, shortest))
        y, x = torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
        angle = (waves[:, :1, None] * y[:, None] + waves[:, 1:, None] * x).flatten(1)
        fall = torch.exp(-0.5 * (smooth * waves.norm(dim=-1)).square())
        self.register_buffer("waves", waves)
        self.register_buffer("basis", torch.cat([angle.cos(), angle.sin()]))
        self.register_buffer("weights", 3.0 * fall / fall.norm())
        self.split = (in_features - place_features, place_features) if place_features else (in_features, in_features)
        self.noise = LabelledNoise(self.split[0], classes)
        outputs = channels * 2 * len(waves)
        self.picture = MLP(self.noise.out_features, [hidden_features] * depth, outputs, activation)
        self.place = nn.Linear(self.split[1], 2)
        with torch.no_grad():
            self.place.weight *= reach
        self.out_shape = tuple(out_shape)
        self.channels = channels

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B, Z] (and int64 [B]) to [B, *out_shape], pixels in [-1, 1]."""
        shown = self.picture(self.noise(z[:, : self.split[0]], labels)).unflatten(-1, (self.channels, 2, -1))
        cosines, sines = (self.weights * shown).unbind(-2)  # [B, C, N]
        shift = self.place(z[:, -self.split[1] :]) @ self.waves.mT  # radians, [B, N]
        cos, sin = shift.cos().unsqueeze(1), shift.sin().unsqueeze(1)
        # a cos(u - s) + b sin(u - s) = (a cos s - b sin s) cos u + (a sin s + b cos s) sin u
        moved = torch.cat([cosines * cos - sines * sin, cosines * sin + sines * cos], -1)
        return torch.tanh(moved @ self.basis).reshape(-1, *self.out_shape)
