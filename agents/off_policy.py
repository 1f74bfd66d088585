"""What `sac` and `td3` share: the configuration of learning continuous actions from a replay, and its rhythm.

Legend: N environments, B rows of a batch, D components of an action.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from agents.envs import EnvConfig
from agents.envs.spaces import see
from agents.replay import replay_take
from harness.blocks import check_builds, encoder_config
from harness.spec import PerLaneFloat
from nets.registry import build

__all__ = ["WORST", "Batch", "OffPolicyConfig", "batch_of", "uniform_of"]

WORST = -3300.0  # what a diverged trial counts as: below the lowest return of Pendulum-v1, -3,256
STEPS_AT_ONCE = 16  # environment steps of one `advance`, where a round has fewer

if TYPE_CHECKING:
    Net = Any
else:
    Net = encoder_config("mlp", {"mlp": {"hidden_features": (256, 256)}})


class OffPolicyConfig(EnvConfig):
    """Box actions, a replay, and gradient steps between environment steps."""

    actions = ("box",)

    env: str = Field("Pendulum-v1", description="Gymnasium id of the environment, or the name of one of ours")
    steps: int = Field(20_000, ge=1, description="environment steps to train for, rounded up to whole chunks")
    train_freq: int = Field(1, ge=1, description="steps of every environment in one round")
    gradient_steps: int = Field(
        1, ge=-1, description="gradient steps after every round; -1: as many as the round has environment steps"
    )
    learning_starts: int = Field(
        100, ge=0, description="environment steps with uniformly random actions before the first gradient step"
    )
    batch: int = Field(256, ge=1, description="rows of a gradient step")
    buffer_size: int = Field(1_000_000, ge=1, description="environment steps that the replay keeps")
    gamma: PerLaneFloat = Field(0.99, ge=0, le=1, description="discount of future rewards")
    tau: PerLaneFloat = Field(
        0.005, ge=0, le=1, description="share of the network in its target network at every update of the latter"
    )
    lr: PerLaneFloat = Field(1e-3, ge=0, description="learning rate of every Adam at the start")
    lr_schedule: Literal["linear", "constant"] = Field(
        "constant", description="linear: falls to 0 at the last step"
    )
    net: Net = Field(
        default_factory=dict,
        validate_default=True,
        description="the hidden layers of the actor, and of both critics for flat observations beside actions",
    )

    @field_validator("gradient_steps")
    @classmethod
    def _some(cls, steps: int) -> int:
        if steps == 0:
            raise ValueError("0 would learn nothing; give 1 or more, or -1 for one per environment step")
        return steps

    @model_validator(mode="after")
    def _can_learn(self) -> OffPolicyConfig:
        if not self.env_spec.action.bounded:
            raise ValueError(
                f"env: an action of '{self.env}' has no finite bounds, and this learner acts between bounds; "
                "take ppo or a2c"
            )
        try:
            check_builds(self.net, self.env_spec.obs_shape, self.action_features)
            check_builds(self.net, (self.critic_features,), 1)
        except ValueError as error:
            raise ValueError(f"net: {error}") from None
        if self.ring < self.train_freq:
            raise ValueError(
                f"buffer_size: {self.buffer_size} keeps {self.ring} steps of each of {self.n_envs} environments, "
                f"a round has train_freq = {self.train_freq}; raise buffer_size"
            )
        if self.learning_starts >= self.budget:
            raise ValueError(
                f"learning_starts: {self.learning_starts} leaves no gradient step before the end at {self.budget}; "
                "lower it or raise steps"
            )
        return self

    @property
    def round(self) -> int:
        """Environment steps between two series of gradient steps."""
        return self.n_envs * self.train_freq

    @property
    def rounds(self) -> int:
        """Rounds of one `advance`."""
        return max(1, STEPS_AT_ONCE // self.round)

    @property
    def chunk(self) -> int:
        """Environment steps of one `advance`."""
        return self.round * self.rounds

    @property
    def updates(self) -> int:
        """Gradient steps after one round."""
        return self.round if self.gradient_steps == -1 else self.gradient_steps

    @property
    def ring(self) -> int:
        """Steps of every environment that the replay has room for: never more than there will be."""
        return min(self.buffer_size, self.budget) // self.n_envs

    @property
    def action_features(self) -> int:
        """Components of an action, D."""
        return self.env_spec.action.shape[0]

    @property
    def critic_features(self) -> int:
        """Width of what a critic sees: a flat observation and an action."""
        return math.prod(self.env_spec.obs_shape) + self.action_features

    @property
    def seconds_per_progress(self) -> float:
        """Eager cost of one step of one lane among 8."""
        return self.eager_seconds(8) / (8 * self.budget)

    def eager_seconds(self, lanes: int) -> float:
        """Expected cost of a cohort run eagerly on one core.

        A gradient step takes 16 products of a batch with a network, at 7e10 operations a second. The rest was
        measured: 2 ms an environment step, 25 ms a gradient step however many lanes, 60 ns for every weight and lane.
        """
        with torch.device("meta"):
            weights = sum(p.numel() for p in build(self.net.model_dump(), self.critic_features, 1).parameters())
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


def uniform_of(normal: Tensor) -> Tensor:
    """Numbers uniform in (-1, 1) from standard normal ones of the same shape: twice their distribution function - 1."""
    return torch.erf(normal / math.sqrt(2))
