"""n-gram metrics against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from generative.metrics_tokens import jensen_shannon, ngram_jensen_shannon, ngrams


def test_ngrams_by_hand():
    assert ngrams(torch.tensor([[1, 2, 3], [4, 5, 6]]), 2).tolist() == [[1, 2], [2, 3], [4, 5], [5, 6]]
    with pytest.raises(ValueError, match="hold no 4-gram"):
        ngrams(torch.zeros(2, 3, dtype=torch.int64), 4)


def test_jensen_shannon_closed_forms():
    half, whole = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    assert jensen_shannon(half, half).item() == 0
    assert jensen_shannon(whole, whole.flip(0)).item() == pytest.approx(1)
    assert jensen_shannon(half, whole).item() == pytest.approx(1.5 - 0.75 * np.log2(3))


def test_order_counts_from_two_tokens_on():
    forward = torch.arange(8).repeat(5, 1)
    assert ngram_jensen_shannon(forward, forward.flip(1), 1).item() == 0
    assert ngram_jensen_shannon(forward, forward.flip(1), 2).item() == pytest.approx(1)
    assert ngram_jensen_shannon(forward, forward[:2], 3).item() == 0


def test_it_grows_with_noise():
    rng = np.random.default_rng(0)
    real, own = (torch.as_tensor(rng.integers(0, 4, (300, 1)) + np.arange(12)) % 7 for _ in range(2))
    noise = torch.as_tensor(rng.integers(0, 7, own.shape))
    values = []
    for share in (0.0, 0.2, 0.5, 1.0):
        replaced = torch.as_tensor(rng.random(own.shape) < share)
        values.append(ngram_jensen_shannon(torch.where(replaced, noise, own), real, 2).item())
    assert values == sorted(values)
    assert values[0] < 0.01 < 0.5 < values[-1]
