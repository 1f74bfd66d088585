"""How far generated rows are from real ones: known modes, Frechet, kernel and energy distances.

Functions of one set of samples, on the rows themselves or on an extractor's features (`generative.extractors`).
Rows are judged by their neighbours in `generative.metrics_neighbours`.

Legend: N samples, R real rows, F features, M modes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = [
    "distances",
    "energy_distance",
    "frechet_distance",
    "frechet_of_rows",
    "kernel_distance",
    "mode_metrics",
    "modes_of",
    "moments",
    "reverse_kl",
]

CHUNK = 1024  # rows that are compared with all others at once: 80 MB of float64 distances for 10,000 others


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
        0-dim float64 tensors: "modes" covered; "min_mode_share" and "max_mode_share", the smallest and largest share
        of all samples within 3 standard deviations of one mode; "hq_share", the share of samples within 3 standard
        deviations of any; "overlap", the sum over modes of that share or an equal part, whichever is less: 1 where
        every mode holds its part and nothing lies between (1 less the total variation from equal parts, strays as a
        mode more); "spread", the standard deviation per axis of those samples around their own mean, averaged over
        modes that hold at least two, as a ratio to `std` (0.98 for the data itself, whose tails are cut; 0 where no
        mode holds two); "reverse_kl" of those samples' modes from equal parts.
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
        "max_mode_share": shares.max(),
        "hq_share": good.double().mean(),
        "overlap": shares.clamp(max=1 / len(centres)).sum(),
        "spread": (variance.sqrt() * held).sum() / held.sum().clamp(min=1) / std,
        "reverse_kl": reverse_kl(count, torch.full_like(count, 1 / len(centres))),
    }


def reverse_kl(counts: Tensor, probabilities: Tensor) -> Tensor:
    """KL(samples | data) over modes, in nats, 0-dim float64; plug-in, so that N true samples give (M - 1) / 2N.

    Args:
        counts: [M], how many samples are in each mode; none at all gives the worst value there is.
        probabilities: [M], the data's; a sample in a mode of probability 0 gives infinity.
    """
    p = probabilities.double()
    if counts.sum() == 0:
        return -p.min().log()
    q = counts.double() / counts.sum()
    return torch.special.xlogy(q, q / p).nan_to_num(nan=0.0, posinf=float("inf")).sum()


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


def frechet_of_rows(a: Tensor, b: Tensor) -> Tensor:
    """`frechet_distance` of the moments of rows, without their covariances: for few rows of very many features.

    With centred rows A and B over the roots of their numbers less 1, the covariances are A'A and B'B, and the trace of
    the root is the sum of the singular values of A B'.

    Args:
        a: [N, F], N >= 2.
        b: [R, F], R >= 2.
    """
    a, b = a.double().flatten(1), b.double().flatten(1)
    if not (a.isfinite().all() and b.isfinite().all()):
        return a.new_full((), float("nan"))
    centred = [(rows - rows.mean(0)) / (len(rows) - 1) ** 0.5 for rows in (a, b)]
    cross = torch.linalg.svdvals(centred[0] @ centred[1].T).sum()
    traces = sum(rows.square().sum() for rows in centred)
    return (a.mean(0) - b.mean(0)).square().sum() + traces - 2 * cross


def kernel_distance(a: Tensor, b: Tensor) -> Tensor:
    """Kernel distance: unbiased squared MMD of k(x, y) = (x.y / F + 1)^3 (Binkowski et al. 2018), 0-dim float64.

    0 in expectation for equal distributions, whatever the numbers of rows; a single estimate may be negative.

    Args:
        a: [N, F], N >= 2.
        b: [R, F], R >= 2.
    """
    a, b = a.double(), b.double()

    def total(x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([(chunk @ y.T / x.shape[1] + 1).pow(3).sum() for chunk in x.split(CHUNK)]).sum()

    def others(x: Tensor) -> Tensor:
        itself = (x.square().sum(1) / x.shape[1] + 1).pow(3).sum()
        return (total(x, x) - itself) / (len(x) * (len(x) - 1))

    return others(a) + others(b) - 2 * total(a, b) / (len(a) * len(b))


def energy_distance(a: Tensor, b: Tensor) -> Tensor:
    """2 E|x - y| - E|x - x'| - E|y - y'|, unbiased (Szekely & Rizzo 2013), 0-dim float64; 0 only for equal laws.

    Args:
        a: [N, F], N >= 2.
        b: [R, F], R >= 2.
    """

    def total(x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([chunk.sum() for chunk in distances(x, y)]).sum()

    own = [total(x, x) / (len(x) * (len(x) - 1)) for x in (a, b)]
    return 2 * total(a, b) / (len(a) * len(b)) - own[0] - own[1]


def distances(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """Euclidean distances of rows a [N, F] to rows b [R, F] in float64: [CHUNK, R], chunk after chunk of a."""
    a, b = a.double(), b.double()
    return (torch.cdist(chunk, b) for chunk in a.split(CHUNK))
