"""Optimisers as pure functions of one trial: (parameters, gradients, state, coefficients) to (parameters,
state).

Parameters are dicts of tensors. Coefficients are 0-dim tensors or numbers, so that under lanes every lane has
its own. Divisions by scalars are made once, outside the elementwise work: on a CPU a division costs several
products.

    params, state = adam(params, grads, state, lr)             # inside a function of one trial
    state = adam_init(stacked_params, lanes=K)                 # outside, for K trials

    optimiser = OPTIMISERS[config.optimiser]                   # by name: every init and step is called alike
    state = optimiser.init(stacked_params, lanes=K)
    params, state = optimiser.step(params, grads, state, lr, scale=scale, **coefficients)

`scale` multiplies the learning rate of single parameters. A factor of 0 freezes: the parameter keeps its bits,
whatever its gradient and the weight decay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from nets.attend import transformed
from nets.schedules import linear

__all__ = [
    "OPTIMISERS",
    "Optimiser",
    "adam",
    "adam_fused",
    "adam_init",
    "clip_by_global_norm",
    "clip_by_value",
    "global_norm",
    "linear",
    "rmsprop",
    "rmsprop_init",
    "rmsprop_tf_init",
    "sgd",
    "sgd_init",
]

Params = Mapping[str, Tensor]
Coefficient = Tensor | float
Scale = Mapping[str, Coefficient] | None


@dataclass(frozen=True)
class Optimiser:
    """An optimiser by name.

    Attributes:
        init: (params, lanes=None) to the state at the start.
        step: (params, grads, state, lr, **coefficients, scale=None) to (params, state).
        coefficients: those a learner may set, one number a lane, and their defaults.
    """

    init: Callable[..., dict[str, Any]]
    step: Callable[..., tuple[dict[str, Tensor], dict[str, Any]]]
    coefficients: Mapping[str, float]


def sgd_init(params: Params, lanes: int | None = None) -> dict[str, Tensor]:
    """Momentum buffers at the start: zeros, for one trial or stacked ones; `lanes` changes nothing."""
    return {name: torch.zeros_like(p) for name, p in params.items()}


def sgd(
    params: Params,
    grads: Params,
    state: Params,
    lr: Coefficient,
    momentum: Coefficient = 0.0,
    weight_decay: Coefficient = 0.0,
    nesterov: bool = False,
    scale: Scale = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One step of gradient descent with momentum and L2 weight decay; equals `torch.optim.SGD` without
    dampening.

    Args:
        params: of one trial.
        grads: of the same names.
        state: momentum buffers.
        lr: learning rate.
        momentum: of Polyak, or with `nesterov` of Sutskever et al. 2013.
        weight_decay: added to the gradient, times the parameter.
        nesterov: whether the gradient is taken as if at the point the momentum leads to.
        scale: factors of the learning rate by parameter; 1 where a name is missing.
    """
    buffers, after = {}, {}
    for name, p in params.items():
        buffers[name] = move = momentum * state[name] + grads[name] + weight_decay * p
        if nesterov:
            move = momentum * move + grads[name] + weight_decay * p
        factor = _factor(scale, name)
        after[name] = _unless_frozen(factor, p, p - _scaled(lr, factor) * move)
    return after, buffers


def rmsprop_init(params: Params, lanes: int | None = None, centered: bool = False) -> dict[str, Any]:
    """RMSprop's state at the start: zeros, for one trial or stacked ones; `lanes` changes nothing.

    Returns:
        {"square": {...}, "momentum": {...}} and with `centered` "mean", which makes `rmsprop` centered.
    """
    kept = ["square", "momentum"] + ["mean"] * centered
    return {key: {name: torch.zeros_like(p) for name, p in params.items()} for key in kept}


