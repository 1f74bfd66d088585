"""N-gram metrics against counts by hand and against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from generative.text_metrics import distinct, jensen_shannon, ngrams, overlap, scores, self_overlap

TEXTS = torch.tensor([[0, 1, 2, 1], [1, 2, 1, 2], [3, 3, 3, 3]])


def test_numbers_of_ngrams_are_equal_exactly_where_the_ngrams_are():
    tokens = torch.randint(0, 3, (40, 6), generator=torch.Generator().manual_seed(0))
    found = ngrams(tokens, 3, 3)
    spelled = [[tuple(row[i : i + 3]) for i in range(4)] for row in tokens.tolist()]
    assert found.shape == (40, 4)
    assert len({(code, gram) for codes, grams in zip(found.tolist(), spelled, strict=True)
                for code, gram in zip(codes, grams, strict=True)}) == len(found.unique()) == 27  # fmt: skip


def test_a_large_vocabulary_does_not_overflow():
    top = torch.full((1, 4), 4999)
    assert ngrams(top, 4, 5000).item() == 5000**4 - 1


def test_overlap_counts_by_hand():
    grams = ngrams(TEXTS, 2, 4)  # 01 12 21 | 12 21 12 | 33 33 33
    assert overlap(grams, ngrams(torch.tensor([[1, 2]]), 2, 4)).item() == pytest.approx(3 / 9)
    assert overlap(grams, grams).item() == 1


def test_self_overlap_does_not_count_repeats_within_a_text():
    assert self_overlap(ngrams(TEXTS, 2, 4)).item() == pytest.approx(5 / 9)  # 33 stands in one text only
    assert self_overlap(ngrams(TEXTS[:1], 2, 4)).item() == 0
    assert self_overlap(ngrams(TEXTS[[1, 1]], 2, 4)).item() == 1


def test_distinct_counts_by_hand():
    assert distinct(ngrams(TEXTS, 2, 4)).item() == pytest.approx(4 / 9)


def test_jensen_shannon_equals_scipy_and_its_ends():
    a, b = (torch.randint(0, high, (50, 8), generator=torch.Generator().manual_seed(high)) for high in (3, 5))
    counts = [np.bincount(rows.flatten().numpy(), minlength=5) for rows in (a, b)]
    assert jensen_shannon(a, b).item() == pytest.approx(jensenshannon(*counts, base=2) ** 2)
    assert jensen_shannon(a, a).item() == pytest.approx(0, abs=1e-12)
    assert jensen_shannon(a, a + 10).item() == pytest.approx(1)


def test_quality_rises_and_diversity_falls_as_texts_repeat_the_reference():
    rng = torch.Generator().manual_seed(1)
    reference = torch.randint(0, 6, (200, 12), generator=rng)
    noise, copies = torch.randint(0, 6, (100, 12), generator=rng), reference[:2].repeat(50, 1)
    found = {name: scores(rows, reference, 6) for name, rows in (("noise", noise), ("copies", copies))}
    assert found["copies"]["overlap_4"] == 1 > found["noise"]["overlap_4"]
    assert found["copies"]["self_overlap_4"] == 1 > found["noise"]["self_overlap_4"]
    assert found["copies"]["distinct_4"] < 0.05 < found["noise"]["distinct_4"]
    assert found["copies"]["js_4"] > found["noise"]["js_4"]
    assert all(v.dtype == torch.float64 and math.isfinite(v) for row in found.values() for v in row.values())
