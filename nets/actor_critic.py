"""An agent's two sides: what to do, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from nets.registry import build, register

__all__ = ["ActorCritic"]

MLP = {"kind": "mlp", "hidden_features": (64, 64), "activation": "tanh", "init": "orthogonal"}
VALUE = {"kind": "linear", "out_features": 1, "init": "orthogonal"}


@register("actor-critic", role="model")
class ActorCritic(nn.Module):
    """A policy and a value function, each an encoder of its own and a head (Andrychowicz et al. 2021: separate is
    better than shared where observations are short vectors), or both heads on one encoder.

    The policy's head starts near indifference (see `nets.heads`), the value's is orthogonal with a gain of 1.

    Args:
        in_shape: of one observation.
        out_features: what the policy's head counts: a number of actions, or a head's configuration.
        encoder: an encoder's configuration, for both; by default an orthogonal MLP 64-64 with tanh.
        policy: the kind of the policy's head, where out_features is a number.
        value: the configuration of the value's head.
        shared: whether both heads see the same encoder.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        out_features: Any,
        encoder: Mapping[str, Any] | None = None,
        policy: str = "categorical",
        value: Mapping[str, Any] | None = None,
        shared: bool = False,
    ) -> None:
        super().__init__()
        encoder, value = encoder or MLP, value or VALUE
        head = out_features if isinstance(out_features, Mapping) else {"kind": policy, "out_features": out_features}
        self.encoder = build(encoder, in_shape) if shared else None
        if self.encoder is None:
            self.actor, self.critic = build(encoder, in_shape, head), build(encoder, in_shape, value)
        else:
            width = self.encoder.out_features
            self.actor = build({**head, "in_features": width})
            self.critic = build({**value, "in_features": width})

    def forward(self, obs: Tensor, side: Literal["both", "actor", "critic"] = "both") -> Any:
        """Observations to (what the policy's distribution takes [B, ...], values [B]), or to one of the two.

        Args:
            obs: [B, *in_shape].
            side: what is wanted.
        """
        features = obs if self.encoder is None else self.encoder(obs)
        if side == "actor":
            return self.actor(features)
        value = self.critic(features).squeeze(-1)
        return value if side == "critic" else (self.actor(features), value)