def rmsprop(
    params: Params,
    grads: Params,
    state: Mapping[str, Any],
    lr: Coefficient,
    decay: Coefficient = 0.99,
    momentum: Coefficient = 0.0,
    eps: Coefficient = 1e-8,
    weight_decay: Coefficient = 0.0,
    under_root: bool = False,
    scale: Scale = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """One step of RMSprop (Tieleman & Hinton 2012), centered (Graves 2013) where the state has a "mean"; equals
    `torch.optim.RMSprop`, and with `under_root` TensorFlow 1's (stable-baselines3's `RMSpropTFLike`).

    Args:
        params: of one trial.
        grads: of the same names.
        state: see `rmsprop_init`.
        lr: learning rate.
        decay: of the running squares (torch's alpha).
        momentum: of the normalised gradients.
        eps: added to the root, not under it.
        weight_decay: added to the gradient, times the parameter.
        under_root: whether eps is added under the root after all.
        scale: factors of the learning rate by parameter; 1 where a name is missing.
    """
    after: dict[str, Tensor] = {}
    new: dict[str, dict[str, Tensor]] = {key: {} for key in state}
    for name, p in params.items():
        g = grads[name] + weight_decay * p
        square = new["square"][name] = decay * state["square"][name] + (1 - decay) * (g * g)
        if "mean" in state:
            mean = new["mean"][name] = decay * state["mean"][name] + (1 - decay) * g
            square = (square - mean * mean).clamp(min=0)  # rounding can take it below
        root = (square + eps).sqrt() if under_root else square.sqrt() + eps
        move = new["momentum"][name] = momentum * state["momentum"][name] + g / root
        factor = _factor(scale, name)
        after[name] = _unless_frozen(factor, p, p - _scaled(lr, factor) * move)
    return after, new


def rmsprop_tf_init(params: Params, lanes: int | None = None) -> dict[str, Any]:
    """TensorFlow's RMSprop at the start: squares are ones, as its authors set them; `lanes` changes nothing."""
    ones = {name: torch.ones_like(p) for name, p in params.items()}
    return {"square": ones, "momentum": {name: torch.zeros_like(p) for name, p in params.items()}}


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
    decoupled: bool = True,
    scale: Scale = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """One step of Adam (Kingma & Ba 2015), or AdamW (Loshchilov & Hutter 2019) where weight_decay > 0.

    Equals `torch.optim.AdamW`, and with `decoupled` False `torch.optim.Adam`. A learning rate of 0 leaves the
    parameters as they are.

    Args:
        params: of one trial.
        grads: of the same names.
        state: see `adam_init`.
        lr: learning rate.
        beta1: decay of the running mean of gradients.
        beta2: decay of the running mean of their squares.
        eps: added to the root of the latter.
        weight_decay: times learning rate and parameter, subtracted; or added to the gradient, times the parameter.
        decoupled: which of the two.
        scale: factors of the learning rate by parameter; 1 where a name is missing.

    Returns:
        (parameters, state) after the step; a NaN in a gradient makes that parameter NaN.
    """
    count = state["count"] + 1
    step = lr / (1 - _power(beta1, count))
    root = torch.rsqrt(1 - _power(beta2, count))
    shrink = 1 - lr * weight_decay
    mean, square, after = {}, {}, {}
    for name, p in params.items():
        g = grads[name] if decoupled else grads[name] + weight_decay * p
        m = mean[name] = beta1 * state["mean"][name] + (1 - beta1) * g
        v = square[name] = beta2 * state["square"][name] + (1 - beta2) * (g * g)
        factor = _factor(scale, name)
        kept = p if not decoupled else p * (shrink if factor is None else 1 - lr * factor * weight_decay)
        after[name] = _unless_frozen(factor, p, kept - _scaled(step, factor) * m / (v.sqrt() * root + eps))
    return after, {"count": count, "mean": mean, "square": square}


def adam_fused(
    params: Params,
    grads: Params,
    state: Mapping[str, Any],
    lr: Coefficient,
    beta1: Coefficient = 0.9,
    beta2: Coefficient = 0.999,
    eps: Coefficient = 1e-8,
    weight_decay: Coefficient = 0.0,
    scale: Scale = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """As `adam` with decoupled decay, to rounding, in one pass over memory: torch's fused kernel, on copies.

    For large networks in an ordinary call on a CPU. Inside vmap, grad and compilation, on other devices and for
    parameters with a factor in `scale` it is `adam`, to the bit; the arguments are `adam`'s.
    """
    plain = {name: p for name, p in params.items() if _factor(scale, name) is None}
    some = next(iter(params.values()))
    if not plain or some.device.type != "cpu" or transformed(some):
        return adam(params, grads, state, lr, beta1, beta2, eps, weight_decay, scale=scale)
    after, mean, square = ({n: t[n].clone() for n in plain} for t in (plain, state["mean"], state["square"]))
    count = state["count"] + 1
    steps = [*state["count"].repeat(len(plain)).unbind()]  # the kernel's caller counts on in each
    with torch.no_grad():
        adamw(
            [*after.values()],
            [grads[name] for name in plain],
            [*mean.values()],
            [*square.values()],
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=float(beta1),
            beta2=float(beta2),
            lr=float(lr),
            weight_decay=float(weight_decay),
            eps=float(eps),
            maximize=False,
        )
    if len(plain) < len(params):
        rest = {name: p for name, p in params.items() if name not in plain}
        moved, new = adam(rest, grads, state, lr, beta1, beta2, eps, weight_decay, scale=scale)
        after, mean, square = after | moved, mean | new["mean"], square | new["square"]
    trees = ({name: t[name] for name in params} for t in (after, mean, square))
    return next(trees), {"count": count, "mean": next(trees), "square": next(trees)}


OPTIMISERS: dict[str, Optimiser] = {
    "sgd": Optimiser(sgd_init, sgd, {"momentum": 0.0, "weight_decay": 0.0}),
    "nesterov": Optimiser(sgd_init, partial(sgd, nesterov=True), {"momentum": 0.9, "weight_decay": 0.0}),
    "rmsprop": Optimiser(rmsprop_init, rmsprop, {"decay": 0.99, "momentum": 0.0, "eps": 1e-8, "weight_decay": 0.0}),
    "centered-rmsprop": Optimiser(
        partial(rmsprop_init, centered=True),
        rmsprop,
        {"decay": 0.99, "momentum": 0.0, "eps": 1e-8, "weight_decay": 0.0},
    ),
    "rmsprop-tf": Optimiser(
        rmsprop_tf_init,
        partial(rmsprop, under_root=True),
        {"decay": 0.99, "momentum": 0.0, "eps": 1e-8, "weight_decay": 0.0},
    ),
    "adam": Optimiser(
        adam_init,
        partial(adam, decoupled=False),
        {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0},
    ),
    "adamw": Optimiser(adam_init, adam, {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01}),
    "adamw-fused": Optimiser(adam_init, adam_fused, {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01}),
}


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
    if scale.device.type == "cpu" and not transformed(scale) and scale == 1:
        return dict(grads), norm  # an ordinary call may look at a number, and save the products
    return {name: g * scale for name, g in grads.items()}, norm


def clip_by_value(grads: Params, limit: Coefficient) -> dict[str, Tensor]:
    """Every number of the gradients within [-limit, limit]; equals `torch.nn.utils.clip_grad_value_`. NaN stays."""
    bound: Any = limit
    return {name: g.clamp(-bound, bound) for name, g in grads.items()}


def _factor(scale: Scale, name: str) -> Coefficient | None:
    """The factor of a parameter's learning rate; None where it has none."""
    return None if scale is None else scale.get(name)


def _power(beta: Coefficient, count: Tensor) -> Tensor:
    """beta^count, as an exponential: TorchInductor would compute a power anew for every few parameters."""
    if isinstance(beta, Tensor):
        return torch.exp(count * beta.log())
    return torch.exp(count * (math.log(beta) if beta else -math.inf))


def _scaled(lr: Coefficient, factor: Coefficient | None) -> Coefficient:
    return lr if factor is None else lr * factor


def _unless_frozen(factor: Coefficient | None, before: Tensor, after: Tensor) -> Tensor:
    """`after`, or `before` to the bit where the factor is 0: 0 times an infinite step would be NaN."""
    if factor is None:
        return after
    if isinstance(factor, Tensor):
        return torch.where(factor == 0, before, after)
    return before if factor == 0 else after
