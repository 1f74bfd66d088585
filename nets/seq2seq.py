"""A recurrent encoder-decoder with attention, trained by teacher forcing, decoded by `nets.decoding`.

    net = build({"kind": "seq2seq", "vocabulary": 30}, input_shape=12, output=40)
    logits = net(source, target_in)                              # training: the true tokens are fed
    tokens = greedy(net.step, net.encode(source), start, end, length)
    tokens, scores = beam(net.step, net.encode(source), start, end, length, width=4)

Deliberate difference from Bahdanau et al. (2015): for both kinds of attention the decoder looks at the source after
its step, as in Luong et al. (2015), and not before it. Nothing then runs from one step to the next but the recurrent
state, and with the true tokens given, all but that is computed for all times at once. No input feeding.

Legend: B sequences, S source and T target tokens, E features of the memory, H of the decoder, V target vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from nets.recurrent import Cell, Recurrent
from nets.registry import register
from nets.regularise import Dropout

__all__ = ["PAD", "AdditiveAttention", "DotAttention", "Memory", "Seq2Seq", "teacher_forcing"]

PAD = 0  # the source token that stands for no token
Share = TypeVar("Share", float, Tensor)


def teacher_forcing(
    kind: Literal["constant", "linear", "inverse-sigmoid"],
    progress: Share,
    start: float = 1.0,
    end: float = 0.0,
    sharpness: float = 20.0,
) -> Share:
    """The share of true tokens that a decoder is fed (scheduled sampling, Bengio et al. 2015).

    Args:
        kind: "constant" is `start`; "linear" falls from `start` to `end`; "inverse-sigmoid" is their
            k / (k + exp(i / k)) between the two, with step i = 2 k ln(k) progress: half the way at half the time.
        progress: of the training, in [0, 1]: a number or a tensor (of lanes).
        start: the share at first.
        end: the share at last; the inverse sigmoid comes within 1 / (k + 1) of both.
        sharpness: k > 1 of the inverse sigmoid; larger is steeper.

    Raises:
        ValueError: no schedule has that name.
    """
    if kind == "constant":
        return start + 0 * progress
    if kind == "linear":
        return start + (end - start) * progress
    if kind == "inverse-sigmoid":
        return end + (start - end) / (1 + sharpness ** (2 * progress - 1))
    raise ValueError(f"unknown schedule of teacher forcing {kind!r}; known: constant, linear, inverse-sigmoid")


class _Attention(nn.Module, ABC):
    """What the kinds share: from scores to a mean of the memory."""

    key: nn.Linear

    @abstractmethod
    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        """How well queries [B, T, H] fit keys [B, S, A]: [B, T, S]."""

    def forward(
        self, query: Tensor, memory: Tensor, real: Tensor | None = None, keys: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the queries see of the memory.

        Args:
            query: [B, T, H].
            memory: [B, S, E].
            real: bool [B, S], False where nothing is to be seen (padding); None: all is.
            keys: `key(memory)` [B, S, A] where it is known already.

        Returns:
            (means of the memory [B, T, E], their weights [B, T, S]). A row without anything real has equal weights.
        """
        scores = self.score(query, self.key(memory) if keys is None else keys)
        if real is not None:
            scores = torch.where(real.unsqueeze(1), scores, torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, dim=-1)
        return weights @ memory, weights


@register("additive-attention", role="layer")
class AdditiveAttention(_Attention):
    """Additive attention: score = v . tanh(W query + U memory) (Bahdanau et al. 2015). torch's initialisation.

    Args:
        in_features: width of a query, H.
        memory_features: width of the memory, E.
        hidden_features: width inside the tanh, A.
    """

    def __init__(self, in_features: int, memory_features: int, hidden_features: int) -> None:
        super().__init__()
        self.query = nn.Linear(in_features, hidden_features)
        self.key = nn.Linear(memory_features, hidden_features, bias=False)
        self.value = nn.Linear(hidden_features, 1, bias=False)

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        """How well queries [B, T, H] fit keys [B, S, A]: [B, T, S]."""
        return self.value(torch.tanh(self.query(query).unsqueeze(2) + keys.unsqueeze(1))).squeeze(-1)


@register("dot-attention", role="layer")
class DotAttention(_Attention):
    """Dot attention: score = query . W memory (Luong et al. 2015, "general"). torch's initialisation.

    Args:
        in_features: width of a query, H.
        memory_features: width of the memory, E.
    """

    def __init__(self, in_features: int, memory_features: int) -> None:
        super().__init__()
        self.key = nn.Linear(memory_features, in_features, bias=False)

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        """How well queries [B, T, H] fit keys [B, S, H]: [B, T, S]."""
        return query @ keys.transpose(1, 2)


class Memory(NamedTuple):
    """What the decoder knows: the state of `nets.decoding`'s step. All tensors have B rows.

    Attributes:
        values: the encoder's outputs [B, S, E].
        keys: what attention compares with [B, S, A].
        real: bool [B, S], False at padding.
        state: the decoder's recurrent state, (h,) or (h, c), each [B, depth, H].
    """

    values: Tensor
    keys: Tensor
    real: Tensor
    state: tuple[Tensor, ...]


