"""Attention (Vaswani et al. 2017) and the block around it.

    SelfAttention           a sequence looks at itself; `extend` goes on from a cache of earlier keys and values
    CrossAttention          a sequence looks at another one, the memory
    TransformerBlock        attention and a perceptron, each with its norm and a way around it

Shapes: B rows, T queries, S keys. Masks are True where something must NOT be seen, or numbers that are added to
the scores; see `nets.attend`, which has the formula. A query that may see nothing at all gets zeros.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from nets.activations import activation as activation_named
from nets.attend import attend
from nets.norms import norm as norm_named
from nets.positions import places, rotate
from nets.registry import register
from nets.regularise import Dropout, DropPath

__all__ = ["Cache", "CrossAttention", "SelfAttention", "TransformerBlock", "attend"]


class Cache(NamedTuple):
    """The keys and values of the tokens so far, in tensors of fixed size: a state that goes in and comes out.

    Attributes:
        key: [B, heads, length, features].
        value: [B, heads, length, features].
        place: int64 [B]: how many tokens each row has had.
    """

    key: Tensor
    value: Tensor
    place: Tensor

    def write(self, key: Tensor, value: Tensor) -> Cache:
        """A cache with the keys and values [B, heads, T, features] of T further tokens."""
        index = places(key.transpose(1, 2), self.place)[:, None, :, None].expand_as(key)
        place = self.place + key.shape[2]
        return Cache(self.key.scatter(2, index, key), self.value.scatter(2, index, value), place)


@register("attention", role="layer")
class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention of a sequence to itself (Vaswani et al. 2017).

    Initialisation: torch's for linear layers. The weights have the layout of `nn.MultiheadAttention`.

    Args:
        in_features: width of input and output; a multiple of `heads`.
        heads: how many heads.
        causal: whether a position sees only itself and earlier ones.
        dropout: the share of weights that is dropped in training.
        rotary: whether queries and keys are turned by their place (`nets.positions.rotate`).
        bias: whether the linear layers have one.

    Raises:
        ValueError: `heads` does not divide the width, or a rotary head has an odd width.
    """

    def __init__(
        self,
        in_features: int,
        heads: int = 4,
        causal: bool = False,
        dropout: float = 0.0,
        rotary: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if in_features % heads:
            raise ValueError(f"{heads} heads do not divide a width of {in_features}")
        if rotary and in_features // heads % 2:
            raise ValueError(f"rotary positions need heads of even width, not {in_features // heads}")
        self.in_proj = nn.Linear(in_features, 3 * in_features, bias=bias)
        self.out_proj = nn.Linear(in_features, in_features, bias=bias)
        self.dropout = Dropout(dropout)
        self.heads = heads
        self.causal = causal
        self.rotary = rotary

    def forward(self, x: Tensor, padding: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """[B, T, in_features] to the same shape.

        Args:
            x: the sequence.
            padding: bool [B, T]: True for tokens that nobody may see.
            mask: broadcast to [B, heads, T, T]; see `attend`.
        """
        query, key, value = self._parts(x, places(x))
        mixed = attend(query, key, value, self.causal, _joined(padding, mask), _active(self.dropout))
        return self.out_proj(_merged(mixed))

    def empty_cache(self, rows: int, length: int) -> Cache:
        """A cache for `length` tokens in all; the device and type are the weights'."""
        weight = self.in_proj.weight
        width = self.out_proj.in_features // self.heads
        zeros = weight.new_zeros(rows, self.heads, length, width)
        return Cache(zeros, zeros, torch.zeros(rows, dtype=torch.int64, device=weight.device))

    def extend(self, x: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """The next T tokens [B, T, in_features]: what `forward` with a causal mask gives for them after all before.

        Args:
            x: the further tokens.
            cache: of those before, with room for T more.

        Returns:
            ([B, T, in_features], the cache with the tokens of `x`).
        """
        place = places(x, cache.place)
        query, key, value = self._parts(x, place)
        cache = cache.write(key, value)
        later = torch.arange(cache.key.shape[2], device=x.device) > place.unsqueeze(-1)  # [B, T, length]
        mixed = attend(query, cache.key, cache.value, mask=later.unsqueeze(1))
        return self.out_proj(_merged(mixed)), cache

    def _parts(self, x: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each [B, heads, T, features of a head]."""
        query, key, value = (_by_head(part, self.heads) for part in self.in_proj(x).chunk(3, dim=-1))
        if self.rotary:
            query, key = rotate(query, place), rotate(key, place)
        return query, key, value


@register("cross-attention", role="layer")
class CrossAttention(nn.Module):
    """Multi-head attention of a sequence to another one, the memory (Vaswani et al. 2017).

    Initialisation: torch's for linear layers.

    Args:
        in_features: width of the sequence and of the output; a multiple of `heads`.
        memory_features: width of the memory; None: as `in_features`.
        heads: how many heads.
        dropout: the share of weights that is dropped in training.
        bias: whether the linear layers have one.

    Raises:
        ValueError: `heads` does not divide the width.
    """

    def __init__(
        self,
        in_features: int,
        memory_features: int | None = None,
        heads: int = 4,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if in_features % heads:
            raise ValueError(f"{heads} heads do not divide a width of {in_features}")
        self.query_proj = nn.Linear(in_features, in_features, bias=bias)
        self.memory_proj = nn.Linear(memory_features or in_features, 2 * in_features, bias=bias)
        self.out_proj = nn.Linear(in_features, in_features, bias=bias)
        self.dropout = Dropout(dropout)
        self.heads = heads

    def forward(self, x: Tensor, memory: Tensor, padding: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """[B, T, in_features] to the same shape.

        Args:
            x: the sequence.
            memory: [B, S, memory_features].
            padding: bool [B, S]: True for places of the memory that nobody may see.
            mask: broadcast to [B, heads, T, S]; see `attend`.
        """
        return self.look(x, self.project(memory), padding, mask)

    def project(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values [B, heads, S, features] of a memory: computed once for many calls of `look`."""
        key, value = self.memory_proj(memory).chunk(2, dim=-1)
        return _by_head(key, self.heads), _by_head(value, self.heads)

    def weights(self, x: Tensor, memory: Tensor, padding: Tensor | None = None) -> Tensor:
        """How much every place of x sees of each place of the memory, [B, heads, T, S]; to be shown: no dropout."""
        query, (key, _) = _by_head(self.query_proj(x), self.heads), self.project(memory)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        if padding is not None:
            scores = scores.masked_fill(padding[:, None, None, :], -math.inf)
        return torch.softmax(scores, dim=-1)

    def look(
        self,
        x: Tensor,
        projected: tuple[Tensor, Tensor],
        padding: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """As `forward`, for a memory that has been projected."""
        query = _by_head(self.query_proj(x), self.heads)
        mixed = attend(query, *projected, mask=_joined(padding, mask), dropout=_active(self.dropout))
        return self.out_proj(_merged(mixed))


@register("transformer-block", role="layer")
class TransformerBlock(nn.Module):
    """Attention and a perceptron, each with a norm and added to its input.

    With the norm first (Xiong et al. 2020) x + f(norm(x)); with it last (Vaswani et al. 2017) norm(x + f(x)). With a
    memory there is a cross-attention between the two: the block of a decoder.

    Initialisation: torch's for linear layers.

    Args:
        in_features: width of input and output.
        hidden_features: width inside the perceptron.
        heads: of the attention.
        activation: a name in `nets.activations`.
        causal: whether a position sees only itself and earlier ones.
        norm: "layer" or "rms".
        norm_first: whether the norms come before attention and perceptron or after the sums.
        dropout: the share dropped in training of the attention's weights and of what is added to x.
        drop_path: the probability that a row skips the attention, or the perceptron, in training (Huang et al. 2016).
        rotary: whether queries and keys are turned by their place (Su et al. 2021).
        bias: whether the linear layers have one.
        memory_features: width of the memory; None: the block takes none.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        heads: int = 4,
        activation: str = "gelu",
        causal: bool = False,
        norm: Literal["layer", "rms"] = "layer",
        norm_first: bool = True,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        rotary: bool = False,
        bias: bool = True,
        memory_features: int | None = None,
    ) -> None:
        super().__init__()
        self.attention_norm = norm_named(norm, in_features)
        self.attention = SelfAttention(in_features, heads, causal, dropout, rotary, bias)
        if memory_features is not None:
            self.cross_norm = norm_named(norm, in_features)
            self.cross = CrossAttention(in_features, memory_features, heads, dropout, bias)
        self.feed_norm = norm_named(norm, in_features)
        self.feed = nn.Sequential(
            nn.Linear(in_features, hidden_features, bias=bias),
            activation_named(activation),
            nn.Linear(hidden_features, in_features, bias=bias),
        )
        self.dropout = Dropout(dropout)
        self.drop_path = DropPath(drop_path)
        self.norm_first = norm_first
        self.memory_features = memory_features

    def forward(
        self,
        x: Tensor,
        padding: Tensor | None = None,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        memory_padding: Tensor | None = None,
    ) -> Tensor:
        """[B, T, in_features] to the same shape.

        Args:
            x: the sequence.
            padding: bool [B, T]: True for tokens that nobody may see.
            mask: of the attention to itself, broadcast to [B, heads, T, T]; see `attend`.
            memory: [B, S, memory_features].
            memory_padding: bool [B, S], as `padding`.

        Raises:
            ValueError: a memory for a block without `memory_features`, or none for one with them.
        """
        self._check_memory(memory is not None)
        seen = self.attention(self._before(x, self.attention_norm), padding, mask)
        x = self._after(x, seen, self.attention_norm)
        if memory is not None:
            seen = self.cross(self._before(x, self.cross_norm), memory, memory_padding)
            x = self._after(x, seen, self.cross_norm)
        return self._after(x, self.feed(self._before(x, self.feed_norm)), self.feed_norm)

    def extend(
        self,
        x: Tensor,
        cache: Cache,
        projected: tuple[Tensor, Tensor] | None = None,
        memory_padding: Tensor | None = None,
    ) -> tuple[Tensor, Cache]:
        """The next T tokens, after those in the cache: see `SelfAttention.extend` and `CrossAttention.look`."""
        self._check_memory(projected is not None)
        seen, cache = self.attention.extend(self._before(x, self.attention_norm), cache)
        x = self._after(x, seen, self.attention_norm)
        if projected is not None:
            seen = self.cross.look(self._before(x, self.cross_norm), projected, memory_padding)
            x = self._after(x, seen, self.cross_norm)
        return self._after(x, self.feed(self._before(x, self.feed_norm)), self.feed_norm), cache

    def _check_memory(self, given: bool) -> None:
        if given != (self.memory_features is not None):
            raise ValueError(f"a memory was {'' if given else 'not '}given; memory_features is {self.memory_features}")

    def _before(self, x: Tensor, norm: nn.Module) -> Tensor:
        return norm(x) if self.norm_first else x

    def _after(self, x: Tensor, branch: Tensor, norm: nn.Module) -> Tensor:
        x = x + self.drop_path(self.dropout(branch))
        return x if self.norm_first else norm(x)


def _joined(padding: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """One mask of a mask of keys, bool [B, S], and one of scores."""
    if padding is None:
        return mask
    keys = padding[:, None, None, :]
    if mask is None:
        return keys
    return mask | keys if mask.dtype == torch.bool else mask.masked_fill(keys, -math.inf)


def _active(dropout: Dropout) -> Dropout | None:
    return dropout if dropout.training and dropout.rate > 0 else None


def _by_head(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _merged(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(-2)
