"""An agent's two sides: what to do, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from nets.mlp import Init
from nets.registry import build, register

__all__ = ["ActorCritic"]

MLP = {"kind": "mlp", "hidden_features": (64, 64), "activation": "tanh", "init": "orthogonal"}


@register("actor-critic", role="model")
class ActorCritic(nn.Module):
    """A policy and a value function, each an encoder of its own and a head (Andrychowicz et al. 2021: separate is
    better than shared where observations are short vectors), or one encoder with two heads (Mnih et al. 2016).

    The policy's head starts near indifference (see `nets.heads`), the value's is orthogonal with a gain of 1.

    Args:
        in_shape: of one observation.
        out_features: actions, or whatever the policy's head counts.
        encoder: an encoder's configuration, for both; by default an orthogonal MLP 64-64 with tanh.
        policy: the kind of the policy's head, or {"kind": ..., and its fields}.
        shared: whether both sides have one encoder.
        value_init: of the value's head, see `nets.mlp.init_linear`.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        out_features: Any,
        encoder: Mapping[str, Any] | None = None,
        policy: str | Mapping[str, Any] = "categorical",
        shared: bool = False,
        value_init: Init = "orthogonal",
    ) -> None:
        super().__init__()
        fields = {"kind": policy} if isinstance(policy, str) else dict(policy)
        heads = {**fields, "out_features": out_features}, {"kind": "linear", "out_features": 1, "init": value_init}
        self.encoder = build(encoder or MLP, in_shape) if shared else nn.Identity()
        if shared:
            width = {"in_features": self.encoder.out_features}
            self.actor, self.critic = (build({**head, **width}) for head in heads)
        else:
            self.actor, self.critic = (build(encoder or MLP, in_shape, head) for head in heads)

    def forward(self, obs: Tensor, side: Literal["both", "actor", "critic"] = "both") -> Any:
        """Observations [B, *in_shape] to (what the policy's distribution takes [B, ...], values [B]), or one."""
        features = self.encoder(obs)
        if side == "actor":
            return self.actor(features)
        value = self.critic(features).squeeze(-1)
        return value if side == "critic" else (self.actor(features), value)
