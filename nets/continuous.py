"""What agents with continuous actions are built of: bounded actions, and several critics side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nets.heads import Linear
from nets.registry import build, register

__all__ = ["Ensemble", "TanhHead"]


@register("tanh", role="head")
class TanhHead(Linear):
    """out_features numbers in (-1, 1): a deterministic policy's actions.

    Args:
        in_features: width of the features.
        out_features: number of actions.
        init: see `nets.mlp.init_linear`.
        gain: of an orthogonal initialisation.
        bias: whether a bias is added.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        return torch.tanh(super().forward(x))


@register("ensemble", role="model")
class Ensemble(nn.Module):
    """Networks of one architecture for one input, each with one output: twin critics (Fujimoto et al. 2018).

    Args:
        in_shape: of one row; for critics (observation and action features,).
        out_features: how many networks.
        encoder: the configuration of their encoders.
    """

    def __init__(self, in_shape: tuple[int, ...], out_features: int, encoder: Mapping[str, Any]) -> None:
        super().__init__()
        self.members = nn.ModuleList(build(encoder, in_shape, 1) for _ in range(out_features))

    def forward(self, x: Tensor) -> Tensor:
        """[..., *in_shape] to one value of each network, [..., out_features]."""
        return torch.cat([member(x) for member in self.members], -1)
