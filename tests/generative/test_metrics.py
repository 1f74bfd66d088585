"""GAN metrics against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from generative.metrics import (
    energy_distance,
    frechet_distance,
    kernel_distance,
    mode_metrics,
    modes_of,
    moments,
    reverse_kl,
)
from harness.data import centres, load

CENTRES = torch.as_tensor(centres("ring-8"))


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
    assert scores["max_mode_share"] == 1
    assert scores["reverse_kl"] == pytest.approx(np.log(8))
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


def test_reverse_kl_closed_form_and_its_floor():
    assert reverse_kl(torch.tensor([5, 5]), torch.tensor([0.5, 0.5])).item() == 0
    assert reverse_kl(torch.tensor([10, 0]), torch.tensor([0.5, 0.5])).item() == pytest.approx(np.log(2))
    assert reverse_kl(torch.tensor([0, 0]), torch.tensor([0.25, 0.75])).item() == pytest.approx(np.log(4))
    assert reverse_kl(torch.tensor([1, 1]), torch.tensor([1.0, 0.0])).item() == np.inf
    modes = np.random.default_rng(0).integers(0, 1000, 26_000)
    floor = reverse_kl(torch.as_tensor(np.bincount(modes, minlength=1000)), torch.full((1000,), 1e-3))
    assert floor.item() == pytest.approx(999 / 52_000, rel=0.1)


def rows_of(seed: int, count: int, features: int = 6) -> torch.Tensor:
    """Dependent features that are no Gaussians."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(features, features))
    return torch.as_tensor(np.maximum(rng.normal(size=(count, features)) @ mix, -0.3))


class Passing(torch.nn.Module):
    """torchmetrics asks for an extractor of uint8 images; here the features come as they are."""

    num_features = 6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_frechet_and_kernel_agree_with_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    real, fake = rows_of(0, 300), 1.1 * rows_of(1, 300) + 0.05
    theirs = FrechetInceptionDistance(Passing(), input_img_size=(6,)).set_dtype(torch.float64)
    kernel = KernelInceptionDistance(Passing(), subsets=1, subset_size=300).set_dtype(torch.float64)
    for metric in (theirs, kernel):
        metric.update(real, real=True)
        metric.update(fake, real=False)
    ours = frechet_distance(moments(real), moments(fake))
    assert ours.item() > 0.1
    assert ours.item() == pytest.approx(theirs.compute().item(), rel=1e-3)
    assert kernel_distance(real, fake).item() == pytest.approx(kernel.compute()[0].item(), rel=1e-3)


def test_kernel_distance_of_two_points_by_hand():
    # k(0,0) = 1, k(1,1) = 8, k(0,1) = 1, k(2,2) = 125, k(0,2) = 1, k(1,2) = 27
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]])
    assert kernel_distance(a, b).item() == pytest.approx(1 + 1 - 2 * (1 + 1 + 1 + 27) / 4)


def test_energy_distance_of_shifted_points_by_hand():
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[10.0], [11.0]])
    assert energy_distance(a, b).item() == pytest.approx(2 * 10 - 1 - 1)


@pytest.mark.parametrize("distance", [kernel_distance, energy_distance])
def test_unbiased_distances_of_equal_laws_average_to_nothing(distance):
    values = np.array([distance(rows_of(2 * s, 60), rows_of(2 * s + 1, 90)).item() for s in range(60)])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))
    assert (values < 0).any()
    moved = distance(rows_of(0, 60), rows_of(1, 90) + 1).item()
    assert moved > 3 * values.std()


def test_chunks_change_nothing(monkeypatch):
    a, b = rows_of(0, 50), rows_of(1, 70)
    whole = [kernel_distance(a, b).item(), energy_distance(a, b).item()]
    monkeypatch.setattr("generative.metrics.CHUNK", 16)
    assert [kernel_distance(a, b).item(), energy_distance(a, b).item()] == pytest.approx(whole, rel=1e-8)


def damaged(kind: str, strength: float) -> torch.Tensor:
    """Validation digits, damaged: [359, 64]."""
    rows = load("digits")["validation"]
    x, rng = torch.as_tensor(rows.x.copy()), np.random.default_rng(0)
    if kind == "noise":
        x = x + strength * torch.as_tensor(rng.normal(size=x.shape))
    elif kind == "blur":
        near = torch.nn.functional.avg_pool2d(x[:, None], 3, stride=1, padding=1)[:, 0]
        x = (1 - strength) * x + strength * near
    else:
        x = x[torch.as_tensor(rows.y >= 10 * strength)]
    return x.flatten(1)


@pytest.mark.parametrize("kind", ["noise", "blur", "dropped modes"])
def test_distances_grow_with_damage(kind):
    real = torch.as_tensor(load("digits")["test"].x.copy()).flatten(1)
    for distance in (lambda a, b: frechet_distance(moments(a), moments(b)), kernel_distance, energy_distance):
        values = [distance(damaged(kind, s), real).item() for s in (0.0, 0.3, 0.6, 0.9)]
        assert values == sorted(values)
        assert values[3] > 2 * values[1]
