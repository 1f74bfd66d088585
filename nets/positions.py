"""Where a token stands in its sequence: attention by itself cannot tell.

    learned, sinusoidal     added to the tokens once, before the first block: `positions(name, ...)`
    rotary                  turns the queries and keys inside every attention: `rotate`
    none                    the order is not seen (but by a causal mask)

Nothing here is a buffer: sines are computed where they are used, so lanes do not carry K copies of a table.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["LearnedPositions", "PositionName", "SinusoidalPositions", "places", "positions", "rotate", "sinusoids"]

PositionName = Literal["learned", "sinusoidal", "rotary", "none"]


def places(x: Tensor, start: Tensor | None = None) -> Tensor:
    """The place of every token in its sequence.

    Args:
        x: [B, T, ...], any type.
        start: int64 [B]: the place of the first token of each row; None: 0.

    Returns:
        int64 [T], or [B, T] with `start`.
    """
    steps = torch.arange(x.shape[1], device=x.device)
    return steps if start is None else start.unsqueeze(-1) + steps


def sinusoids(place: Tensor, features: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """sin and cos of the place at geometrically falling frequencies, taking turns (Vaswani et al. 2017, 3.5).

    Args:
        place: integers, [...].
        features: how many numbers for each place; the last cosine is left out where it is odd.
        dtype: of the result.

    Returns:
        [..., features], in [-1, 1].
    """
    angle = _angles(place, features + features % 2, dtype)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)[..., :features].to(dtype)


def rotate(x: Tensor, place: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021, eq. 34): every pair of features is turned by an angle that grows.

    The angle is proportional to the place, so that the product of a turned query and a turned key depends on the
    distance of their places alone.

    Args:
        x: [B, heads, T, features], features even.
        place: int64 [T] or [B, T].

    Returns:
        As `x`; every pair keeps its length.
    """
    angle = _angles(place, x.shape[-1], x.dtype)
    angle = angle if place.dim() == 1 else angle.unsqueeze(1)  # the same for all heads
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1).flatten(-2)


class LearnedPositions(nn.Module):
    """Adds a learned vector for each place (Gehring et al. 2017).

    Initialisation: normal with the given deviation.

    Args:
        length: how many places there are.
        features: width of a token.
        std: deviation at the start.
    """

    def __init__(self, length: int, features: int, std: float = 0.02) -> None:
        super().__init__()
        self.weight = nn.Parameter(std * torch.randn(length, features))

    def forward(self, x: Tensor, start: Tensor | None = None) -> Tensor:
        """[B, T, features] to the same shape; `start` as in `places`; start + T <= length."""
        if start is None:
            return x + self.weight[: x.shape[1]]
        return x + functional.embedding(places(x, start), self.weight)


class SinusoidalPositions(nn.Module):
    """Adds `sinusoids` to the tokens; nothing is learned and any length will do."""

    def forward(self, x: Tensor, start: Tensor | None = None) -> Tensor:
        """[B, T, features] to the same shape; `start` as in `places`."""
        return x + sinusoids(places(x, start), x.shape[-1], x.dtype)


class _Unchanged(nn.Module):
    def forward(self, x: Tensor, start: Tensor | None = None) -> Tensor:
        return x


def positions(name: PositionName, length: int, features: int, std: float = 0.02) -> nn.Module:
    """What is added to tokens [B, T, features] before the first block, by name.

    Args:
        name: "learned", "sinusoidal", or "rotary" and "none", which add nothing (rotary ones are the attention's).
        length: how many places there are, for "learned".
        features: width of a token.
        std: deviation of "learned" at the start.

    Raises:
        ValueError: no position has that name.
    """
    if name == "learned":
        return LearnedPositions(length, features, std)
    if name == "sinusoidal":
        return SinusoidalPositions()
    if name in ("rotary", "none"):
        return _Unchanged()
    raise ValueError(f"unknown position '{name}'; known: learned, none, rotary, sinusoidal")


def _angles(place: Tensor, features: int, dtype: torch.dtype) -> Tensor:
    """place / 10000^(2i / features), [..., features / 2]; half precision would not even hold the place."""
    dtype = torch.promote_types(dtype, torch.float32)
    index = torch.arange(0, features, 2, device=place.device, dtype=dtype)
    return place.unsqueeze(-1).to(dtype) * torch.exp(index * (-math.log(10000.0) / features))