@register("seq2seq", role="model")
class Seq2Seq(nn.Module):
    """A recurrent encoder-decoder with attention (Sutskever et al. 2014; Bahdanau et al. 2015; Luong et al. 2015).

    The decoder's first state is the encoder's last (of both directions through a linear layer and tanh). Embeddings
    start standard normal, all else as torch's own layers.

    Args:
        in_shape: (S,): source tokens below `vocabulary`, 0 is padding.
        out_features: the target's vocabulary V.
        vocabulary: the source's.
        hidden_features: width of embeddings, states and attention.
        depth: layers of the encoder and of the decoder.
        cell: "lstm", "gru" or "rnn".
        attention: "additive" or "dot".
        dropout: rate of zeroing embeddings, the outputs between layers and those before the last product.
        bidirectional: whether the encoder also reads from the end to the start.

    Raises:
        ValueError: the input is no sequence of tokens.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        out_features: int,
        vocabulary: int,
        hidden_features: int = 64,
        depth: int = 1,
        cell: Cell = "lstm",
        attention: Literal["additive", "dot"] = "additive",
        dropout: float = 0.0,
        bidirectional: bool = True,
    ) -> None:
        super().__init__()
        if len(in_shape) != 1:
            raise ValueError(f"seq2seq takes tokens, an input shape of (time,), not {tuple(in_shape)}")
        width = hidden_features
        self.source = nn.Embedding(vocabulary, width)
        self.encoder = Recurrent(width, width, cell, depth, bidirectional, dropout)
        features = self.encoder.out_features
        parts = 2 if cell == "lstm" else 1
        self.bridge = nn.ModuleList(nn.Linear(features, width) for _ in range(parts if bidirectional else 0))
        self.target = nn.Embedding(out_features, width)
        self.decoder = Recurrent(width, width, cell, depth, dropout=dropout)
        self.attention = (
            AdditiveAttention(width, features, width) if attention == "additive" else DotAttention(width, features)
        )
        self.mix = nn.Linear(features + width, width)
        self.out = nn.Linear(width, out_features)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        source: Tensor,
        target_in: Tensor,
        u: Tensor | None = None,
        share: float | Tensor = 1.0,
        with_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The logits of every next token.

        Without `u` the true tokens are fed, all at once. With it the decoder goes step by step and is fed its own
        likeliest token where u >= share (Bengio et al. 2015); a share of 0 is greedy decoding, also for lanes.

        Args:
            source: tokens [B, S].
            target_in: tokens [B, T]: the start token, then the true tokens but the last.
            u: uniform numbers in [0, 1), [B, T].
            share: of true tokens; the first is always true. See `teacher_forcing`.
            with_weights: whether to return the attention too.

        Returns:
            logits [B, T, V], or (logits, weights of the attention [B, T, S]).
        """
        memory = self.encode(source)
        if u is None:
            logits, weights, _ = self._decode(target_in, memory)
        else:
            logits, weights = self._decode_by_itself(target_in, u < share, memory)
        return (logits, weights) if with_weights else logits

    def encode(self, source: Tensor, real: Tensor | None = None) -> Memory:
        """What the decoder starts from.

        Args:
            source: tokens [B, S].
            real: bool [B, S], False at padding; None: where the token is not 0.
        """
        real = source != PAD if real is None else real
        values, state = self.encoder(self.dropout(self.source(source)), mask=real)
        parts = state if isinstance(state, tuple) else (state,)
        shape = (self.encoder.depth, len(self.encoder.directions), *parts[0].shape[1:])
        parts = tuple(part.reshape(shape).permute(2, 0, 1, 3).flatten(2) for part in parts)  # [B, depth, E]
        if len(self.bridge):
            parts = tuple(torch.tanh(layer(part)) for layer, part in zip(self.bridge, parts, strict=True))
        return Memory(values, self.attention.key(values), real, parts)

    def step(self, token: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """One step for `nets.decoding`: tokens [N] to logits [N, V]."""
        logits, _, memory = self._decode(token.unsqueeze(1), memory)
        return logits.squeeze(1), memory

    def _decode(self, tokens: Tensor, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        """Feeds tokens [B, T]: (logits [B, T, V], weights [B, T, S], what comes after)."""
        parts = tuple(part.transpose(0, 1) for part in memory.state)
        x = self.dropout(self.target(tokens))
        h, end = self.decoder(x, (parts[0], parts[1]) if len(parts) == 2 else parts[0])
        seen, weights = self.attention(h, memory.values, memory.real, memory.keys)
        mixed = torch.tanh(self.mix(torch.cat([seen, h], dim=-1)))
        ends = tuple(part.transpose(0, 1) for part in (end if isinstance(end, tuple) else (end,)))
        return self.out(self.dropout(mixed)), weights, memory._replace(state=ends)

    def _decode_by_itself(self, target_in: Tensor, true: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Step by step, with the true token where `true` [B, T] and else the likeliest: (logits, weights)."""
        logits: list[Tensor] = []
        weights: list[Tensor] = []
        token = target_in[:, 0]
        for time in range(target_in.shape[1]):
            if time:
                token = torch.where(true[:, time], target_in[:, time], logits[-1].argmax(-1).squeeze(1))
            found, seen, memory = self._decode(token.unsqueeze(1), memory)
            logits.append(found)
            weights.append(seen)
        return torch.cat(logits, dim=1), torch.cat(weights, dim=1)
