"""Running normalisers of what an agent sees and earns: pure functions, state in and state out.

    state = normaliser_init((4,))
    state = normaliser_update(state, observations)      # [..., 4]
    x = normalise(state, observations)                  # about mean 0 and variance 1, clipped

Functions of one trial like all else: under vmap every lane has its own state. The state is kept in float64, where
counting and merging stay exact for any number of rows. Frozen moments (evaluation) are a state that is not updated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "normalise",
    "normalise_rewards",
    "normaliser_init",
    "normaliser_update",
    "normaliser_variance",
    "rewards_init",
    "rewards_update",
]


# Observations: mean and variance of all rows seen so far


def normaliser_init(
    shape: Sequence[int], dtype: torch.dtype = torch.float64, device: str | torch.device = "cpu"
) -> dict[str, Tensor]:
    """The state before any row: {"count": 0-dim, "mean": [*shape], "m2": [*shape], the sum of squared deviations}.

    Args:
        shape: of one row.
        dtype: float32 stops counting at 2^24 rows.
        device: where the state lives.
    """
    zeros = torch.zeros(tuple(shape), dtype=dtype, device=device)
    return {"count": torch.zeros((), dtype=dtype, device=device), "mean": zeros, "m2": zeros.clone()}


def normaliser_update(state: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """The state after more rows: two sets' moments merged (Chan et al. 1979), exact up to rounding.

    Args:
        state: of `normaliser_init`, or the last one.
        rows: [..., *shape], at least one; NaN in a row makes that feature's moments NaN for good.
    """
    rows = rows.to(state["mean"].dtype).reshape(-1, *state["mean"].shape)
    number = len(rows)
    var, mean = torch.var_mean(rows, 0, correction=0)
    count = state["count"] + number
    delta = mean - state["mean"]
    return {
        "count": count,
        "mean": state["mean"] + delta * (number / count),
        "m2": state["m2"] + var * number + delta.square() * (state["count"] * number / count),
    }


def normaliser_variance(state: Mapping[str, Tensor]) -> Tensor:
    """Mean squared deviation [*shape] of the rows seen so far; 1 before the second row."""
    return torch.where(state["count"] > 1, state["m2"] / state["count"].clamp(min=1), 1.0)


def normalise(
    state: Mapping[str, Tensor], x: Tensor, clip: float = 10.0, eps: float = 1e-8, dtype: torch.dtype | None = None
) -> Tensor:
    """(x - mean) / sqrt(variance + eps), clipped to [-clip, clip].

    Args:
        state: of `normaliser_update`.
        x: [..., *shape]; large numbers that differ little must come in float64.
        clip: largest absolute value.
        eps: added to the variance.
        dtype: of the result; None: that of x.
    """
    z = (x.to(state["mean"].dtype) - state["mean"]) * torch.rsqrt(normaliser_variance(state) + eps)
    return z.clamp(-clip, clip).to(dtype or x.dtype)


# Rewards: divided by the standard deviation of the discounted return, as stable-baselines3's `VecNormalize`


def rewards_init(
    environments: int, dtype: torch.dtype = torch.float64, device: str | torch.device = "cpu"
) -> dict[str, Any]:
    """The state before any reward: {"returns": [B], "moments": of `normaliser_init`}; arguments as there."""
    returns = torch.zeros(environments, dtype=dtype, device=device)
    return {"returns": returns, "moments": normaliser_init((), dtype, device)}


def rewards_update(state: Mapping[str, Any], reward: Tensor, done: Tensor, gamma: float | Tensor) -> dict[str, Any]:
    """The state after one step of B environments.

    R_t = gamma R_{t-1} + r_t looks back, not ahead (Engstrom et al. 2020); it enters the moments and starts anew at 0
    where an episode ended.

    Args:
        state: of `rewards_init`, or the last one.
        reward: r_t [B].
        done: bool [B], whether the episode ended with that reward.
        gamma: discount.
    """
    returns = state["returns"] * gamma + reward.to(state["returns"].dtype)
    moments = normaliser_update(state["moments"], returns)
    return {"returns": torch.where(done, 0.0, returns), "moments": moments}


def normalise_rewards(state: Mapping[str, Any], reward: Tensor, clip: float = 10.0, eps: float = 1e-8) -> Tensor:
    """reward / sqrt(variance of R + eps), clipped to [-clip, clip]; no mean is taken off, so its sign stays.

    Args:
        state: of `rewards_update`, this reward included.
        reward: any shape.
        clip: largest absolute value.
        eps: added to the variance.
    """
    scale = torch.rsqrt(normaliser_variance(state["moments"]) + eps)
    return (reward.to(scale.dtype) * scale).clamp(-clip, clip).to(reward.dtype)
