"""Sequences from a model of the next token: greedy, beam search and sampling.

All are pure functions of tensors, without a branch on their values: they compile, run under vmap and serve every model
(`nets.seq2seq`, `nets.gpt`, `nets.transformer`). The model is a function of one step,

    logits [N, V], state = step(tokens [N], state)

whose state (a recurrent state, a key-value cache, the memory that attention looks at; nested dicts, tuples and lists
of tensors) has N rows: one for every sequence, or `width` for each of them in a beam search. N = batch size,
V = vocabulary size.

A sequence ends with its first `end` token; behind it stand only further `end` tokens. The start token never ends one,
so a model may use one token for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Step", "beam", "choose", "greedy", "sample"]

Tree = Any  # a tensor, or nested dicts / tuples / lists of tensors
Step = Callable[[Tensor, Tree], tuple[Tensor, Tree]]


def greedy(step: Step, state: Tree, start: Tensor, end: int | None, length: int) -> Tensor:
    """The likeliest token at every step.

    Args:
        step: the model; see the head of this file.
        state: its state before the first step, B rows.
        start: first tokens [B], not part of the result.
        end: the token that ends a sequence; None: none does.
        length: how many tokens to give, at least 1.

    Returns:
        tokens [B, length].
    """
    return _unroll(lambda logits, _: logits.topk(1, dim=-1).indices.squeeze(-1), step, state, start, end, length)


def sample(
    step: Step,
    state: Tree,
    start: Tensor,
    length: int,
    u: Tensor,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    end: int | None = None,
) -> Tensor:
    """Tokens drawn from the model's distribution, sharpened or cut off as `choose` says.

    Args:
        step: the model; see the head of this file.
        state: its state before the first step, B rows.
        start: first tokens [B], not part of the result.
        length: how many tokens to give, at least 1.
        u: uniform numbers in [0, 1), [B, length].
        temperature: see `choose`.
        top_k: see `choose`.
        top_p: see `choose`.
        end: the token that ends a sequence; None: none does.

    Returns:
        tokens [B, length].
    """
    draws = u.unbind(1)

    def pick(logits: Tensor, time: int) -> Tensor:
        return choose(logits, draws[time], temperature, top_k, top_p)

    return _unroll(pick, step, state, start, end, length)


def choose(logits: Tensor, u: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """One token from softmax(logits / temperature), by the inverse of its distribution function.

    With both limits, the nucleus is taken from the `top_k` tokens' own distribution. A token of probability 0 (a logit
    of -inf) is never chosen. NaN gives an arbitrary token.

    Args:
        logits: [..., V].
        u: uniform numbers in [0, 1), [...].
        temperature: above 1 flattens the distribution, below 1 sharpens it; 0 gives the likeliest token.
        top_k: only that many likeliest tokens (Fan et al. 2018); 0 keeps all.
        top_p: only the fewest likeliest tokens that together reach this probability (the nucleus of Holtzman et al.
            2020), in (0, 1].

    Returns:
        tokens [...], int64.

    Raises:
        ValueError: an argument is out of its range.
    """
    if temperature < 0 or top_k < 0 or not 0 < top_p <= 1:
        raise ValueError(f"temperature {temperature} >= 0, top_k {top_k} >= 0, 0 < top_p {top_p} <= 1 must hold")
    if temperature == 0:
        return logits.topk(1, dim=-1).indices.squeeze(-1)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    order = None  # place -> token; both limits sort the likeliest first
    if 0 < top_k < logits.shape[-1]:
        logits, order = logits.topk(top_k, dim=-1)
    elif top_p < 1:
        logits, order = logits.sort(dim=-1, descending=True)
    share = torch.softmax(logits, dim=-1)
    if top_p < 1:
        before = share.cumsum(-1) - share  # 0 for the likeliest, which therefore always stays
        share = torch.where(before < top_p, share, 0.0)
    below = share.cumsum(-1)
    total = below[..., -1:]
    place = (below <= u.to(share.dtype).unsqueeze(-1) * total).sum(-1)
    place = torch.minimum(place, (below < total).sum(-1))  # u * total may round up to the total
    return place if order is None else order.gather(-1, place.unsqueeze(-1)).squeeze(-1)


def beam(
    step: Step,
    state: Tree,
    start: Tensor,
    end: int | None,
    length: int,
    width: int,
    length_penalty: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Beam search: the `width` best sequences found when only the `width` best beginnings are kept at every step.

    A sequence's score is log P / ((5 + n) / 6)^length_penalty (Wu et al. 2016, without their coverage term), where n
    counts its tokens up to and including `end`. Ended sequences stay in the beam with their score and compete with
    those that go on; when all have ended, further steps only repeat `end`. A width of 1 gives exactly what `greedy`
    gives; a width of V^length finds the best sequence there is.

    Args:
        step: the model; see the head of this file. Its state's rows are copied and reordered between steps.
        state: its state before the first step, B rows.
        start: first tokens [B], not part of the result.
        end: the token that ends a sequence; None: none does.
        length: how many tokens to give, at least 1.
        width: how many sequences to keep.
        length_penalty: 0 ranks by probability; larger values favour long sequences; Wu et al. use 0.6.

    Returns:
        (tokens [B, width, length], scores [B, width]), the best first. Where there are fewer sequences than `width`,
        the last ones have the score -inf and their tokens mean nothing.
    """
    batch, place = start.shape[0], torch.arange(width, device=start.device)
    first_row = torch.arange(batch, device=start.device).unsqueeze(1) * width  # of every sequence's beam
    state = _rows(state, torch.arange(batch, device=start.device).repeat_interleave(width))
    token = start.repeat_interleave(width)  # [B * width]
    ended = torch.zeros_like(token, dtype=torch.bool)
    # at first all rows of a beam are one and the same beginning: one of them stands for all
    total = torch.where(place == 0, 0.0, -torch.inf).expand(batch, width)  # log P
    size = torch.zeros_like(total)
    scores, tokens, parents = total, [], []
    for _ in range(length):
        logits, state = step(token, state)
        logits = _only_end(logits.to(torch.promote_types(logits.dtype, torch.float32)), ended, end)
        # The best W of each row come first: no row has more than `width` children in the next beam, and a row's own
        # are ordered by its logits, as in `greedy`, whatever the sums below are rounded to.
        best = logits.topk(min(width, logits.shape[-1]), dim=-1).indices  # [B * width, W]
        gain = torch.log_softmax(logits, dim=-1).gather(-1, best)
        sums = total.unsqueeze(-1) + gain.reshape(batch, width, -1)
        size = size + (~ended).to(size.dtype).reshape(batch, width)
        penalty = ((5 + size) / 6) ** length_penalty
        ranked = (sums / penalty.unsqueeze(-1)).flatten(1).sort(dim=-1, descending=True, stable=True)
        scores, place = ranked.values[:, :width], ranked.indices[:, :width]
        parent = place // best.shape[-1]
        row = (first_row + parent).flatten()
        state, ended, size = _rows(state, row), ended[row], size.gather(1, parent)
        total, token = sums.flatten(1).gather(1, place), best.reshape(batch, -1).gather(1, place).flatten()
        if end is not None:
            ended = ended | (token == end)
        tokens.append(token.reshape(batch, width))
        parents.append(parent)
    return _backwards(tokens, parents), scores


