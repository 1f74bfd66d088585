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

    The state is {"position": [...], "velocity": [...], "time": [...]}; the observation is position and velocity.
    """

    obs_shape = (2,)
    reset_shape = (1,)

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        """At rest near the bottom: uniform in [-0.6, -0.4)."""
        position = noise[..., 0] * 0.2 - 0.6
        return {"position": position, "velocity": torch.zeros_like(position), "time": torch.zeros_like(position)}

    def observe(self, state: Mapping[str, Tensor]) -> Tensor:
        """Observation [..., 2]."""
        return torch.stack((state["position"], state["velocity"]), -1)

    def _driven(self, state: Mapping[str, Tensor], push: Tensor) -> dict[str, Tensor]:
        """The state after one step with an acceleration `push` [...]; the left wall stops the car."""
        velocity = state["velocity"] + (push + torch.cos(3 * state["position"]) * -GRAVITY)
        velocity = velocity.clamp(-FASTEST, FASTEST)
        position = (state["position"] + velocity).clamp(LOWEST, HIGHEST)
        velocity = torch.where((position == LOWEST) & (velocity < 0), 0.0, velocity)
        return {"position": position, "velocity": velocity, "time": state["time"] + 1}


class MountainCar(_Car):
    """Push left (0), not at all (1) or right (2); reward -1 a step until the car is at 0.5; 200 steps at most."""

    action = discrete(3)
    max_steps = 200

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step; action 0, 1 or 2 [...]."""
        after = self._driven(state, (action.to(state["position"].dtype) - 1) * 0.001)
        terminated = (after["position"] >= 0.5) & (after["velocity"] >= 0)
        reward = -torch.ones_like(after["time"])
        return after, Step(self.observe(after), reward, terminated, after["time"] >= self.max_steps)


class MountainCarContinuous(_Car):
    """Push by a force in [-1, 1]; reward 100 at 0.45, less a tenth of the squared force a step; 999 steps at most."""

    action = box((-1.0,), (1.0,))
    max_steps = 999

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step; action [..., 1]."""
        force = action[..., 0].to(state["position"].dtype)
        after = self._driven(state, force * 0.0015)
        terminated = (after["position"] >= 0.45) & (after["velocity"] >= 0)
        reward = 100.0 * terminated.to(force.dtype) - force * force * 0.1
        return after, Step(self.observe(after), reward, terminated, after["time"] >= self.max_steps)
