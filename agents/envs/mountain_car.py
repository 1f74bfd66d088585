"""MountainCar-v0 as pure functions of (state, action, noise), for any leading shape, in float32 or float64.

Equal step by step to Gymnasium's MountainCar-v0 (Moore 1990; 200 steps at most).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from agents.envs.spaces import discrete
from agents.envs.transition import Step, TensorEnv

__all__ = ["MountainCar"]

LEFT, RIGHT, MAX_SPEED, GOAL = -1.2, 0.6, 0.07, 0.5
FORCE, GRAVITY = 0.001, 0.0025
TIME_LIMIT = 200


class MountainCar(TensorEnv):
    """Drive a weak car up the right hill by pushing left (0), not (1) or right (2); reward -1 a step.

    The state is {"physics": [..., 2] (position, velocity), "time": [...] steps so far}; the observation is the
    physics.
    """

    obs_shape = (2,)
    action = discrete(3)
    reset_shape = (1,)
    max_steps = TIME_LIMIT

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        """At rest in the valley; noise [..., 1]."""
        position = noise[..., 0] * 0.2 - 0.6
        return {"physics": torch.stack((position, torch.zeros_like(position)), -1), "time": torch.zeros_like(position)}

    def observe(self, state: Mapping[str, Tensor]) -> Tensor:
        """Observation [..., 2]."""
        return state["physics"]

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step; action 0, 1 or 2 [...], noise unused [..., 0]."""
        position, velocity = state["physics"].unbind(-1)
        push = (action.to(position.dtype) - 1) * FORCE
        velocity = (velocity + (push + torch.cos(3 * position) * -GRAVITY)).clamp(-MAX_SPEED, MAX_SPEED)
        position = (position + velocity).clamp(LEFT, RIGHT)
        velocity = torch.where((position == LEFT) & (velocity < 0), 0.0, velocity)  # the wall is inelastic
        physics, time = torch.stack((position, velocity), -1), state["time"] + 1
        terminated = (position >= GOAL) & (velocity >= 0)
        step = Step(physics, -torch.ones_like(time), terminated, time >= TIME_LIMIT)
        return {"physics": physics, "time": time}, step
