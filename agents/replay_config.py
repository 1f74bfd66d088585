"""What every learner that has a replay says of it, and of its rhythm: rounds of environment steps, each followed by
gradient steps.

Legend: N environments.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator, model_validator

from agents.envs import EnvConfig
from harness.spec import PerLaneFloat

__all__ = ["ReplayConfig"]


class ReplayConfig(EnvConfig):
    """A replay, and gradient steps between environment steps."""

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
    lr: PerLaneFloat = Field(1e-3, ge=0, description="learning rate of every Adam at the start")
    lr_schedule: Literal["linear", "constant"] = Field("constant", description="linear: falls to 0 at the last step")

    @field_validator("gradient_steps")
    @classmethod
    def _some(cls, steps: int) -> int:
        if steps == 0:
            raise ValueError("0 would learn nothing; give 1 or more, or -1 for one per environment step")
        return steps

    @model_validator(mode="after")
    def _has_room_and_time(self) -> ReplayConfig:
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
    def held_bytes(self) -> dict[str, int]:
        """The replay's observations beside the environments' own."""
        spec = self.env_spec
        row = math.prod(spec.obs_shape) * (1 if spec.pixels else 4)
        return {**super().held_bytes, "buffer_size": self.ring * self.n_envs * row}

    @property
    def round(self) -> int:
        """Environment steps between two series of gradient steps."""
        return self.n_envs * self.train_freq

    @property
    def updates(self) -> int:
        """Gradient steps after one round."""
        return self.round if self.gradient_steps == -1 else self.gradient_steps

    @property
    def ring(self) -> int:
        """Steps of every environment that the replay has room for: never more than there will be."""
        return min(self.buffer_size, self.budget) // self.n_envs

    @property
    def seconds_per_progress(self) -> float:
        """Eager cost of one step of one lane among 8."""
        return self.eager_seconds(8) / (8 * self.budget)

    def eager_seconds(self, lanes: int) -> float:
        """Expected cost of a cohort run eagerly on one core."""
        raise NotImplementedError
