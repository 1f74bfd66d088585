"""Exponential moving average of weights (Polyak & Juditsky 1992; for GANs Karras et al. 2018).

    average = dict(params)                                        # starts as a copy
    average = ema_update(average, params, half_life_decay(20_000, batch))

Because it starts as a copy of the weights it has no bias towards zero; but the first weights, which are worth nothing,
stay in it for long: `warmed_up` shortens its memory at the start. Buffers (the running moments of batch norm, the
vectors of spectral norm) are averages or estimates already: the average network takes the trained one's as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["ema_update", "half_life_decay", "warmed_up"]


def ema_update(average: Mapping[str, Tensor], params: Mapping[str, Tensor], decay: float | Tensor) -> dict[str, Tensor]:
    """decay * average + (1 - decay) * params; whole numbers are copied from params.

    Args:
        average: by name; changed are neither these nor the params.
        params: by name, the same shapes.
        decay: in [0, 1]; 0-dim inside a function of one trial, or [K] for tensors [K, ...].

    Returns:
        The new average.
    """

    def one(a: Tensor, p: Tensor) -> Tensor:
        if not p.is_floating_point():
            return p
        kept = torch.as_tensor(decay, dtype=p.dtype, device=p.device)
        return p + kept.reshape(kept.shape + (1,) * (p.dim() - kept.dim())) * (a - p)

    return {name: one(average[name], p) for name, p in params.items()}


def half_life_decay(half_life: float | Tensor, step: float = 1.0) -> Tensor:
    """The decay with which half of a former value is forgotten after `half_life`: 0.5^(step / half_life).

    Args:
        half_life: above 0, in the unit of `step` (updates, or images).
        step: how much passes between two updates, for instance the rows of a batch.
    """
    return 0.5 ** (step / torch.as_tensor(half_life, dtype=torch.float64))


def warmed_up(decay: float | Tensor, step: int | Tensor) -> Tensor:
    """min(decay, (1 + t) / (10 + t)), as TensorFlow's `ExponentialMovingAverage`.

    Args:
        decay: in the long run.
        step: t, updates of the average so far.
    """
    t = torch.as_tensor(step, dtype=torch.float64)
    return torch.minimum(torch.as_tensor(decay, dtype=torch.float64, device=t.device), (1 + t) / (10 + t))
