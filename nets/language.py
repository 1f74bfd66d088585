"""Networks of text: an LSTM that writes and convolutions that judge.

Papers: Hochreiter & Schmidhuber 1997 (LSTM); Kim 2014 (windows over words, the largest over time); Yu et al. 2017
(SeqGAN, which sets one against the other).

Both take tokens int64 [B, T], or rows over the vocabulary [B, T, V] (one-hot, or soft: Kusner & Hernandez-Lobato
2016), through which a gradient passes.

Legend: B texts, T tokens of a text, V tokens of the vocabulary, E features of a token, H features of the state.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nets.mlp import Embedding
from nets.recurrent import Cell, Recurrent, State
from nets.registry import register
from nets.regularise import Dropout

__all__ = ["LSTMLanguage", "TextCNN"]


def _embedded(embed: Embedding, tokens: Tensor) -> Tensor:
    """The vectors of tokens int64 [B, T], or the mixtures of vectors that rows [B, T, V] stand for: [B, T, E]."""
    return tokens @ embed.weight if tokens.is_floating_point() else embed(tokens)


def _windows(x: Tensor, width: int) -> Tensor:
    """The features of every `width` neighbours side by side: [B, T, E] to [B, T - width + 1, width * E].

    Not `unfold`: under vmap its gradient runs one lane after another.
    """
    count = x.shape[1] - width + 1
    return torch.cat([x[:, i : i + count] for i in range(width)], dim=-1)


@register("lstm-language", role="model")
class LSTMLanguage(nn.Module):
    """An LSTM (or another cell) that tells the next token, or writes on from a state of its own.

    Args:
        in_shape: (T,), of training texts; it reads any length.
        out_features: size of the vocabulary, V.
        embedding_features: width of a token's vector, E.
        hidden_features: width of every layer's state, H.
        depth: how many layers.
        dropout: rate of zeroing the outputs of every layer but the last.
        std: standard deviation of the vectors at the start (0.1 is SeqGAN's).
        cell: "lstm", "gru" or "rnn".
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        out_features: int,
        embedding_features: int = 32,
        hidden_features: int = 32,
        depth: int = 1,
        dropout: float = 0.0,
        std: float = 0.1,
        cell: Cell = "lstm",
    ) -> None:
        super().__init__()
        self.embed = Embedding(out_features, embedding_features, std)
        self.layers = Recurrent(embedding_features, hidden_features, cell, depth, dropout=dropout)
        self.head = nn.Linear(hidden_features, out_features)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits of each token's successor.

        Args:
            tokens: [B, T] or [B, T, V].
            state: (h, c) after the tokens before, each [depth, B, H] (of other cells h); None: there are none.

        Returns:
            (logits [B, T, V], the state after the last token).
        """
        outputs, state = self.layers(_embedded(self.embed, tokens), state)
        return self.head(outputs), state


@register("text-cnn", role="encoder")
class TextCNN(nn.Module):
    """Convolutions of several widths over a text, each feature's largest value over time (Kim 2014).

    A convolution is a linear layer of unfolded windows: as lanes that is one batched product.

    Args:
        in_shape: (T,).
        vocabulary: how many tokens there are, V.
        embedding_features: width of a token's vector, E.
        windows: how many tokens each kind of convolution sees; none above T.
        hidden_features: features of each kind.
        dropout: rate of zeroing the result.

    Raises:
        ValueError: a window is wider than the text.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        vocabulary: int,
        embedding_features: int = 32,
        windows: tuple[int, ...] = (2, 3, 4, 5),
        hidden_features: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if max(windows) > in_shape[0]:
            raise ValueError(f"windows of {windows} tokens over a text of {in_shape[0]}: none may be wider than it")
        self.windows = windows
        self.embed = Embedding(vocabulary, embedding_features, 0.1)
        self.convolutions = nn.ModuleList(nn.Linear(w * embedding_features, hidden_features) for w in windows)
        self.dropout = Dropout(dropout)
        self.out_features = len(windows) * hidden_features

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T] or [B, T, V] to [B, out_features]."""
        x = _embedded(self.embed, tokens)
        seen = [
            functional.relu(convolution(_windows(x, w))).amax(1)
            for w, convolution in zip(self.windows, self.convolutions, strict=True)
        ]
        return self.dropout(torch.cat(seen, dim=-1))
