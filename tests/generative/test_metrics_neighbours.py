"""Metrics by neighbours against closed forms, brute force and damage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from generative.metrics_neighbours import (
    memorised_share,
    nearest,
    neighbour_metrics,
    radii,
    support_size,
    two_sample_accuracy,
)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(seed).normal(size=shape))


def test_radii_by_hand():
    rows = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert radii(rows, 1).tolist() == pytest.approx([1, 1, 2, 4])
    assert radii(rows, 2).tolist() == pytest.approx([3, 2, 3, 6])


def test_four_by_hand():
    # balls of the real rows 0, 1, 3 (k = 1) reach 1, 1, 2; those of the samples 0.5, 2, 9 reach 1.5, 1.5, 7
    scores = neighbour_metrics(torch.tensor([[0.5], [2.0], [9.0]]), torch.tensor([[0.0], [1.0], [3.0]]), k=1)
    assert scores["precision"] == pytest.approx(2 / 3)
    assert scores["density"] == pytest.approx((2 + 2 + 0) / 3)
    assert scores["coverage"] == 1
    assert scores["recall"] == 1


def test_equal_distributions_have_the_expected_density_and_coverage():
    n, r, k = 600, 500, 5
    scores = [neighbour_metrics(normal(2 * s, n, 3), normal(2 * s + 1, r, 3), k) for s in range(6)]
    mean = {name: float(torch.stack([row[name] for row in scores]).mean()) for name in scores[0]}
    expected = 1 - math.prod((r - i) / (n + r - i) for i in range(1, k + 1))  # Naeem et al. 2020, lemma 2
    assert mean["coverage"] == pytest.approx(expected, abs=0.01)
    assert mean["density"] == pytest.approx(1, abs=0.04)
    assert min(mean["precision"], mean["recall"]) > 0.9


def test_fidelity_and_diversity_are_told_apart():
    real = normal(0, 400, 2)
    same = neighbour_metrics(normal(1, 400, 2), real)
    narrow = neighbour_metrics(0.1 * normal(1, 400, 2), real)
    wide = neighbour_metrics(5 * normal(1, 400, 2), real)
    assert narrow["precision"] > 0.99
    assert narrow["recall"] < 0.3 < 0.9 < same["recall"]
    assert narrow["coverage"] < 0.5 < 0.9 < same["coverage"]
    assert wide["precision"] < 0.4 < 0.9 < same["precision"]
    assert wide["density"] < 0.4
    far = neighbour_metrics(normal(1, 400, 2) + 100, real)
    assert [float(value) for value in far.values()] == [0, 0, 0, 0]


def test_chunks_and_given_radii_change_nothing(monkeypatch):
    a, b = normal(0, 50, 3), normal(1, 70, 3)
    whole = neighbour_metrics(a, b)
    for module in ("metrics", "metrics_neighbours"):
        monkeypatch.setattr(f"generative.{module}.CHUNK", 16)
    assert neighbour_metrics(a, b, real_radii=radii(b, 5)) == whole


def test_too_few_rows_are_named():
    with pytest.raises(ValueError, match="5 nearest neighbours need at least 6 rows, there are 5"):
        neighbour_metrics(normal(0, 5, 2), normal(1, 9, 2))


def test_nearest_equals_brute_force_and_is_exact_for_copies():
    rows, among = normal(0, 20, 2, 3), normal(1, 300, 2, 3)
    distance, index = nearest(rows, among, k=2)
    brute = (rows[:, None] - among[None]).flatten(2).norm(dim=-1).sort(dim=1)
    assert torch.equal(index, brute.indices[:, :2])
    torch.testing.assert_close(distance, brute.values[:, :2], rtol=1e-5, atol=0)
    assert nearest(among[[7]] + 0, among)[0].item() == 0


def test_copies_are_seen_as_memorised():
    training = normal(0, 500, 20)
    fresh, copies = normal(1, 60, 20), training[:40] + 0.01 * normal(2, 40, 20)
    share = memorised_share(nearest(torch.cat([fresh, copies]), training, k=2)[0])
    assert share.item() == pytest.approx(0.4)


def test_support_size_of_a_known_support():
    rows = normal(0, 100, 4)[torch.as_tensor(np.random.default_rng(0).integers(0, 100, 400))]
    assert support_size(rows, same=1e-6).item() == pytest.approx(100, rel=0.15)
    assert support_size(normal(1, 50, 4), same=1e-6) == math.inf


def test_two_samples_are_told_apart_where_they_differ(monkeypatch):
    assert two_sample_accuracy(normal(0, 500, 2), normal(1, 500, 2)).item() == pytest.approx(0.5, abs=0.05)
    assert two_sample_accuracy(normal(0, 200, 2), normal(1, 200, 2) + 100) == 1
    assert two_sample_accuracy(normal(0, 200, 2) * torch.nan, normal(1, 200, 2)) == 1
    assert two_sample_accuracy(normal(0, 200, 2), normal(0, 200, 2) + 1e-6) == 0
    narrow = two_sample_accuracy(0.3 * normal(0, 500, 2), normal(1, 500, 2))
    assert narrow > 0.65
    monkeypatch.setattr("generative.metrics.CHUNK", 64)
    assert two_sample_accuracy(0.3 * normal(0, 500, 2), normal(1, 500, 2)) == narrow


@pytest.mark.slow
def test_ten_thousand_against_ten_thousand_fit():
    scores = neighbour_metrics(normal(0, 10_000, 64), normal(1, 10_000, 64))
    assert scores["density"].item() == pytest.approx(1, abs=0.1)
