"""Returns and advantages: pure functions of one trial's steps, whether an agent's or a writer's of text.

Legend: T steps, N environments or sentences of one trial, K lanes.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Episodes", "Steps", "gae", "mean_return"]


class Steps(Protocol):
    """What was earned: `reward` [T, N], and where episodes ended, bool [T, N]: by themselves or by a limit."""

    @property
    def reward(self) -> Tensor: ...
    @property
    def terminated(self) -> Tensor: ...
    @property
    def truncated(self) -> Tensor: ...


class Episodes(Protocol):
    """Episodes that ended, [K, T, N]: their returns in `episode`, 0 where none did."""

    @property
    def terminated(self) -> Tensor: ...
    @property
    def truncated(self) -> Tensor: ...
    @property
    def episode(self) -> Tensor: ...


def gae(rollout: Steps, value: Tensor, next_value: Tensor, gamma: Any, lam: Any) -> Tensor:
    """Generalised advantages (Schulman et al. 2016), equation 16: A_t = d_t + gamma lambda A_{t+1}, cut where episodes
    end.

    The linear recursion over T is computed by doubling (Hillis & Steele 1986) in log2(T) steps over all t at once.

    Args:
        rollout: reward, terminated and truncated [T, N].
        value: of obs, [T, N].
        next_value: of next_obs (before resets), [T, N]; counts unless terminated.
        gamma: discount.
        lam: lambda.

    Returns:
        Advantages [T, N].
    """
    goes_on = (~(rollout.terminated | rollout.truncated)).to(value.dtype)
    alive = (~rollout.terminated).to(value.dtype)
    total = rollout.reward + gamma * alive * next_value - value  # d_t
    decay = gamma * lam * goes_on
    step, steps = 1, value.shape[0]
    while step < steps:
        total = total + decay * _shifted(total, step)
        decay = decay * _shifted(decay, step)
        step *= 2
    return total


def mean_return(rollout: Episodes, before: Tensor) -> Tensor:
    """Mean return [K] of the episodes that ended in a rollout [K, T, N], or `before` where none did."""
    ended = (rollout.terminated | rollout.truncated).flatten(1).sum(1)
    mean = rollout.episode.flatten(1).sum(1) / ended.clamp(min=1)
    return torch.where(ended > 0, mean, before)


def _shifted(x: Tensor, step: int) -> Tensor:
    """x[t + step] at t, and 0 beyond the end."""
    return torch.cat([x[step:], torch.zeros_like(x[:step])])
