"""Transformers: an encoder of sequences, images and tokens, and one from sequence to sequence.

    TransformerStack        blocks with the same fields one after another: encoder, decoder, language model
    Transformer             kind "transformer": a sequence to one vector
    Seq2SeqTransformer      kind "transformer-seq2seq": tokens to tokens, with greedy and beam decoding

Token 0 is padding where a class says so. B rows, T tokens, S source tokens, V tokens in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nets.attention import Cache, TransformerBlock
from nets.decoding import beam
from nets.norms import norm as norm_named
from nets.positions import PositionName, positions
from nets.registry import register
from nets.regularise import Dropout

__all__ = ["Seq2SeqTransformer", "Transformer", "TransformerStack", "pooled"]

Pool = Literal["mean", "first", "last"]
Projected = tuple[Tensor, Tensor]  # the keys and values of a memory, for one block


class TransformerStack(nn.Module):
    """Transformer blocks one after another; with the norm first, a last norm behind them.

    Args:
        features: width of input and output.
        depth: how many blocks.
        expansion: the perceptrons are so many times as wide.
        norm: "layer" or "rms".
        norm_first: see `TransformerBlock`.
        drop_path: of the last block; it grows from 0 with the depth (Huang et al. 2016).
        fields: of every `TransformerBlock`.
    """

    blocks: Any  # an nn.ModuleList, whose type cannot say what it holds

    def __init__(
        self,
        features: int,
        depth: int,
        expansion: int = 4,
        norm: Literal["layer", "rms"] = "layer",
        norm_first: bool = True,
        drop_path: float = 0.0,
        **fields: Any,
    ) -> None:
        super().__init__()
        fields = {"norm": norm, "norm_first": norm_first, **fields}
        rates = [drop_path * (i + 1) / depth for i in range(depth)]
        self.blocks = nn.ModuleList(
            TransformerBlock(features, expansion * features, drop_path=rate, **fields) for rate in rates
        )
        self.norm = norm_named(norm, features) if norm_first else nn.Identity()

    def forward(
        self,
        x: Tensor,
        padding: Tensor | None = None,
        memory: Tensor | None = None,
        memory_padding: Tensor | None = None,
    ) -> Tensor:
        """[B, T, features] to the same shape; the arguments are those of `TransformerBlock`."""
        for block in self.blocks:
            x = block(x, padding, None, memory, memory_padding)
        return self.norm(x)

    def empty_caches(self, rows: int, length: int) -> tuple[Cache, ...]:
        """One cache for each block: see `SelfAttention.empty_cache`."""
        return tuple(block.attention.empty_cache(rows, length) for block in self.blocks)

    def project(self, memory: Tensor) -> tuple[Projected, ...]:
        """The memory's keys and values for each block: see `CrossAttention.project`."""
        return tuple(block.cross.project(memory) for block in self.blocks)

    def extend(
        self,
        x: Tensor,
        caches: Sequence[Cache],
        projected: Sequence[Projected] | None = None,
        memory_padding: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Cache, ...]]:
        """The next T tokens, after those in the caches: see `TransformerBlock.extend`."""
        after = []
        for i, block in enumerate(self.blocks):
            x, cache = block.extend(x, caches[i], projected[i] if projected else None, memory_padding)
            after.append(cache)
        return self.norm(x), tuple(after)


def pooled(x: Tensor, pool: Pool, padding: Tensor | None = None) -> Tensor:
    """One vector for a sequence.

    Args:
        x: [B, T, features].
        pool: "mean" of all tokens, the "first" or the "last" one.
        padding: bool [B, T]: True for tokens that do not count; where none does, the mean is zeros.

    Returns:
        [B, features].
    """
    if pool == "first":
        return x[:, 0]
    if padding is None:
        return x.mean(1) if pool == "mean" else x[:, -1]
    seen = ~padding
    if pool == "mean":
        return (x * seen.unsqueeze(-1)).sum(1) / seen.sum(1, keepdim=True).clamp(min=1)
    last = (seen * torch.arange(x.shape[1], device=x.device)).amax(1)
    return x.gather(1, last[:, None, None].expand(-1, 1, x.shape[-1])).squeeze(1)


