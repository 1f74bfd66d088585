"""An agent's two sides: what to do, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from nets.registry import build, register

__all__ = ["ActorCritic"]

MLP = {"kind": "mlp", "hidden_features": (64, 64), "activation": "tanh", "init": "orthogonal"}


@register("actor-critic", role="model")
class ActorCritic(nn.Module):
    """A policy and a value function, each an encoder of its own and a head (Andrychowicz et al. 2021: separate is
    better than shared where observations are short vectors).

    The policy's head starts near indifference (see `nets.heads`), the value's is orthogonal with a gain of 1.

    Args:
        in_shape: of one observation.
        out_features: actions, or whatever the policy's head counts.
        encoder: an encoder's configuration, for both; by default an orthogonal MLP 64-64 with tanh.
        policy: the kind of the policy's head.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        out_features: Any,
        encoder: Mapping[str, Any] | None = None,
        policy: str = "categorical",
    ) -> None:
        super().__init__()
        encoder = encoder or MLP
        value = {"kind": "linear", "out_features": 1, "init": "orthogonal"}
        self.actor = build(encoder, in_shape, {"kind": policy, "out_features": out_features})
        self.critic = build(encoder, in_shape, value)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Observations [B, *in_shape] to (what the policy's distribution takes [B, ...], values [B])."""
        return self.actor(obs), self.critic(obs).squeeze(-1)
