"""How good generated rows are: coverage of known modes and the Frechet distance; functions of one trial."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["frechet_distance", "mode_metrics", "modes_of", "moments"]


def modes_of(samples: Tensor, centres: Tensor, std: float) -> tuple[Tensor, Tensor]:
    """The nearest mode of every sample and whether it is within 3 standard deviations (VEEGAN's protocol).

    Args:
        samples: [N, F].
        centres: [M, F].
        std: standard deviation of a mode, per axis.

    Returns:
        (int64 [N], bool [N]); a NaN sample is in no mode's reach.
    """
    distance, nearest = torch.cdist(samples, centres, compute_mode="donot_use_mm_for_euclid_dist").min(dim=-1)
    return nearest, distance <= 3 * std


def mode_metrics(samples: Tensor, centres: Tensor, std: float, share: float = 0.01) -> dict[str, Tensor]:
    """Coverage of modes that are known.

    Args:
        samples: [N, F].
        centres: [M, F].
        std: standard deviation of a mode, per axis.
        share: of the samples that must lie within 3 standard deviations of a mode for it to count as covered.

    Returns:
        0-dim float64 tensors: "modes" covered; "min_mode_share", the smallest share of all samples within 3
        standard deviations of one mode; "hq_share", the share of samples within 3 standard deviations of any;
        "overlap", the sum over modes of that share or an equal part, whichever is less: 1 where every mode holds
        its part and nothing lies between (1 less the total variation from equal parts, strays as a mode more);
        "spread", the standard deviation per axis of those samples around their own mean, averaged over modes
        that hold at least two, as a ratio to `std` (0.98 for the data itself, whose tails are cut; 0 where no
        mode holds two).
    """
    samples, centres = samples.double(), centres.double()
    nearest, good = modes_of(samples, centres, std)
    member = torch.nn.functional.one_hot(nearest, len(centres)).double() * good.unsqueeze(-1)  # [N, M]
    count = member.sum(0)
    shares = count / len(samples)
    mean = (member.T @ samples.nan_to_num()) / count.clamp(min=1).unsqueeze(-1)
    squares = (samples.nan_to_num() - mean[nearest]).square().mean(-1)  # per axis
    variance = (member.T @ squares) / (count - 1).clamp(min=1)
    held = count >= 2
    return {
        "modes": (shares >= share).double().sum(),
        "min_mode_share": shares.min(),
        "hq_share": good.double().mean(),
        "overlap": shares.clamp(max=1 / len(centres)).sum(),
        "spread": (variance.sqrt() * held).sum() / held.sum().clamp(min=1) / std,
    }


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [F] and covariance [F, F] (unbiased) of rows [N, ...], flattened, in float64."""
    flat = rows.double().flatten(1)
    return flat.mean(0), torch.cov(flat.T, correction=1).reshape(flat.shape[1], flat.shape[1])


def _root(matrix: Tensor) -> Tensor:
    """The symmetric square root of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def frechet_distance(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
    """Squared Frechet distance of two Gaussians (Dowson & Landau 1982), 0-dim float64; NaN for NaN.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^(1/2) S2 S1^(1/2))^(1/2)). On raw features it sees means and covariances
    only: rows that share them are at distance 0, however else they differ.

    Args:
        a: (mean [F], covariance [F, F]).
        b: likewise.
    """
    (mean_a, cov_a), (mean_b, cov_b) = a, b
    if not all(t.isfinite().all() for t in (*a, *b)):
        return mean_a.new_full((), float("nan"))
    root = _root(cov_a)
    values = torch.linalg.eigvalsh(root @ cov_b @ root)
    cross = values.clamp(min=0).sqrt().sum()
    return (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
