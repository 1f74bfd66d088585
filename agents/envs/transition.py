"""What environments return, and what a rollout holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from torch import Tensor

__all__ = ["Act", "Rollout", "Step", "TensorEnv"]

# (params, obs [N, ...], noise [N] or None) -> action [N]
Act = Callable[[Any, Tensor, Tensor | None], Tensor]


class Step(NamedTuple):
    """One step of one environment or many; any leading shape [...].

    Attributes:
        next_obs: observation after the action, before any reset, [..., *obs_shape].
        reward: [...].
        terminated: the episode ended by itself, bool [...].
        truncated: the time limit ended it, bool [...]; its value still counts.
    """

    next_obs: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor


class Rollout(NamedTuple):
    """T steps of N environments of one trial; with lanes every tensor has [K] in front.

    Attributes:
        obs: [T, N, *obs_shape].
        action: int64 [T, N].
        reward: [T, N].
        next_obs: observations before any reset, [T, N, *obs_shape].
        terminated: bool [T, N].
        truncated: bool [T, N].
        episode: the return of an episode that finished at this step, else 0, [T, N].
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminated: Tensor
    truncated: Tensor
    episode: Tensor


class TensorEnv(Protocol):
    """An environment as pure functions of tensors, for any leading shape."""

    obs_shape: tuple[int, ...]
    actions: int
    reset_shape: tuple[int, ...]
    max_steps: int

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        """Fresh episodes from uniform noise [..., *reset_shape]."""
        ...

    def observe(self, state: Any) -> Tensor:
        """Observations [..., *obs_shape]."""
        ...

    def step(self, state: Any, action: Tensor, noise: Tensor) -> tuple[dict[str, Tensor], Step]:
        """One step with immediate resets."""
        ...
