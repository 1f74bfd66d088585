"""CartPole-v1 as pure functions of (state, action, noise), for any leading shape, in float32 or
float64.

Equal step by step to Gymnasium's CartPole-v1 (Barto, Sutton & Anderson 1983; Euler integration, 500 steps at
most).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from agents.envs.spaces import discrete
from agents.envs.transition import Step, TensorEnv

__all__ = ["CartPole", "CartPoleNoVel"]

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, TAU = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
TOTAL = CART + POLE
POLE_LENGTH = POLE * HALF_LENGTH
THETA_LIMIT = 12 * 2 * math.pi / 360
X_LIMIT = 2.4
TIME_LIMIT = 500


class CartPole(TensorEnv):
    """Keep the pole upright by pushing the cart left (0) or right (1); reward 1 a step.

    The state is {"physics": [..., 4] (position, velocity, angle, angular velocity), "time": [...] steps so
    far}; the observation is the physics.
    """

    obs_shape = (4,)
    action = discrete(2)
    reset_shape = (4,)
    max_steps = TIME_LIMIT

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        """Fresh episodes.

        Args:
            noise: uniform in [0, 1), [..., 4].
        """
        return {"physics": noise * 0.1 - 0.05, "time": torch.zeros_like(noise[..., 0])}

    def observe(self, state: Mapping[str, Tensor]) -> Tensor:
        """Observation [..., 4]."""
        return state["physics"]

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step.

        Args:
            state: physics [..., 4] and time [...].
            action: 0 or 1, [...].
            noise: unused, [..., 0].
        """
        physics = _dynamics(state["physics"], action)
        time = state["time"] + 1
        x, theta = physics[..., 0], physics[..., 2]
        terminated = (x.abs() > X_LIMIT) | (theta.abs() > THETA_LIMIT)
        step = Step(physics, torch.ones_like(time), terminated, time >= TIME_LIMIT)
        return {"physics": physics, "time": time}, step


class CartPoleNoVel(CartPole):
    """CartPole with its velocities hidden: the observation is position and angle, the rest must be remembered."""

    obs_shape = (2,)

    def observe(self, state: Mapping[str, Tensor]) -> Tensor:
        """Observation [..., 2]."""
        return state["physics"][..., ::2]

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step, as CartPole's."""
        after, step = super().step(state, action, noise)
        return after, step._replace(next_obs=self.observe(after))


def _dynamics(physics: Tensor, action: Tensor) -> Tensor:
    """Florian, Correct equations for the dynamics of the cart-pole system (2007), without friction."""
    x, x_dot, theta, theta_dot = physics.unbind(-1)
    force = action.to(physics.dtype) * (2 * FORCE) - FORCE
    cos, sin = torch.cos(theta), torch.sin(theta)
    # the order of operations is Gymnasium's: the dynamics are unstable and let rounding differences grow
    temp = (force + POLE_LENGTH * (theta_dot * theta_dot) * sin) / TOTAL
    theta_acc = (GRAVITY * sin - cos * temp) / (HALF_LENGTH * (4.0 / 3.0 - POLE * (cos * cos) / TOTAL))
    x_acc = temp - POLE_LENGTH * theta_acc * cos / TOTAL
    return torch.stack(
        (x + TAU * x_dot, x_dot + TAU * x_acc, theta + TAU * theta_dot, theta_dot + TAU * theta_acc), dim=-1
    )
