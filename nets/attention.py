"""Self-attention and a transformer encoder with the norm first."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nets.activations import activation as activation_named

__all__ = ["SelfAttention", "TransformerBlock", "TransformerEncoder", "attend"]


def attend(query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
    """softmax(query key^T / sqrt(features)) value, as `torch.nn.functional.scaled_dot_product_attention`.

    Written out, because torch's own has no batching rule on a CPU: under vmap it falls back to one lane after
    another and warns, and it has no second derivative.

    Args:
        query: [..., T, features].
        key: [..., S, features].
        value: [..., S, out_features].
        causal: whether position t sees only positions up to t.

    Returns:
        [..., T, out_features].
    """
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(hidden, -math.inf)
    return torch.softmax(scores, dim=-1) @ value


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention of a sequence to itself (Vaswani et al. 2017).

    Args:
        in_features: width of input and output; a multiple of `heads`.
        heads: how many heads.
        causal: whether a position sees only itself and earlier ones.

    Raises:
        ValueError: `heads` does not divide the width.
    """

    def __init__(self, in_features: int, heads: int = 4, causal: bool = False) -> None:
        super().__init__()
        if in_features % heads:
            raise ValueError(f"{heads} heads do not divide a width of {in_features}")
        self.in_proj = nn.Linear(in_features, 3 * in_features)
        self.out_proj = nn.Linear(in_features, in_features)
        self.heads = heads
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, in_features] to [B, T, in_features]."""
        batch, time, width = x.shape
        parts = (
            self.in_proj(x).reshape(batch, time, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        )
        query, key, value = parts.unbind(0)
        mixed = attend(query, key, value, self.causal)
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, time, width))


class TransformerBlock(nn.Module):
    """Attention and a perceptron, each behind a layer norm and added to its input (Xiong et al. 2020).

    Args:
        in_features: width of input and output.
        hidden_features: width inside the perceptron.
        heads: of the attention.
        activation: a name in `nets.activations`.
        causal: see `SelfAttention`.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        heads: int = 4,
        activation: str = "gelu",
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(in_features)
        self.attention = SelfAttention(in_features, heads, causal)
        self.feed_norm = nn.LayerNorm(in_features)
        self.feed = nn.Sequential(
            nn.Linear(in_features, hidden_features),
            activation_named(activation),
            nn.Linear(hidden_features, in_features),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, in_features] to [B, T, in_features]."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed(self.feed_norm(x))


class TransformerEncoder(nn.Module):
    """Transformer blocks over embedded tokens with learned positions.

    Args:
        in_features: width of a token.
        hidden_features: width of the encoder; its perceptrons are twice as wide.
        depth: how many blocks.
        length: how many positions there are.
        heads: of the attention.
        activation: a name in `nets.activations`.
        causal: see `SelfAttention`.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        depth: int,
        length: int,
        heads: int = 4,
        activation: str = "gelu",
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(in_features, hidden_features)
        self.position = nn.Parameter(0.3 * torch.randn(length, hidden_features))
        self.blocks = nn.Sequential(
            *(
                TransformerBlock(hidden_features, 2 * hidden_features, heads, activation, causal)
                for _ in range(depth)
            )
        )
        self.norm = nn.LayerNorm(hidden_features)
        self.out_features = hidden_features

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, in_features] to [B, T, hidden_features], T <= length."""
        return self.norm(self.blocks(self.embed(x) + self.position[: x.shape[1]]))
