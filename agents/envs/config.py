"""What every agent's configuration says of its environments; checked before anything starts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from agents.envs.catalogue import spec_of, tensor_env
from agents.envs.spaces import EnvSpec
from agents.envs.wrappers import NORMALISERS
from harness.spec import TransferConfig

__all__ = ["MOST_STEPS", "NORMALISERS", "EnvConfig"]

MOST_STEPS = 10_000  # of an evaluated or recorded episode whose environment has no limit and whose file names none


class EnvConfig(TransferConfig):
    """Environments and evaluation."""

    actions: ClassVar[tuple[str, ...]] = ("discrete", "multi-discrete", "multi-binary", "box")  # that a learner knows

    env: str = Field("CartPole-v1", description="Gymnasium id of the environment, or the name of one of ours")
    env_options: dict[str, Any] = Field(
        default_factory=dict, description="arguments of the environment's constructor"
    )
    wrappers: tuple[str | dict[str, dict[str, Any]], ...] = Field(
        (), description="wrappers by name, innermost first; with options: {frame-stack: {frames: 4}}"
    )
    n_envs: int = Field(1, ge=1, description="environments of one trial")
    env_workers: int | None = Field(
        None,
        ge=0,
        description="processes that step a trial's environments; 0 steps them in the worker itself, quicker for short "
        "steps, but one that hangs or crashes takes the worker with it; null: 0 for those that Gymnasium, ALE and "
        "MiniGrid bring without a wrapper of your own, 1 for all others",
    )
    env_timeout: float = Field(
        60.0, gt=0, description="seconds that one environment in a process may take for one step or reset"
    )
    env_restarts: int = Field(
        1, ge=0, description="how often a trial's environments that hang or die are replaced before the trial fails"
    )
    exact: bool = Field(
        True,
        description="environments that cannot be saved are reset at every checkpoint, so that a resumed run equals an "
        "uninterrupted one; it cuts running episodes off there (their value is bootstrapped); false lets them run on",
    )
    steps: int = Field(100_000, ge=1, description="environment steps to train for, rounded up to whole chunks")
    eval_episodes: int = Field(100, ge=1, description="deterministic episodes of one evaluation")
    eval_sampled_episodes: int = Field(
        0, ge=0, description="episodes of one evaluation with actions drawn as in training"
    )
    eval_max_steps: int = Field(
        MOST_STEPS,
        ge=1,
        description="steps after which an evaluated or recorded episode is cut off, where the environment has no limit "
        "of its own",
    )

    @field_validator("wrappers", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        if isinstance(value, str | dict):
            return (value,)
        return tuple(value) if isinstance(value, list) else value  # a file's list is checked as strictly as Python's

    @property
    def normalises(self) -> tuple[bool, bool]:
        """Whether observations and rewards are divided by their running standard deviations."""
        first, second = NORMALISERS
        return first in self.wrappers, second in self.wrappers

    @property
    def wrapped(self) -> tuple[str | dict[str, dict[str, Any]], ...]:
        """The wrappers that are the environment's own: all but the normalisers, which are part of a trial's state."""
        return tuple(w for w in self.wrappers if w not in NORMALISERS)

    @property
    def env_spec(self) -> EnvSpec:
        """What the environment looks like."""
        spec = spec_of(self.env, self.env_options, self.wrapped)
        return replace(spec, pixels=False) if self.normalises[0] else spec  # normalised pictures are no bytes

    @property
    def cut_after(self) -> int | None:
        """Steps after which an evaluated or recorded episode is cut off; None where the environment has a limit."""
        return None if self.env_spec.max_steps else self.eval_max_steps

    def tell_cut(self, warnings: dict[str, str]) -> None:
        """Adds the sentence for an episode that was cut off to a cohort's warnings."""
        warnings[f"limit {self.env}"] = (
            f"environment '{self.env}' has no time limit: an episode of an evaluation was cut off after"
            f" {self.eval_max_steps:,} steps, and its return is that of those steps (eval_max_steps)"
        )

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The data sets that the environment shows."""
        own = tensor_env(self.env, self.env_options, self.wrapped)
        return own.data_sets if own else ()

    @property
    def held_bytes(self) -> dict[str, int]:
        """Observations of all environments, those of a rollout too, and the order in which epochs go over them."""
        spec = self.env_spec
        row = math.prod(spec.obs_shape) * (1 if spec.pixels else 4)
        rollout = getattr(self, "n_steps", 1)
        orders = {"epochs": self.n_envs * self.epochs * 8} if hasattr(self, "epochs") else {}
        return {**super().held_bytes, **orders, "n_envs" if rollout == 1 else "n_steps": self.n_envs * rollout * row}

    @property
    def chunk(self) -> int:
        """Environment steps of one `advance`."""
        raise NotImplementedError

    @property
    def budget(self) -> int:
        """Environment steps, whole chunks."""
        return -(-self.steps // self.chunk) * self.chunk

    @model_validator(mode="after")
    def _suits(self) -> EnvConfig:
        spec = self.env_spec
        if spec.action.kind not in self.actions:
            known = ", ".join(self.actions)
            raise ValueError(f"env: '{self.env}' has {spec.action.kind} actions; this learner takes {known}")
        return self
