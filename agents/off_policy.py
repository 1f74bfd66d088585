"""What `sac` and `td3` share: the configuration of learning continuous actions from a replay, and its rhythm.

Legend: N environments, B rows of a batch, D components of an action.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor

from agents.envs.spaces import see
from agents.replay import replay_take
from agents.replay_config import ReplayConfig
from harness.blocks import check_builds, encoder_config
from harness.spec import PerLaneFloat, Recipe
from nets.registry import build

__all__ = ["Batch", "OffPolicyConfig", "batch_of", "critic_inputs", "uniform_of"]

STEPS_AT_ONCE = 16  # environment steps of one `advance`, where a round has fewer

if TYPE_CHECKING:
    Net = Any
else:
    Net = encoder_config("mlp", {"mlp": {"hidden_features": (256, 256)}})


class OffPolicyConfig(ReplayConfig):
    """Box actions, a target network that follows, and rounds that are as long as one call is worth."""

    actions = ("box",)

    env: str = Field("Pendulum-v1", description="Gymnasium id of the environment, or the name of one of ours")
    steps: int = Field(20_000, ge=1, description="environment steps to train for, rounded up to whole chunks")
    tau: PerLaneFloat = Field(
        0.005, ge=0, le=1, description="share of the network in its target network at every update of the latter"
    )
    net: Net = Field(
        default_factory=dict,
        validate_default=True,
        description="the hidden layers of the actor, and of both critics for flat observations beside actions; where "
        "it takes pictures only, actions join its features before a last hidden layer of 256 units",
    )

    @model_validator(mode="after")
    def _can_learn(self) -> OffPolicyConfig:
        if not self.env_spec.action.bounded:
            raise ValueError(
                f"env: an action of '{self.env}' has no finite bounds, and this learner acts between bounds; "
                "take ppo or a2c"
            )
        try:
            check_builds(self.net, self.env_spec.obs_shape, self.action_features)
            if not self.pictures_apart:
                check_builds(self.net, self._flat, 1)
        except ValueError as error:
            raise ValueError(f"net: {error}") from None
        return self

    @property
    def rounds(self) -> int:
        """Rounds of one `advance`."""
        return max(1, STEPS_AT_ONCE // self.round)

    @property
    def chunk(self) -> int:
        """Environment steps of one `advance`."""
        return self.round * self.rounds

    @property
    def encoder_recipe(self) -> Recipe:
        """The actor, whose outputs are of no matter here."""
        return Recipe(self.net.model_dump(), self.env_spec.obs_shape, self.action_features)

    @property
    def action_features(self) -> int:
        """Components of an action, D."""
        return self.env_spec.action.shape[0]

    @property
    def pictures_apart(self) -> bool:
        """Whether `net` takes observations as they are but no vector: then actions cannot stand beside them."""
        spec = self.env_spec
        if len(spec.obs_shape) == 1:
            return False
        try:
            check_builds(self.net, self._flat, 1)
        except ValueError:
            return True
        return False

    @property
    def critic_shape(self) -> tuple[int, ...]:
        """Of what the critics' encoders see: a flat observation and an action, or the observation alone."""
        return self.env_spec.obs_shape if self.pictures_apart else self._flat

    @property
    def critics(self) -> dict[str, Any]:
        """The configuration of both critics, as `nets.registry.build` takes it."""
        net = self.net.model_dump()
        if self.pictures_apart:
            net = {"kind": "beside", "encoder": net, "beside_features": self.action_features}
        return {"kind": "ensemble", "encoder": net}

    @property
    def _flat(self) -> tuple[int]:
        return (math.prod(self.env_spec.obs_shape) + self.action_features,)

    def eager_seconds(self, lanes: int) -> float:
        """Expected cost of a cohort run eagerly on one core.

        A gradient step takes 16 products of a batch with a network, at 7e10 operations a second. The rest was
        measured: 2 ms an environment step, 25 ms a gradient step however many lanes, 60 ns for every weight and lane.
        """
        with torch.device("meta"):
            weights = sum(p.numel() for p in build(self.critics, self.critic_shape, 1).parameters())
        update = 25e-3 + lanes * weights * (16 * 2 * self.batch / 7e10 + 6e-8)
        return self.budget / self.round * (2e-3 * self.train_freq + update * self.updates)


class Batch(NamedTuple):
    """Rows of the replay (one trial): obs [B, *obs_shape], action [B, D], reward, next_obs, terminated."""

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminated: Tensor


def batch_of(replay: dict[str, Tensor], index: Tensor) -> Batch:
    """Rows of every lane, [K, B, ...], as networks take them: ends are numbers 0 and 1.

    Args:
        replay: see `agents.replay`.
        index: int64 [K, B].
    """
    rows = replay_take(replay, index)
    dtype = rows["reward"].dtype
    obs, next_obs = (see(rows[name], dtype) for name in ("obs", "next_obs"))
    return Batch(obs, rows["action"], rows["reward"], next_obs, rows["terminated"].to(dtype))


def critic_inputs(obs: Tensor, action: Tensor, apart: bool) -> tuple[Tensor, ...]:
    """What critics take: observations [B, *obs_shape] and actions [B, D], in one tensor unless they stay apart."""
    return (obs, action) if apart else (torch.cat([obs.flatten(1), action], -1),)


def uniform_of(normal: Tensor) -> Tensor:
    """Numbers uniform in (-1, 1) from standard normal ones of the same shape: twice their distribution function - 1."""
    return torch.erf(normal / math.sqrt(2))
