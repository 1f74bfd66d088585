"""MountainCarContinuous-v0 as pure functions of (state, action, noise), for any leading shape, in float32 or float64.

Equal step by step to Gymnasium's MountainCarContinuous-v0 (999 steps at most). That one keeps its state in single
precision whatever it computes in, and so does this one: in float64 the state is rounded where Gymnasium rounds it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from agents.envs.spaces import box
from agents.envs.transition import Step, TensorEnv

__all__ = ["MountainCarContinuous"]

LEFT, RIGHT, MAX_SPEED, GOAL = -1.2, 0.6, 0.07, 0.45
POWER, GRAVITY = 0.0015, 0.0025
TIME_LIMIT = 999


class MountainCarContinuous(TensorEnv):
    """Drive a weak car up the right hill by a push in [-1, 1]; 100 at the top, minus 0.1 push^2 a step.

    The state is {"physics": [..., 2] (position, velocity), "time": [...] steps so far}; the observation is the
    physics.
    """

    obs_shape = (2,)
    action = box((-1.0,), (1.0,))
    reset_shape = (1,)
    max_steps = TIME_LIMIT

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        """At rest in the valley; noise [..., 1]."""
        position = _single(noise[..., 0] * 0.2 - 0.6)
        return {"physics": torch.stack((position, torch.zeros_like(position)), -1), "time": torch.zeros_like(position)}

    def observe(self, state: Mapping[str, Tensor]) -> Tensor:
        """Observation [..., 2]."""
        return state["physics"]

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step; action within [-1, 1] [..., 1], noise unused [..., 0]."""
        position, velocity = state["physics"].unbind(-1)
        push = action[..., 0].to(position.dtype)
        velocity = velocity + (push * POWER - GRAVITY * torch.cos(_single(3 * position)))
        velocity = velocity.clamp(-MAX_SPEED, MAX_SPEED)
        position = (position + velocity).clamp(LEFT, RIGHT)
        velocity = torch.where((position == LEFT) & (velocity < 0), 0.0, velocity)  # the wall is inelastic
        terminated = (position >= GOAL) & (velocity >= 0)
        reward = torch.where(terminated, 100.0, 0.0) - push * push * 0.1
        physics, time = _single(torch.stack((position, velocity), -1)), state["time"] + 1
        return {"physics": physics, "time": time}, Step(physics, reward, terminated, time >= TIME_LIMIT)


def _single(x: Tensor) -> Tensor:
    """Rounded to single precision; the dtype stays."""
    return x.to(torch.float32).to(x.dtype)
