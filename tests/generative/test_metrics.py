"""GAN metrics against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from generative.metrics import frechet_distance, mode_metrics, modes_of, moments
from harness.data import load, ring_centres

CENTRES = torch.as_tensor(ring_centres())


def test_data_itself_is_nearly_perfect():
    rows = torch.as_tensor(load("ring-8")["train"].x.copy())
    scores = {name: float(value) for name, value in mode_metrics(rows, CENTRES, 0.02).items()}
    assert scores["modes"] == 8
    assert scores["min_mode_share"] > 0.11
    assert scores["hq_share"] == pytest.approx(1 - np.exp(-4.5), abs=0.004)  # Rayleigh: P(r <= 3 std)
    # the variance of a 2-D Gaussian cut at 3 std: 1 - 4.5 exp(-4.5) / (1 - exp(-4.5))
    assert scores["spread"] == pytest.approx(np.sqrt(1 - 4.5 * np.exp(-4.5) / (1 - np.exp(-4.5))), abs=0.01)


def test_collapse_is_seen():
    rows = CENTRES[[2]].repeat(100, 1)
    scores = mode_metrics(rows, CENTRES, 0.02)
    assert scores["modes"] == 1
    assert scores["min_mode_share"] == 0
    assert scores["hq_share"] == 1
    assert scores["overlap"] == pytest.approx(1 / 8)
    assert scores["spread"] < 1e-12


def test_shares_and_spread_by_hand():
    steps = torch.tensor([[0.02, 0.0], [-0.02, 0.0], [0.0, 0.02], [0.0, -0.02]]).double()
    rows = torch.cat([CENTRES[0] + steps, CENTRES[5] + 2 * steps, torch.zeros(2, 2)])
    scores = mode_metrics(rows, CENTRES, 0.02)
    assert scores["modes"] == 2
    assert scores["hq_share"].item() == pytest.approx(0.8)
    assert scores["overlap"].item() == pytest.approx(2 / 8)
    # per axis and mode: squares sum to 2 std^2 over 4 points, 3 degrees of freedom
    assert scores["spread"].item() == pytest.approx((1 + 2) / 2 * np.sqrt(2 / 3))


def test_three_standard_deviations_are_the_limit():
    rows = CENTRES[[0]] + torch.tensor([[0.0599, 0.0], [0.0601, 0.0], [torch.nan, 0.0]]).double()
    assert modes_of(rows, CENTRES, 0.02)[1].tolist() == [True, False, False]
    assert mode_metrics(rows, CENTRES, 0.02)["hq_share"].item() == pytest.approx(1 / 3)


def test_moments_equal_numpy():
    rows = np.random.default_rng(0).normal(size=(50, 2, 3))
    mean, cov = moments(torch.as_tensor(rows))
    np.testing.assert_allclose(mean, rows.reshape(50, 6).mean(0))
    np.testing.assert_allclose(cov, np.cov(rows.reshape(50, 6).T), atol=1e-12)


def test_frechet_of_commuting_gaussians():
    a = (torch.tensor([1.0, 2.0]).double(), torch.diag(torch.tensor([4.0, 9.0]).double()))
    b = (torch.tensor([4.0, 6.0]).double(), torch.diag(torch.tensor([1.0, 25.0]).double()))
    assert frechet_distance(a, b).item() == pytest.approx(25 + (2 - 1) ** 2 + (3 - 5) ** 2)
    assert frechet_distance(a, a).item() == pytest.approx(0, abs=1e-12)


def test_frechet_equals_scipys_matrix_root():
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(1)
    rows = [rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5)) + rng.normal(size=5) for _ in range(2)]
    (m1, s1), (m2, s2) = ((r.mean(0), np.cov(r.T)) for r in rows)
    expected = ((m1 - m2) ** 2).sum() + np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real)
    got = frechet_distance(*(moments(torch.as_tensor(r)) for r in rows))
    assert got.item() == pytest.approx(expected, rel=1e-9)


def test_frechet_with_constant_features_and_nan():
    rows = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows[:, 2] = 1
    assert frechet_distance(moments(rows), moments(rows + 2)).item() == pytest.approx(12)
    assert frechet_distance(moments(rows), moments(rows * torch.nan)).isnan()
