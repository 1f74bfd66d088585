"""Schedules: pure functions of progress, the fraction of the budget that is used up.

    lr = linear(hyper["lr"], progress)                             # a function
    lr = SCHEDULES[config.lr_schedule](hyper["lr"], progress)      # by name: (peak, progress) to the value now
    lr = warmup(0.05, cosine)(hyper["lr"], progress)               # composed: cosine after a rise over 5 %

Progress is a number or a tensor in [0, 1], 0-dim or [K]; so are the peak and all other arguments, so that every lane
may have its own. No branch looks at a value. Progress outside of [0, 1] counts as its nearer end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["SCHEDULES", "Schedule", "constant", "cosine", "exponential", "linear", "one_cycle", "warmup"]

Coefficient = Tensor | float
Schedule = Callable[..., Any]  # (peak, progress) to the value, of the type of its arguments


def constant(peak: Coefficient, progress: Coefficient) -> Any:
    """`peak` all the time, in the shape of both."""
    return peak + 0.0 * progress


def linear(start: Coefficient, progress: Coefficient, end: Coefficient = 0.0) -> Any:
    """The linear schedule: `start` at progress 0, `end` at progress 1 (a fraction of the budget)."""
    return start + (end - start) * _within(progress)


def cosine(peak: Coefficient, progress: Coefficient, end: Coefficient = 0.0) -> Any:
    """Half a cosine from `peak` to `end` (Loshchilov & Hutter 2017, equation 5, without restarts)."""
    return end + (peak - end) * 0.5 * (1 + _cos(math.pi * _within(progress)))


def exponential(peak: Coefficient, progress: Coefficient, ratio: Coefficient = 0.01) -> Any:
    """From `peak` to `ratio * peak`, by the same factor in equal times."""
    return peak * ratio ** _within(progress)


def warmup(share: Coefficient, schedule: Schedule = constant, start: Coefficient = 0.0) -> Schedule:
    """A schedule that first rises linearly, and then runs the whole of another one.

    Args:
        share: of the budget that the rise takes, in [0, 1).
        schedule: what follows, stretched over the rest.
        start: the value at progress 0, as a fraction of the peak.
    """

    def warmed(peak: Coefficient, progress: Coefficient, **fields: Coefficient) -> Any:
        rise = _within(1 - (share - progress) / _at_least(share, 1e-12))  # 1 at once where the share is 0
        rest = _within((progress - share) / (1 - share))
        return schedule(peak, rest, **fields) * (start + (1 - start) * rise)

    return warmed


def one_cycle(
    peak: Coefficient,
    progress: Coefficient,
    share: Coefficient = 0.3,
    start: Coefficient = 0.04,
    end: Coefficient = 4e-6,
) -> Any:
    """One cycle (Smith & Topin 2018): half a cosine up to `peak`, another one down; equals torch's `OneCycleLR`.

    Progress s / (N - 1) is step s of N. torch's peak stands at step pct_start N - 1, so its `share` is
    (pct_start N - 1) / (N - 1).

    Args:
        peak: the highest value.
        progress: in [0, 1].
        share: of the budget, where the peak is; in (0, 1).
        start: at progress 0, as a fraction of the peak (torch's 1 / div_factor).
        end: at progress 1, as a fraction of the peak (1 / (div_factor final_div_factor)).
    """
    rise = _within(progress / share)
    fall = _within((progress - share) / (1 - share))
    up = start + (1 - start) * 0.5 * (1 - _cos(math.pi * rise))
    down = end + (1 - end) * 0.5 * (1 + _cos(math.pi * fall))
    return peak * up * down  # one of them is 1 at any time


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "exponential": exponential,
    "one-cycle": one_cycle,
}


def _within(progress: Coefficient) -> Any:
    if isinstance(progress, Tensor):
        return progress.clamp(0, 1)
    return min(max(progress, 0.0), 1.0)


def _at_least(value: Coefficient, low: float) -> Any:
    return value.clamp(min=low) if isinstance(value, Tensor) else max(value, low)


def _cos(x: Coefficient) -> Any:
    return torch.cos(x) if isinstance(x, Tensor) else math.cos(x)
