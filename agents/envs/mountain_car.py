"""MountainCar-v0 and MountainCarContinuous-v0 as pure functions, for any leading shape, in float32 or float64.

Equal step by step to Gymnasium's (Moore 1990; Sutton & Barto's version). Gymnasium's continuous car keeps its state in
float32; ours keeps the dtype it is given.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from agents.envs.spaces import box, discrete
from agents.envs.transition import Step, TensorEnv

__all__ = ["MountainCar", "MountainCarContinuous"]

LOWEST, HIGHEST, FASTEST, GRAVITY = -1.2, 0.6, 0.07, 0.0025


class _Car(TensorEnv):
    """An underpowered car in a valley.

    The state is {"physics": [..., 2] (position, velocity), "time": [...]}; the observation is the physics.
    """

    obs_shape = (2,)
    reset_shape = (1,)

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        """At rest near the bottom: uniform in [-0.6, -0.4)."""
        position = noise[..., 0] * 0.2 - 0.6
        still = torch.zeros_like(position)
        return {"physics": torch.stack((position, still), -1), "time": still}

    def observe(self, state: Mapping[str, Tensor]) -> Tensor:
        """Observation [..., 2]."""
        return state["physics"]

    def _driven(self, state: Mapping[str, Tensor], push: Tensor, goal: float) -> tuple[dict[str, Tensor], Tensor]:
        """(state after a step with an acceleration `push` [...], whether the goal is reached); a wall stops the car."""
        position, velocity = state["physics"].unbind(-1)
        velocity = (velocity + (push + torch.cos(3 * position) * -GRAVITY)).clamp(-FASTEST, FASTEST)
        position = (position + velocity).clamp(LOWEST, HIGHEST)
        velocity = torch.where((position == LOWEST) & (velocity < 0), 0.0, velocity)
        after = {"physics": torch.stack((position, velocity), -1), "time": state["time"] + 1}
        return after, (position >= goal) & (velocity >= 0)


class MountainCar(_Car):
    """Push left (0), not at all (1) or right (2); reward -1 a step until the car is at 0.5; 200 steps at most."""

    action = discrete(3)
    max_steps = 200

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step; action 0, 1 or 2 [...]."""
        after, terminated = self._driven(state, (action.to(state["time"].dtype) - 1) * 0.001, goal=0.5)
        reward = -torch.ones_like(after["time"])
        return after, Step(after["physics"], reward, terminated, after["time"] >= self.max_steps)


class MountainCarContinuous(_Car):
    """Push by a force in [-1, 1]; reward 100 at 0.45, less a tenth of the squared force a step; 999 steps at most."""

    action = box((-1.0,), (1.0,))
    max_steps = 999

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step; action [..., 1]."""
        force = action[..., 0].to(state["time"].dtype)
        after, terminated = self._driven(state, force * 0.0015, goal=0.45)
        reward = 100.0 * terminated.to(force.dtype) - force * force * 0.1
        return after, Step(after["physics"], reward, terminated, after["time"] >= self.max_steps)
