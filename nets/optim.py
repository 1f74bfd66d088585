"""Optimisers as pure functions of one trial: (parameters, gradients, state, coefficients) to (parameters,
state).

Parameters are dicts of tensors. Coefficients are 0-dim tensors or numbers, so that under lanes every lane has
its own. Divisions by scalars are made once, outside the elementwise work: on a CPU a division costs several
products.

    params, state = adam(params, grads, state, lr)             # inside a function of one trial
    state = adam_init(stacked_params, lanes=K)                 # outside, for K trials
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["adam", "adam_init", "clip_by_global_norm", "global_norm", "linear", "sgd", "sgd_init"]

Params = Mapping[str, Tensor]
Coefficient = Tensor | float


def adam_init(params: Params, lanes: int | None = None) -> dict[str, Any]:
    """Adam's state at the start.

    Args:
        params: of one trial, or stacked ones [K, ...] when `lanes` is K.
        lanes: how many trials are stacked.

    Returns:
        {"count": steps taken so far, "mean": {...}, "square": {...}}.
    """
    some = next(iter(params.values()))
    return {
        "count": torch.zeros(() if lanes is None else (lanes,), dtype=some.dtype, device=some.device),
        "mean": {name: torch.zeros_like(p) for name, p in params.items()},
        "square": {name: torch.zeros_like(p) for name, p in params.items()},
    }


def adam(
    params: Params,
    grads: Params,
    state: Mapping[str, Any],
    lr: Coefficient,
    beta1: Coefficient = 0.9,
    beta2: Coefficient = 0.999,
    eps: Coefficient = 1e-8,
    weight_decay: Coefficient = 0.0,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """One step of Adam (Kingma & Ba 2015), or AdamW (Loshchilov & Hutter 2019) where weight_decay > 0.

    Equals `torch.optim.Adam` and `torch.optim.AdamW`. A learning rate of 0 leaves the parameters as they are.

    Returns:
        (parameters, state) after the step; a NaN in a gradient makes that parameter NaN.
    """
    count = state["count"] + 1
    step = lr / (1 - beta1**count)
    scale = torch.rsqrt(1 - beta2**count)
    shrink = 1 - lr * weight_decay
    mean, square, after = {}, {}, {}
    for name, p in params.items():
        g = grads[name]
        m = mean[name] = beta1 * state["mean"][name] + (1 - beta1) * g
        v = square[name] = beta2 * state["square"][name] + (1 - beta2) * (g * g)
        after[name] = p * shrink - step * m / (v.sqrt() * scale + eps)
    return after, {"count": count, "mean": mean, "square": square}


def sgd_init(params: Params) -> dict[str, Tensor]:
    """Momentum buffers at the start: zeros, for one trial or stacked ones."""
    return {name: torch.zeros_like(p) for name, p in params.items()}


def sgd(
    params: Params,
    grads: Params,
    state: Params,
    lr: Coefficient,
    momentum: Coefficient = 0.0,
    weight_decay: Coefficient = 0.0,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One step of gradient descent with momentum and L2 weight decay; equals `torch.optim.SGD` without
    dampening."""
    buffers = {name: momentum * state[name] + grads[name] + weight_decay * p for name, p in params.items()}
    return {name: p - lr * buffers[name] for name, p in params.items()}, buffers


def global_norm(tree: Params) -> Tensor:
    """The Euclidean norm over all tensors together, 0-dim."""
    return torch.stack([(t * t).sum() for t in tree.values()]).sum().sqrt()


def clip_by_global_norm(grads: Params, limit: Coefficient) -> tuple[dict[str, Tensor], Tensor]:
    """Scales gradients so that their global norm is at most `limit`; equals `torch.nn.utils.clip_grad_norm_`.

    Returns:
        (gradients, the norm before). A NaN anywhere makes all of this trial's gradients NaN.
    """
    norm = global_norm(grads)
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)
    return {name: g * scale for name, g in grads.items()}, norm


def linear(start: Coefficient, progress: Coefficient, end: Coefficient = 0.0) -> Any:
    """The linear schedule: `start` at progress 0, `end` at progress 1 (a fraction of the budget)."""
    return start + (end - start) * progress
