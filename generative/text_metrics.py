"""How good and how varied written texts are, by their n-grams: pure functions of one trial's tokens.

Papers: Papineni et al. 2002 (n-gram precision); Zhu et al. 2018 (Texygen: the same between samples, as diversity); Li
et al. 2016 (distinct n-grams); Gulrajani et al. 2017 (Jensen-Shannon divergence of n-grams); Caccia et al. 2020
(quality and diversity belong together: a temperature trades one for the other).
Deliberate difference: an n-gram of a text counts as often as it stands there, without BLEU's clipping and brevity
penalty: texts are of equal length, and what clipping punishes is what `distinct` and `self_overlap` tell.

Legend: N texts, T tokens of a text, V tokens of the vocabulary, W = T - n + 1 n-grams of a text.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["distinct", "jensen_shannon", "ngrams", "overlap", "scores", "self_overlap"]

ORDER = 4  # of the n-grams in `scores`


def ngrams(tokens: Tensor, n: int, vocabulary: int) -> Tensor:
    """A number for every n-gram, equal exactly where n-grams are: int64 [N, W].

    Args:
        tokens: int64 [N, T], below the vocabulary.
        n: tokens of an n-gram, at most T; vocabulary^n must stay below 2^63.
        vocabulary: V.
    """
    places = vocabulary ** torch.arange(n - 1, -1, -1, device=tokens.device)
    return (tokens.unfold(1, n, 1) * places).sum(-1)


def overlap(grams: Tensor, reference: Tensor) -> Tensor:
    """The share of a set's n-grams that stand in the reference: quality, 0-dim float64 in [0, 1]."""
    return torch.isin(grams, reference).double().mean()


def self_overlap(grams: Tensor) -> Tensor:
    """The share of a set's n-grams that stand in another text of the same set: 0-dim float64; lower is more diverse."""
    codes, place = torch.unique(grams, return_inverse=True)  # place [N, W]
    row = torch.arange(len(grams), device=grams.device).unsqueeze(1)
    once_a_row = torch.unique(place * len(grams) + row)
    rows = torch.bincount(once_a_row // len(grams), minlength=len(codes))  # texts that have the n-gram
    return (rows[place] > 1).double().mean()


def distinct(grams: Tensor) -> Tensor:
    """Different n-grams over all n-grams: diversity, 0-dim float64 in (0, 1]; it falls with the number of texts."""
    return torch.tensor(len(torch.unique(grams)) / grams.numel(), dtype=torch.float64)


def jensen_shannon(grams: Tensor, reference: Tensor) -> Tensor:
    """The Jensen-Shannon divergence of two sets' n-gram frequencies in bits: 0 for equal ones, 1 for disjoint ones.

    Two samples of one language differ too; compare with what held-out text gives.
    """
    codes, place = torch.unique(torch.cat([grams.flatten(), reference.flatten()]), return_inverse=True)
    places = place.split([grams.numel(), reference.numel()])
    pq = torch.stack([torch.bincount(part, minlength=len(codes)).double() / len(part) for part in places])
    return (torch.xlogy(pq, pq) - torch.xlogy(pq, pq.mean(0))).sum() / (2 * math.log(2))


def scores(tokens: Tensor, reference: Tensor, vocabulary: int) -> dict[str, Tensor]:
    """All of them, with n-grams of 4 tokens (Jensen-Shannon also of 2).

    Args:
        tokens: int64 [N, T].
        reference: held-out texts, int64 [M, T].
        vocabulary: V.
    """
    own, held = ngrams(tokens, ORDER, vocabulary), ngrams(reference, ORDER, vocabulary)
    pairs = (ngrams(rows, 2, vocabulary) for rows in (tokens, reference))
    return {
        "overlap_4": overlap(own, held),
        "self_overlap_4": self_overlap(own),
        "distinct_4": distinct(own),
        "js_2": jensen_shannon(*pairs),
        "js_4": jensen_shannon(own, held),
    }
