"""Pendulum-v1 as pure functions of (state, action, noise), for any leading shape, in float32 or float64.

Equal step by step to Gymnasium's Pendulum-v1 (semi-implicit Euler every 0.05 s, 200 steps; nothing else ends it).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from agents.envs.spaces import box
from agents.envs.transition import Step, TensorEnv

__all__ = ["Pendulum"]

GRAVITY, MASS, LENGTH, DT = 10.0, 1.0, 1.0, 0.05
MAX_SPEED, MAX_TORQUE = 8.0, 2.0
TIME_LIMIT = 200


class Pendulum(TensorEnv):
    """Swing a pendulum up and hold it, by a torque in [-2, 2]; the reward is minus angle, speed and torque squared.

    The state is {"physics": [..., 2] (angle from upright, never wrapped; velocity), "time": [...] steps so far}; the
    observation is cos and sin of the angle, then the velocity.
    """

    obs_shape = (3,)
    action = box((-MAX_TORQUE,), (MAX_TORQUE,))
    reset_shape = (2,)
    max_steps = TIME_LIMIT

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        """Any angle, velocity in [-1, 1); noise [..., 2]."""
        centred = noise * 2 - 1
        physics = torch.stack((centred[..., 0] * math.pi, centred[..., 1]), -1)
        return {"physics": physics, "time": torch.zeros_like(noise[..., 0])}

    def observe(self, state: Mapping[str, Tensor]) -> Tensor:
        """Observation [..., 3]."""
        angle, velocity = state["physics"].unbind(-1)
        return torch.stack((torch.cos(angle), torch.sin(angle), velocity), -1)

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step; torque within [-2, 2] [..., 1], noise unused [..., 0]."""
        angle, velocity = state["physics"].unbind(-1)
        torque = action[..., 0].to(angle.dtype)
        wrapped = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
        cost = wrapped * wrapped + 0.1 * (velocity * velocity) + 0.001 * (torque * torque)
        acceleration = 3 * GRAVITY / (2 * LENGTH) * torch.sin(angle) + 3 / (MASS * LENGTH**2) * torque
        velocity = (velocity + acceleration * DT).clamp(-MAX_SPEED, MAX_SPEED)
        after = {"physics": torch.stack((angle + velocity * DT, velocity), -1), "time": state["time"] + 1}
        truncated = after["time"] >= TIME_LIMIT
        return after, Step(self.observe(after), -cost, torch.zeros_like(truncated), truncated)