def _unroll(
    pick: Callable[[Tensor, int], Tensor], step: Step, state: Tree, token: Tensor, end: int | None, length: int
) -> Tensor:
    """Feeds every picked token back; `end` goes on for ever."""
    ended = torch.zeros_like(token, dtype=torch.bool)
    tokens = []
    for time in range(length):
        logits, state = step(token, state)
        token = pick(logits, time)
        if end is not None:
            token = torch.where(ended, end, token)
            ended = ended | (token == end)
        tokens.append(token)
    return torch.stack(tokens, dim=1)


def _only_end(logits: Tensor, ended: Tensor, end: int | None) -> Tensor:
    """Where a row has ended, `end` has probability 1."""
    if end is None:
        return logits
    is_end = torch.arange(logits.shape[-1], device=logits.device) == end
    certain = torch.where(is_end, 0.0, -torch.inf).to(logits.dtype)
    return torch.where(ended.unsqueeze(-1), certain, logits)


def _backwards(tokens: list[Tensor], parents: list[Tensor]) -> Tensor:
    """Follows the beams from their last tokens to the first: lists of [B, width] to [B, width, length]."""
    lane = torch.arange(tokens[0].shape[1], device=tokens[0].device).expand_as(tokens[0])
    found = []
    for token, parent in zip(reversed(tokens), reversed(parents), strict=True):
        found.append(token.gather(1, lane))
        lane = parent.gather(1, lane)
    return torch.stack(found[::-1], dim=-1)


def _rows(tree: Tree, index: Tensor) -> Tree:
    """The rows of an index [M] of every tensor."""
    if isinstance(tree, Tensor):
        return tree[index]
    if isinstance(tree, dict):
        return {name: _rows(branch, index) for name, branch in tree.items()}
    branches = [_rows(branch, index) for branch in tree]
    return type(tree)(*branches) if hasattr(tree, "_fields") else type(tree)(branches)
