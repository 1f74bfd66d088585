"""Acrobot-v1 as pure functions of (state, action, noise), for any leading shape, in float32 or float64.

Equal step by step to Gymnasium's Acrobot-v1: the equations of Sutton & Barto's book (not those of the NIPS paper of
1996), one Runge-Kutta step of fourth order, no torque noise, 500 steps at most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from agents.envs.spaces import discrete
from agents.envs.transition import Step, TensorEnv

__all__ = ["Acrobot"]

GRAVITY, MASS, LENGTH, CENTRE, INERTIA, TAU = 9.8, 1.0, 1.0, 0.5, 1.0, 0.2
MAX_FIRST, MAX_SECOND = 4 * math.pi, 9 * math.pi  # angular velocities
TIME_LIMIT = 500


class Acrobot(TensorEnv):
    """Swing two links up by a torque of -1, 0 or 1 on their joint; reward -1 a step until the tip is high.

    The state is {"physics": [..., 4] (two angles, two angular velocities), "time": [...]}; the observation is cosine
    and sine of both angles and the velocities.
    """

    obs_shape = (6,)
    action = discrete(3)
    reset_shape = (4,)
    max_steps = TIME_LIMIT

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        """Hanging nearly still: uniform in [-0.1, 0.1)."""
        return {"physics": noise * 0.2 - 0.1, "time": torch.zeros_like(noise[..., 0])}

    def observe(self, state: Mapping[str, Tensor]) -> Tensor:
        """Observation [..., 6]."""
        first, second, first_dot, second_dot = state["physics"].unbind(-1)
        angles = (torch.cos(first), torch.sin(first), torch.cos(second), torch.sin(second))
        return torch.stack((*angles, first_dot, second_dot), -1)

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step; action 0, 1 or 2 [...]."""
        torque = action.to(state["physics"].dtype) - 1
        first, second, first_dot, second_dot = _runge_kutta(state["physics"].unbind(-1), torque)
        first, second = _wrapped(first), _wrapped(second)
        first_dot, second_dot = first_dot.clamp(-MAX_FIRST, MAX_FIRST), second_dot.clamp(-MAX_SECOND, MAX_SECOND)
        time = state["time"] + 1
        after = {"physics": torch.stack((first, second, first_dot, second_dot), -1), "time": time}
        terminated = -torch.cos(first) - torch.cos(second + first) > 1.0
        reward = terminated.to(time.dtype) - 1
        return after, Step(self.observe(after), reward, terminated, time >= TIME_LIMIT)


def _runge_kutta(start: tuple[Tensor, ...], torque: Tensor) -> tuple[Tensor, ...]:
    """The classic method of fourth order over TAU seconds."""

    def ahead(slope: tuple[Tensor, ...], seconds: float) -> tuple[Tensor, ...]:
        return tuple(s + seconds * k for s, k in zip(start, slope, strict=True))

    k1 = _slope(start, torque)
    k2 = _slope(ahead(k1, TAU / 2), torque)
    k3 = _slope(ahead(k2, TAU / 2), torque)
    k4 = _slope(ahead(k3, TAU), torque)
    return tuple(
        s + TAU / 6.0 * (a + 2 * b + 2 * c + d) for s, a, b, c, d in zip(start, k1, k2, k3, k4, strict=True)
    )


def _slope(physics: tuple[Tensor, ...], torque: Tensor) -> tuple[Tensor, ...]:
    """Velocities and accelerations of both angles (Sutton & Barto 1998, figure 11.5)."""
    first, second, first_dot, second_dot = physics
    cos, sin = torch.cos(second), torch.sin(second)
    d1 = MASS * CENTRE**2 + MASS * (LENGTH**2 + CENTRE**2 + 2 * LENGTH * CENTRE * cos) + INERTIA + INERTIA
    d2 = MASS * (CENTRE**2 + LENGTH * CENTRE * cos) + INERTIA
    phi2 = MASS * CENTRE * GRAVITY * torch.cos(first + second - math.pi / 2)
    phi1 = (
        -MASS * LENGTH * CENTRE * second_dot * second_dot * sin
        - 2 * MASS * LENGTH * CENTRE * second_dot * first_dot * sin
        + (MASS * CENTRE + MASS * LENGTH) * GRAVITY * torch.cos(first - math.pi / 2)
        + phi2
    )
    pull = torque + d2 / d1 * phi1 - MASS * LENGTH * CENTRE * first_dot * first_dot * sin - phi2
    second_acc = pull / (MASS * CENTRE**2 + INERTIA - d2 * d2 / d1)
    first_acc = -(d2 * second_acc + phi1) / d1
    return first_dot, second_dot, first_acc, second_acc


def _wrapped(angle: Tensor) -> Tensor:
    """The same direction in [-pi, pi]; angles that are within stay as they are."""
    turns = torch.ceil((angle.abs() - math.pi) / (2 * math.pi)).clamp(min=0)
    return angle - torch.sign(angle) * turns * (2 * math.pi)
