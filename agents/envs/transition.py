"""What environments take and return, and what a rollout holds.

Legend: T steps, N environments of one trial, D components of an action; [...] is any leading shape. With lanes every
tensor has [K] in front.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from agents.envs.spaces import ActionSpace

__all__ = ["Policy", "Rollout", "Step", "TensorEnv", "where_done"]

# A function of one trial: (params, carry, obs [N, ...], mask [N, A or 0], noise [N, ...] or None for the deterministic
# action) -> (action [N, ...], carry). `carry` is a dict of tensors [N, ...], a recurrent policy's memory, or {}.
Policy = Callable[[Any, Any, Tensor, Tensor, Tensor | None], tuple[Tensor, Any]]


class Step(NamedTuple):
    """One step of one environment or many.

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
    """T steps of N environments of one trial, as the policy saw them (normalised, where the environments are).

    Attributes:
        obs: [T, N, *obs_shape].
        mask: bool [T, N, A], actions that were allowed at `obs`; [T, N, 0] where the environment gives no masks.
        action: the policy's own, before it was fitted to the environment: [T, N, *action.shape].
        reward: [T, N].
        next_obs: observations before any reset, [T, N, *obs_shape].
        next_mask: of `next_obs`, as `mask`.
        terminated: bool [T, N].
        truncated: bool [T, N].
        episode: the return (never normalised) of an episode that finished at this step, else 0, [T, N].
    """

    obs: Tensor
    mask: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    next_mask: Tensor
    terminated: Tensor
    truncated: Tensor
    episode: Tensor


class TensorEnv:
    """An environment as pure functions of tensors, for any leading shape, in float32 or float64.

    It draws nothing: what is random comes in as uniform noise in [0, 1).

    Attributes:
        obs_shape: of one observation.
        action: what may be done; a box's actions arrive within its bounds.
        reset_shape: shape of the noise that one reset takes.
        step_shape: shape of the noise that one step takes; (0,) where steps are deterministic.
        max_steps: the time limit.
        masked: whether `mask` may be called.
        data_sets: names of the data sets (harness.data) that it shows.
    """

    obs_shape: tuple[int, ...]
    action: ActionSpace
    reset_shape: tuple[int, ...]
    step_shape: tuple[int, ...] = (0,)
    max_steps: int
    masked: bool = False
    data_sets: tuple[str, ...] = ()

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        """Fresh episodes from uniform noise [..., *reset_shape]; floating-point state has the noise's dtype."""
        raise NotImplementedError

    def observe(self, state: Any) -> Tensor:
        """Observations [..., *obs_shape], floating-point."""
        raise NotImplementedError

    def mask(self, state: Any) -> Tensor:
        """Which actions are allowed, bool [..., action.mask_width]."""
        raise NotImplementedError

    def step(self, state: Any, action: Tensor, noise: Tensor) -> tuple[dict[str, Tensor], Step]:
        """One step, without a reset: finished episodes are replaced by the caller.

        Args:
            state: as `reset` gives it.
            action: [..., *action.shape].
            noise: uniform, [..., *step_shape].
        """
        raise NotImplementedError


def where_done(done: Tensor, fresh: Any, after: Any) -> Any:
    """`fresh` where an episode has ended and `after` elsewhere, for every tensor of two dicts.

    Args:
        done: bool [...].
        fresh: tensors [..., *rest].
        after: the same names and shapes.
    """
    return {name: _where(done, value, after[name]) for name, value in fresh.items()}


def _where(done: Tensor, fresh: Tensor, after: Tensor) -> Tensor:
    return torch.where(done.reshape(done.shape + (1,) * (after.dim() - done.dim())), fresh, after)
