"""The plain multi-layer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from nets.activations import activation as activation_named

__all__ = ["MLP", "init_linear"]

Init = Literal["torch", "orthogonal", "kaiming", "zero"]


def init_linear(layer: nn.Linear, init: Init, gain: float = math.sqrt(2)) -> nn.Linear:
    """Initialises a linear layer in place and returns it.

    Args:
        layer: the layer.
        init: "torch" leaves PyTorch's default, "orthogonal" (Saxe et al. 2014) uses `gain` and bias 0,
            "kaiming" is He et al.'s normal with bias 0, "zero" is all zeros.
        gain: of "orthogonal".
    """
    if init == "orthogonal":
        nn.init.orthogonal_(layer.weight, gain)
    elif init == "kaiming":
        nn.init.kaiming_normal_(layer.weight)
    elif init == "zero":
        nn.init.zeros_(layer.weight)
    if init != "torch" and layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class MLP(nn.Module):
    """Linear layers with an activation between them and none after the last.

    Args:
        in_features: width of the input.
        hidden_features: widths of the hidden layers; empty gives one linear layer.
        out_features: width of the output.
        activation: a name in `nets.activations`.
        init: see `init_linear`; hidden layers use gain sqrt(2).
        out_gain: gain of an orthogonal last layer.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: Sequence[int],
        out_features: int,
        activation: str = "relu",
        init: Init = "torch",
        out_gain: float = 1.0,
    ) -> None:
        super().__init__()
        widths = [in_features, *hidden_features]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [init_linear(nn.Linear(before, after), init), activation_named(activation)]
        layers.append(init_linear(nn.Linear(widths[-1], out_features), init, out_gain))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        return self.layers(x)
