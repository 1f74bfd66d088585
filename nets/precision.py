"""Training in 16 bits: a forward pass in bfloat16 or float16, and losses scaled so that small gradients survive.

Weights, gradients and optimisers stay in float32; matrix products and convolutions run in 16 bits. bfloat16 has
float32's range and needs no scaling; float16 does (Micikevicius et al. 2018). All functions are of one trial: under
lanes every lane has its own scale, and skips a step alone.

    forward = autocast(forward, torch.float16, device)
    grads, loss = scaled_grad_and_value(loss_of, scaler["scale"])(params)
    finite = all_finite(grads)
    params, opt = keep(finite, adam(params, grads, opt, lr), (params, opt))
    scaler = update_scaler(scaler, finite)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value
from torch.utils import _pytree as pytree

__all__ = ["all_finite", "autocast", "scaled_grad_and_value", "scaler_init", "update_scaler"]

SIXTEEN_BITS = (torch.bfloat16, torch.float16)


def autocast(function: Callable, dtype: torch.dtype, device: str = "cpu") -> Callable:
    """A function whose products and convolutions run in `dtype`, and whose results have 32 bits again.

    PyTorch's autocast chooses the operations; its cache of cast weights is off, for it would outlive a vmap. Losses
    belong outside. On a CPU `nn.LayerNorm` under vmap has no rule for 16-bit inputs and raises; on a GPU it runs in
    float32.

    Args:
        function: usually a network's forward pass.
        dtype: torch.bfloat16 or torch.float16; any other leaves the function as it is.
        device: "cpu", "cuda" or "cuda:INDEX".
    """
    if dtype not in SIXTEEN_BITS:
        return function

    def narrowed(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(torch.device(device).type, dtype, cache_enabled=False):
            result = function(*args, **kwargs)
        return pytree.tree_map_only(Tensor, lambda t: t.float() if t.dtype in SIXTEEN_BITS else t, result)

    return narrowed


def scaler_init(lanes: int | None = None, scale: float = 2.0**16, device: str = "cpu") -> dict[str, Tensor]:
    """The state of loss scaling at the start.

    Args:
        lanes: how many trials are stacked; None for one.
        scale: what losses are multiplied by at first; a power of 2, so that nothing is rounded.
        device: where it lives.

    Returns:
        {"scale": float32, "good": finite steps since it last changed}, both 0-dim or [lanes].
    """
    shape = () if lanes is None else (lanes,)
    return {"scale": torch.full(shape, scale, device=device), "good": torch.zeros(shape, device=device)}


def scaled_grad_and_value(loss: Callable, scale: Tensor, has_aux: bool = False) -> Callable:
    """`torch.func.grad_and_value` of `scale` times the loss, with gradients and value divided by it again.

    Args:
        loss: of the parameters and further arguments; returns a 0-dim tensor, or with `has_aux` that and a tree.
        scale: 0-dim.
        has_aux: as in torch.

    Returns:
        A function with the loss's arguments: (gradients, loss), or (gradients, (loss, tree)).
    """

    def scaled(*args: Any) -> tuple[Tensor, tuple[Tensor, Any]]:
        value, aux = loss(*args) if has_aux else (loss(*args), ())
        return value * scale, (value.detach(), aux)  # the value itself may be finite where its multiple is not

    def function(*args: Any) -> tuple[Any, Any]:
        grads, (_, (value, aux)) = grad_and_value(scaled, has_aux=True)(*args)
        inverse = 1 / scale
        grads = pytree.tree_map(lambda g: g * inverse, grads)
        return grads, ((value, aux) if has_aux else value)

    return function


def all_finite(tree: Any) -> Tensor:
    """Whether no number of a tree of tensors is NaN or infinite, bool, 0-dim."""
    return torch.stack([t.isfinite().all() for t in pytree.tree_leaves(tree)]).all()


def update_scaler(
    state: dict[str, Tensor],
    finite: Tensor,
    growth: float = 2.0,
    backoff: float = 0.5,
    interval: int = 2000,
) -> dict[str, Tensor]:
    """The state after a step; equals `torch.amp.GradScaler`'s.

    Args:
        state: see `scaler_init`.
        finite: whether the step's gradients were finite, bool of the state's shape.
        growth: factor of the scale after `interval` finite steps in a row, unless it becomes infinite.
        backoff: factor of the scale after a step that was not; it never falls to 0.
        interval: in steps.
    """
    scale, good = state["scale"], torch.where(finite, state["good"] + 1, 0.0)
    due = good >= interval
    grown = scale * growth
    larger = torch.where(due & grown.isfinite(), grown, scale)
    smaller = (scale * backoff).clamp(min=torch.finfo(scale.dtype).tiny)
    return {"scale": torch.where(finite, larger, smaller), "good": torch.where(due, 0.0, good)}