@register("transformer", role="encoder")
class Transformer(nn.Module):
    """Transformer blocks over a sequence, of which one vector remains (Vaswani et al. 2017).

    Sequences (T, features), tokens (T,) with a `vocabulary`, and images, whose rows are the sequence.

    Initialisation: torch's for linear layers and embeddings; learned positions normal with deviation 0.3.

    Args:
        in_shape: of one row.
        hidden_features: width of every token inside, and of the output.
        depth: how many blocks.
        heads: of each attention.
        expansion: the perceptrons are so many times as wide.
        activation: of the perceptrons, a name in `nets.activations`.
        norm: "layer" or "rms".
        norm_first: whether the norms come before attention and perceptron or after the sums.
        causal: whether a position sees only itself and earlier ones.
        dropout: the share dropped in training of the attention's weights and of what blocks add.
        drop_path: the probability that a row skips the last block's parts in training; less for earlier ones.
        position: how the order is told: "learned", "sinusoidal", "rotary" or "none".
        pool: the output: the "mean" of all tokens, the "first" or the "last" one.
        vocabulary: how many tokens there are; 0 for numbers.
        padding: whether token 0 is padding, which nobody sees and the pool leaves out.

    Raises:
        ValueError: a shape that is no sequence, or padding without tokens.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        hidden_features: int = 64,
        depth: int = 2,
        heads: int = 4,
        expansion: int = 4,
        activation: str = "gelu",
        norm: Literal["layer", "rms"] = "layer",
        norm_first: bool = True,
        causal: bool = False,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        position: PositionName = "learned",
        pool: Pool = "mean",
        vocabulary: int = 0,
        padding: bool = False,
    ) -> None:
        super().__init__()
        if len(in_shape) != (1 if vocabulary else 2) and (vocabulary or len(in_shape) != 3):
            wanted = "tokens (T,)" if vocabulary else "a sequence (T, F), or tokens (T,) with a vocabulary, or an image"
            raise ValueError(f"a transformer takes {wanted}; not the shape {tuple(in_shape)}")
        if padding and not vocabulary:
            raise ValueError("padding: only tokens have a padding token; give a vocabulary")
        length, width = _sequence(in_shape)
        self.embed = nn.Embedding(vocabulary, hidden_features) if vocabulary else nn.Linear(width, hidden_features)
        self.position = positions(position, length, hidden_features, std=0.3)
        self.dropout = Dropout(dropout)
        self.stack = TransformerStack(
            hidden_features,
            depth,
            expansion,
            norm,
            norm_first,
            drop_path,
            heads=heads,
            activation=activation,
            causal=causal,
            dropout=dropout,
            rotary=position == "rotary",
        )
        self.pool: Pool = pool
        self.padding = padding
        self.out_features = hidden_features

    def forward(self, x: Tensor) -> Tensor:
        """[B, *in_shape] to [B, hidden_features]."""
        padding = x == 0 if self.padding else None
        if x.dim() == 4:  # an image: a row of pixels, of all channels, is a token
            x = x.transpose(1, 2).flatten(2)
        x = self.stack(self.dropout(self.position(self.embed(x))), padding)
        return pooled(x, self.pool, padding)


@register("transformer-seq2seq", role="model")
class Seq2SeqTransformer(nn.Module):
    """The encoder and decoder of "Attention is all you need" (Vaswani et al. 2017), with the norm first by default.

    Token 0 of the source is padding and is never seen. In the target nothing needs hiding: padding comes last, and
    nobody sees what comes later.

    Initialisation: torch's for linear layers and embeddings; learned positions normal with deviation 0.3.

    Args:
        in_shape: (S,), the longest source.
        out_features: V, how many tokens the target has.
        hidden_features: width of every token inside.
        depth: blocks of the encoder, and as many of the decoder.
        heads: of each attention.
        expansion: the perceptrons are so many times as wide.
        activation: of the perceptrons, a name in `nets.activations`.
        norm: "layer" or "rms".
        norm_first: whether the norms come before attention and perceptron or after the sums.
        dropout: the share dropped in training of the attention's weights and of what blocks add.
        position: how the order is told: "learned", "sinusoidal", "rotary" or "none".
        vocabulary: how many tokens the source has; 0: as many as the target.
        target_length: the longest target, for learned positions; 0: as long as the source.

    Raises:
        ValueError: the shape is not (S,).
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        out_features: int,
        hidden_features: int = 64,
        depth: int = 2,
        heads: int = 4,
        expansion: int = 4,
        activation: str = "gelu",
        norm: Literal["layer", "rms"] = "layer",
        norm_first: bool = True,
        dropout: float = 0.0,
        position: PositionName = "sinusoidal",
        vocabulary: int = 0,
        target_length: int = 0,
    ) -> None:
        super().__init__()
        if len(in_shape) != 1:
            raise ValueError(f"transformer-seq2seq takes source tokens (S,); not the shape {tuple(in_shape)}")
        common = (hidden_features, depth, expansion, norm, norm_first)
        fields: dict[str, Any] = {"heads": heads, "activation": activation, "dropout": dropout}
        fields["rotary"] = position == "rotary"
        self.source_embed = nn.Embedding(vocabulary or out_features, hidden_features)
        self.source_position = positions(position, in_shape[0], hidden_features, std=0.3)
        self.encoder = TransformerStack(*common, **fields)
        self.target_embed = nn.Embedding(out_features, hidden_features)
        self.target_position = positions(position, target_length or in_shape[0], hidden_features, std=0.3)
        self.decoder = TransformerStack(*common, causal=True, memory_features=hidden_features, **fields)
        self.head = nn.Linear(hidden_features, out_features)
        self.dropout = Dropout(dropout)

    def forward(self, source: Tensor, target_in: Tensor) -> Tensor:
        """The logits of every next token, each of the true tokens before it (teacher forcing).

        Args:
            source: int64 [B, S], 0 where it is padded.
            target_in: int64 [B, T]: a start token and the target but its last token.

        Returns:
            [B, T, V].
        """
        memory, padding = self.encode(source)
        x = self.dropout(self.target_position(self.target_embed(target_in)))
        return self.head(self.decoder(x, memory=memory, memory_padding=padding))

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Source [B, S] to (memory [B, S, hidden_features], padding, bool [B, S])."""
        padding = source == 0
        return self.encoder(self.dropout(self.source_position(self.source_embed(source))), padding), padding

    def start(self, source: Tensor, length: int) -> dict[str, Any]:
        """The state before the first step, for up to `length` steps; every tensor in it has B rows."""
        memory, padding = self.encode(source)
        caches = self.decoder.empty_caches(source.shape[0], length)
        return {"caches": caches, "memory": self.decoder.project(memory), "padding": padding}

    def step(self, token: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """One step of decoding, for `nets.decoding`: tokens [N] to (logits [N, V], the next state)."""
        caches = state["caches"]
        x = self.dropout(self.target_position(self.target_embed(token).unsqueeze(1), caches[0].place))
        x, caches = self.decoder.extend(x, caches, state["memory"], state["padding"])
        return self.head(x).squeeze(1), {**state, "caches": caches}

    def generate(
        self, source: Tensor, start: int, end: int, length: int, width: int = 1, length_penalty: float = 0.0
    ) -> Tensor:
        """The best sequence that a beam search finds; see `nets.decoding.beam`. Evaluation mode is meant.

        Args:
            source: int64 [B, S].
            start: the token before the first.
            end: the token that ends a sequence.
            length: how many tokens at most.
            width: of the beam; 1 is greedy decoding.
            length_penalty: of the beam.

        Returns:
            int64 [B, length], after `end` only `end`.
        """
        first = torch.full_like(source[:, 0], start)
        tokens, _ = beam(self.step, self.start(source, length), first, end, length, width, length_penalty)
        return tokens[:, 0]


def _sequence(in_shape: tuple[int, ...]) -> tuple[int, int]:
    """(how many tokens, width of one)."""
    if len(in_shape) == 1:
        return in_shape[0], 0
    if len(in_shape) == 2:
        return in_shape[0], in_shape[1]
    return in_shape[1], in_shape[0] * in_shape[2]
