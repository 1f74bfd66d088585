"""What agents with continuous actions are built of: bounded actions, and several critics side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nets.heads import Linear
from nets.registry import build, register

__all__ = ["Beside", "Ensemble", "TanhHead"]


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
        in_shape: of one row; for critics (observation and action features,), or a picture's.
        out_features: how many networks.
        encoder: the configuration of their encoders, or of whole networks with one output (`beside`).
    """

    def __init__(self, in_shape: tuple[int, ...], out_features: int, encoder: Mapping[str, Any]) -> None:
        super().__init__()
        self.members = nn.ModuleList(build(encoder, in_shape, 1) for _ in range(out_features))

    def forward(self, *inputs: Tensor) -> Tensor:
        """[..., *in_shape], and what the networks take beside it, to one value of each network, [..., out_features]."""
        return torch.cat([member(*inputs) for member in self.members], -1)


@register("beside", role="model")
class Beside(nn.Module):
    """An encoder of one input, and a vector beside its features: a critic of pictures and actions.

    What the encoder gives and the vector go through one hidden layer with ReLU, so that one may weigh the other.

    Args:
        in_shape: of one row of what the encoder takes.
        out_features: number of outputs.
        encoder: the configuration of the encoder.
        beside_features: width of the vector.
        hidden_features: width of the hidden layer.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        out_features: int,
        encoder: Mapping[str, Any],
        beside_features: int,
        hidden_features: int = 256,
    ) -> None:
        super().__init__()
        seeing: Any = build(encoder, in_shape)
        self.encoder = seeing
        self.mixed = nn.Linear(seeing.out_features + beside_features, hidden_features)
        self.head = nn.Linear(hidden_features, out_features)

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:
        """[B, *in_shape] and [B, beside_features] to [B, out_features]."""
        return self.head(torch.relu(self.mixed(torch.cat([self.encoder(x), beside], -1))))
