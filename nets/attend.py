"""The formula of attention: queries, keys and values in, a weighted mean of the values out."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["attend", "transformed"]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    causal: bool = False,
    mask: Tensor | None = None,
    dropout: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """softmax(query key^T / sqrt(features) + mask) value.

    An ordinary call runs `torch.nn.functional.scaled_dot_product_attention`, which is faster and never holds the
    whole [T, S] table. Inside vmap, grad and compilation the formula is written out: torch's own has no batching rule
    on a CPU, and the compiler fuses the written one. Both agree to rounding.

    torch's own has no second derivative either; where an ordinary call needs one (a gradient penalty), wrap it in
    `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`.

    Args:
        query: [..., T, features].
        key: [..., S, features].
        value: [..., S, out_features].
        causal: whether position t sees only positions up to t.
        mask: broadcast to [..., T, S]; bool (True: not seen) or numbers added to the scores.
        dropout: of the weights [..., T, S]; None leaves them.

    Returns:
        [..., T, out_features]; zeros where nothing is seen.
    """
    if mask is not None:
        mask = _additive(mask, query, key, causal)
        blind = (mask == -math.inf).all(-1, keepdim=True)
        mask = mask.masked_fill(blind, 0.0)  # a softmax of nothing would be NaN, in the gradient too
    if dropout is None and not transformed(query, key, value):
        by_torch = functional.scaled_dot_product_attention
        mixed = by_torch(query, key, value, attn_mask=mask, is_causal=causal and mask is None)
    else:
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        if mask is not None:
            scores = scores + mask
        elif causal:
            scores = scores.masked_fill(_future(query, key), -math.inf)
        weights = torch.softmax(scores, dim=-1)
        mixed = (weights if dropout is None else dropout(weights)) @ value
    return mixed if mask is None else mixed.masked_fill(blind, 0.0)


def transformed(*tensors: Tensor) -> bool:
    """Whether these are inside vmap or grad of `torch.func`, or being compiled or exported."""
    if torch.compiler.is_compiling():
        return True
    # debug_unwrap is the one public way to ask; what it gives for a wrapped tensor must not be used, and is not
    return any(torch.func.debug_unwrap(t, recurse=False) is not t for t in tensors)


def _future(query: Tensor, key: Tensor) -> Tensor:
    """bool [T, S]: True for keys later than the query."""
    shape = query.shape[-2], key.shape[-2]
    return torch.ones(shape, dtype=torch.bool, device=query.device).triu(1)


def _additive(mask: Tensor, query: Tensor, key: Tensor, causal: bool) -> Tensor:
    """A mask as numbers to add to the scores, with the future hidden where asked."""
    if mask.dtype == torch.bool:
        hidden = mask | _future(query, key) if causal else mask
        return torch.zeros_like(hidden, dtype=query.dtype).masked_fill(hidden, -math.inf)
    mask = mask.to(query.dtype)
    return mask.masked_fill(_future(query, key), -math.inf) if causal else mask
