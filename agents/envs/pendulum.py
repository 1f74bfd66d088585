"""Pendulum-v1 as pure functions of (state, action, noise), for any leading shape, in float32 or float64.

Equal step by step to Gymnasium's Pendulum-v1 (gravity 10, semi-implicit Euler steps, 200 steps, never terminated).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from agents.envs.spaces import box
from agents.envs.transition import Step, TensorEnv

__all__ = ["Pendulum"]

GRAVITY, MASS, LENGTH, TAU = 10.0, 1.0, 1.0, 0.05
FASTEST, STRONGEST = 8.0, 2.0
TIME_LIMIT = 200


class Pendulum(TensorEnv):
    """Swing a pendulum up and hold it there by a torque in [-2, 2]; angle, speed and effort, squared, cost reward.

    The state is {"physics": [..., 2] (angle, speed), "time": [...]}; the observation is cosine, sine and speed.
    """

    obs_shape = (3,)
    action = box((-STRONGEST,), (STRONGEST,))
    reset_shape = (2,)
    max_steps = TIME_LIMIT

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        """Any angle, speed in [-1, 1)."""
        angle, speed = noise[..., 0] * (2 * math.pi) - math.pi, noise[..., 1] * 2 - 1
        return {"physics": torch.stack((angle, speed), -1), "time": torch.zeros_like(angle)}

    def observe(self, state: Mapping[str, Tensor]) -> Tensor:
        """Observation [..., 3]."""
        angle, speed = state["physics"].unbind(-1)
        return torch.stack((torch.cos(angle), torch.sin(angle), speed), -1)

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step; action [..., 1]."""
        angle, speed = state["physics"].unbind(-1)
        torque = action[..., 0].to(angle.dtype)
        away = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
        reward = -(away * away + 0.1 * (speed * speed) + 0.001 * (torque * torque))
        pull = 3 * GRAVITY / (2 * LENGTH) * torch.sin(angle) + 3.0 / (MASS * LENGTH**2) * torque
        speed = (speed + pull * TAU).clamp(-FASTEST, FASTEST)
        after = {"physics": torch.stack((angle + speed * TAU, speed), -1), "time": state["time"] + 1}
        never = torch.zeros_like(angle, dtype=torch.bool)
        return after, Step(self.observe(after), reward, never, after["time"] >= TIME_LIMIT)
