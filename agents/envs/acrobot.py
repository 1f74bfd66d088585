"""Acrobot-v1 as pure functions of (state, action, noise), for any leading shape, in float32 or float64.

Equal step by step to Gymnasium's Acrobot-v1: the dynamics of Sutton & Barto's book (2018, section 11.3), one step of
the Runge-Kutta method of fourth order every 0.2 s, no noise in the torque, 500 steps at most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from agents.envs.spaces import discrete
from agents.envs.transition import Step, TensorEnv

__all__ = ["Acrobot"]

DT = 0.2
MASS = LENGTH = INERTIA = 1.0  # of both links
CENTRE = 0.5  # of mass, along a link
GRAVITY = 9.8
MAX_VELOCITY = (4 * math.pi, 9 * math.pi)
TIME_LIMIT = 500


class Acrobot(TensorEnv):
    """Swing the tip of two links above the bar by a torque of -1, 0 or 1 at the joint; reward -1 until it is there.

    The state is {"physics": [..., 4] (angle of the first link, of the second to the first, their velocities), "time":
    [...] steps so far}; the observation is cos and sin of both angles, then the velocities.
    """

    obs_shape = (6,)
    action = discrete(3)
    reset_shape = (4,)
    max_steps = TIME_LIMIT

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        """Hanging almost still; noise [..., 4]."""
        return {"physics": noise * 0.2 - 0.1, "time": torch.zeros_like(noise[..., 0])}

    def observe(self, state: Mapping[str, Tensor]) -> Tensor:
        """Observation [..., 6]."""
        theta1, theta2, velocity1, velocity2 = state["physics"].unbind(-1)
        angles = (torch.cos(theta1), torch.sin(theta1), torch.cos(theta2), torch.sin(theta2))
        return torch.stack((*angles, velocity1, velocity2), -1)

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step; action 0, 1 or 2 [...], noise unused [..., 0]."""
        physics = _runge_kutta(state["physics"], action.to(state["physics"].dtype) - 1)
        theta1, theta2, velocity1, velocity2 = physics.unbind(-1)
        fast1, fast2 = MAX_VELOCITY
        physics = torch.stack(
            (_wrap(theta1), _wrap(theta2), velocity1.clamp(-fast1, fast1), velocity2.clamp(-fast2, fast2)), -1
        )
        after = {"physics": physics, "time": state["time"] + 1}
        theta1, theta2 = physics[..., 0], physics[..., 1]
        terminated = -torch.cos(theta1) - torch.cos(theta2 + theta1) > 1.0
        reward = terminated.to(physics.dtype) - 1
        return after, Step(self.observe(after), reward, terminated, after["time"] >= TIME_LIMIT)


def _derivative(physics: Tensor, torque: Tensor) -> Tensor:
    """Velocities and accelerations [..., 4]; Sutton & Barto (2018), page 271, in Gymnasium's order of operations."""
    theta1, theta2, velocity1, velocity2 = physics.unbind(-1)
    cos2, sin2 = torch.cos(theta2), torch.sin(theta2)
    d1 = MASS * CENTRE**2 + MASS * (LENGTH**2 + CENTRE**2 + 2 * LENGTH * CENTRE * cos2) + INERTIA + INERTIA
    d2 = MASS * (CENTRE**2 + LENGTH * CENTRE * cos2) + INERTIA
    phi2 = MASS * CENTRE * GRAVITY * torch.cos(theta1 + theta2 - math.pi / 2)
    phi1 = (
        -MASS * LENGTH * CENTRE * (velocity2 * velocity2) * sin2
        - 2 * MASS * LENGTH * CENTRE * velocity2 * velocity1 * sin2
        + (MASS * CENTRE + MASS * LENGTH) * GRAVITY * torch.cos(theta1 - math.pi / 2)
        + phi2
    )
    centrifugal = MASS * LENGTH * CENTRE * (velocity1 * velocity1) * sin2
    acceleration2 = (torque + d2 / d1 * phi1 - centrifugal - phi2) / (
        MASS * CENTRE**2 + INERTIA - d2 * d2 / d1
    )
    acceleration1 = -(d2 * acceleration2 + phi1) / d1
    return torch.stack((velocity1, velocity2, acceleration1, acceleration2), -1)


def _runge_kutta(physics: Tensor, torque: Tensor) -> Tensor:
    """One step of DT seconds of the classical method of fourth order."""
    k1 = _derivative(physics, torque)
    k2 = _derivative(physics + DT / 2 * k1, torque)
    k3 = _derivative(physics + DT / 2 * k2, torque)
    k4 = _derivative(physics + DT * k3, torque)
    return physics + DT / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def _wrap(angle: Tensor) -> Tensor:
    """The angle in [-pi, pi]; both ends stay what they are."""
    above = torch.ceil((angle - math.pi) / (2 * math.pi)).clamp(min=0)
    below = torch.floor((angle + math.pi) / (2 * math.pi)).clamp(max=0)
    return angle - (above + below) * (2 * math.pi)
