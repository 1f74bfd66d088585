"""A reader of stories: every sentence becomes one vector, and a transformer looks from the question at the sentences.

Paper: Sukhbaatar et al. 2015 (end-to-end memory networks: sentences as sums of words with a code of their place, times
counted from the question backwards). Deliberate differences: the codes are learnt; the hops are a transformer's blocks.

Legend: B stories, L sentences, W words of a sentence, T = L W, H features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nets.registry import register
from nets.transformer import TransformerStack

__all__ = ["StoryTransformer"]


@register("story-transformer", role="encoder")
class StoryTransformer(nn.Module):
    """A transformer over sentences, each a sum of its words' vectors times codes of their places.

    The last sentence, the question, is what remains. Token 0 is padding, sentences of padding alone are not seen.

    Initialisation: words normal with deviation 0.5, codes of places 1, of times 0.3; else torch's.

    Args:
        in_shape: (T,), sentence after sentence, each filled up to `sentence` words.
        vocabulary: how many words there are.
        sentence: words of a sentence, W; divides T.
        hidden_features: width of every sentence inside, and of the output.
        depth: how many blocks.
        heads: of each attention.
        expansion: the perceptrons are so many times as wide.
        dropout: the share dropped in training of the attention's weights and of what blocks add.

    Raises:
        ValueError: the shape is not (T,), or no multiple of a sentence.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        vocabulary: int,
        sentence: int,
        hidden_features: int = 64,
        depth: int = 4,
        heads: int = 4,
        expansion: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if len(in_shape) != 1 or not sentence or in_shape[0] % sentence:
            raise ValueError(f"a story-transformer takes (T,) tokens, T a multiple of {sentence}; not {in_shape}")
        self.words = nn.Embedding(vocabulary, hidden_features)
        self.places = nn.Parameter(torch.randn(sentence, hidden_features))
        self.times = nn.Parameter(0.3 * torch.randn(in_shape[0] // sentence, hidden_features))
        nn.init.normal_(self.words.weight, std=0.5)
        self.stack = TransformerStack(hidden_features, depth, expansion, heads=heads, dropout=dropout)
        self.out_features = hidden_features

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens int64 [B, T] to [B, hidden_features]."""
        tokens = tokens.unflatten(1, (len(self.times), len(self.places)))
        real = (tokens != 0).unsqueeze(-1)
        lines = torch.where(real, self.words(tokens) * self.places, 0.0).sum(2) / math.sqrt(len(self.places) / 2)
        return self.stack(lines + self.times, ~real.any(2).squeeze(-1))[:, -1]
