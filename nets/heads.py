"""Heads: from an encoder's features to the one raw tensor that a loss or a distribution takes."""

from __future__ import annotations

from torch import Tensor, nn

from nets.mlp import Init, init_linear
from nets.registry import register

__all__ = ["Linear"]


@register("linear", role="head")
class Linear(nn.Module):
    """A linear layer: the plainest head.

    Args:
        in_features: width of the features.
        out_features: width of the output.
        init: see `nets.mlp.init_linear`.
        gain: of an orthogonal initialisation.
        bias: whether a bias is added.
    """

    def __init__(
        self, in_features: int, out_features: int, init: Init = "torch", gain: float = 1.0, bias: bool = True
    ) -> None:
        super().__init__()
        self.linear = init_linear(nn.Linear(in_features, out_features, bias=bias), init, gain)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        return self.linear(x)
