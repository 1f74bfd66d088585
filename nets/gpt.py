"""A small GPT: the language model that predicts every next token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from nets.attention import Cache
from nets.decoding import sample
from nets.positions import positions
from nets.registry import register
from nets.regularise import Dropout
from nets.transformer import TransformerStack

__all__ = ["GPT"]


@register("gpt", role="model")
class GPT(nn.Module):
    """Causal transformer over tokens (GPT-2, Radford et al. 2019; as nanoGPT writes it).

    One table of weights embeds the tokens and gives the logits (Press & Wolf 2017), so it is one parameter.

    Initialisation: normal with deviation 0.02, biases zero; the last layer of whatever is added to the residual
    stream has 0.02 / sqrt(2 depth), so that the stream's variance does not grow with the depth.

    Args:
        in_shape: (T,), the longest sequence.
        out_features: V, how many tokens there are.
        hidden_features: width of every token inside.
        depth: how many blocks.
        heads: of each attention.
        expansion: the perceptrons are so many times as wide.
        activation: of the perceptrons, a name in `nets.activations`.
        norm: "layer" or "rms".
        dropout: the share dropped in training of the embedding, the attention's weights and what blocks add.
        position: how the order is told: "learned", "rotary" or "none" (sinusoids would drown tokens this small).
        bias: whether the linear layers have one.

    Raises:
        ValueError: the shape is not (T,).
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        out_features: int,
        hidden_features: int = 64,
        depth: int = 4,
        heads: int = 4,
        expansion: int = 4,
        activation: str = "gelu",
        norm: Literal["layer", "rms"] = "layer",
        dropout: float = 0.0,
        position: Literal["learned", "rotary", "none"] = "learned",
        bias: bool = True,
    ) -> None:
        super().__init__()
        if len(in_shape) != 1:
            raise ValueError(f"a gpt takes tokens (T,); not the shape {tuple(in_shape)}")
        self.embed = nn.Embedding(out_features, hidden_features)
        self.position = positions(position, in_shape[0], hidden_features)
        self.dropout = Dropout(dropout)
        self.stack = TransformerStack(
            hidden_features,
            depth,
            expansion,
            norm,
            heads=heads,
            activation=activation,
            causal=True,
            dropout=dropout,
            rotary=position == "rotary",
            bias=bias,
        )
        self.length = in_shape[0]
        self.out_features = out_features
        self._initialise(depth)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens int64 [B, T] to the logits of each one's successor, [B, T, V]."""
        return self._logits(self.stack(self.dropout(self.position(self.embed(tokens)))))

    def empty_caches(self, rows: int) -> tuple[Cache, ...]:
        """What `extend` starts from."""
        return self.stack.empty_caches(rows, self.length)

    def extend(self, tokens: Tensor, caches: Sequence[Cache]) -> tuple[Tensor, tuple[Cache, ...]]:
        """What `forward` gives for further tokens, without repeating the work on those before.

        Args:
            tokens: int64 [B, T].
            caches: of the tokens before.

        Returns:
            (logits [B, T, V], the caches with these tokens).
        """
        x = self.dropout(self.position(self.embed(tokens), caches[0].place))
        x, caches = self.stack.extend(x, caches)
        return self._logits(x), caches

    def step(self, token: Tensor, caches: Sequence[Cache]) -> tuple[Tensor, tuple[Cache, ...]]:
        """One step of decoding, for `nets.decoding`: tokens [N] to (logits [N, V], the next caches)."""
        logits, caches = self.extend(token.unsqueeze(1), caches)
        return logits.squeeze(1), caches

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor,
        length: int,
        u: Tensor,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> Tensor:
        """Goes on from a prompt; see `nets.decoding.sample`. Evaluation mode is meant; no gradient is kept.

        Args:
            prompt: int64 [B, P], P >= 1.
            length: how many tokens to add; P + length - 1 <= T.
            u: uniform numbers in [0, 1), [B, length]: the only source of chance.
            temperature: divides the logits; 0 takes the likeliest token.
            top_k: only so many likeliest tokens; 0: all.
            top_p: only the likeliest tokens that together have this probability; 1: all.

        Returns:
            int64 [B, length]: the new tokens.

        Raises:
            ValueError: the prompt is empty, or it all does not fit.
        """
        given = prompt.shape[1]
        if not 1 <= given <= self.length - length + 1:
            raise ValueError(f"a prompt of {given} tokens and {length} more do not fit a gpt of {self.length} tokens")
        caches = self.empty_caches(prompt.shape[0])
        if given > 1:
            _, caches = self.extend(prompt[:, :-1], caches)
        return sample(self.step, caches, prompt[:, -1], length, u, temperature, top_k, top_p)

    def _logits(self, x: Tensor) -> Tensor:
        return x @ self.embed.weight.mT

    def _initialise(self, depth: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for block in self.stack.blocks:
            for last in (block.attention.out_proj, block.feed[-1]):
                nn.init.normal_(last.weight, std=0.02 / math.sqrt(2 * depth))
