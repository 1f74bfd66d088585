"""How close generated sequences are to real ones, by their n-grams; functions of one set of samples.

Legend: N samples, R real sequences, L tokens of one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["jensen_shannon", "ngram_jensen_shannon", "ngrams"]


def ngrams(tokens: Tensor, n: int) -> Tensor:
    """All runs of n tokens of sequences [N, L]: [N (L - n + 1), n].

    Raises:
        ValueError: the sequences are shorter than n.
    """
    if tokens.shape[1] < n:
        raise ValueError(f"sequences of {tokens.shape[1]} tokens hold no {n}-gram: take n <= {tokens.shape[1]}")
    return tokens.unfold(1, n, 1).reshape(-1, n)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence of two distributions [C] in bits: 0 where equal, 1 where disjoint (Lin 1991)."""
    p, q = p.double(), q.double()
    middle = (p + q).clamp(min=torch.finfo(torch.float64).tiny) / 2
    nats = (torch.special.xlogy(p, p / middle) + torch.special.xlogy(q, q / middle)).sum() / 2
    return nats / math.log(2)


def ngram_jensen_shannon(samples: Tensor, real: Tensor, n: int) -> Tensor:
    """Jensen-Shannon divergence of the n-grams of two sets of sequences in bits, 0-dim float64.

    Plug-in: finite sets of one distribution are above 0, the more the rarer their n-grams; compare with two real sets.

    Args:
        samples: int64 [N, L].
        real: int64 [R, L'].
        n: tokens of an n-gram.

    Raises:
        ValueError: sequences are shorter than n.
    """
    ours, theirs = ngrams(samples, n), ngrams(real, n)
    kinds, index = torch.unique(torch.cat([ours, theirs]), dim=0, return_inverse=True)
    p, q = (torch.bincount(part, minlength=len(kinds)).double() for part in index.split([len(ours), len(theirs)]))
    return jensen_shannon(p / p.sum(), q / q.sum())
