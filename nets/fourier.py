"""Perceptrons over sines of their input, which see fine detail on a wide range."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nets.mlp import Init, MLPEncoder
from nets.registry import register

__all__ = ["FourierMLP"]


@register("fourier-mlp", role="encoder")
class FourierMLP(nn.Module):
    """`mlp` on the input beside sines and cosines of it (Tancik et al. 2020, Fourier features).

    A perceptron learns slow functions of its input first and steep ones hardly at all; sines of short waves are steep
    from the start. Waves run in random directions, drawn once and never trained; their lengths fall geometrically,
    so that no scale is preferred.

    Args:
        in_shape: of one row; flattened.
        hidden_features: width of the layers, or the width of each.
        depth: how many layers, where `hidden_features` is one number.
        waves: how many; each gives a sine and a cosine.
        longest: wave, in units of the input.
        shortest: wave, likewise.
        activation: a name in `nets.activations`.
        init: "torch", "orthogonal" (gain sqrt(2)), "kaiming" or "zero"; see `nets.mlp.init_linear`.

    Raises:
        ValueError: there is no layer, or no wave, or the shortest wave is not above 0 and at most the longest.
    """

    turns: Tensor  # radians per unit of the input, [waves, features]

    def __init__(
        self,
        in_shape: tuple[int, ...],
        hidden_features: int | tuple[int, ...] = 64,
        depth: int = 2,
        waves: int = 16,
        longest: float = 8.0,
        shortest: float = 0.25,
        activation: str = "leaky_relu",
        init: Init = "torch",
    ) -> None:
        super().__init__()
        if waves < 1 or not 0 < shortest <= longest:
            raise ValueError(f"waves={waves} of {longest:g} to {shortest:g}: take at least 1, falling, above 0")
        self.axes, features = len(in_shape), math.prod(in_shape)
        direction = torch.nn.functional.normalize(torch.randn(waves, features), dim=-1)
        length = longest * (shortest / longest) ** torch.linspace(0, 1, waves)
        self.register_buffer("turns", 2 * torch.pi * direction / length.unsqueeze(-1))
        self.mlp = MLPEncoder((features + 2 * waves,), hidden_features, depth, activation, init=init)
        self.out_features = self.mlp.out_features

    def forward(self, x: Tensor) -> Tensor:
        """[..., *in_shape] to [..., out_features]."""
        flat = x.flatten(-self.axes)
        angle = flat @ self.turns.mT
        return self.mlp(torch.cat([flat, angle.sin(), angle.cos()], dim=-1))
