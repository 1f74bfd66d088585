"""How good generated rows are by their neighbours: precision, recall, density, coverage, memorisation.

Papers: Kynkaanniemi et al. 2019 (improved precision and recall); Naeem et al. 2020 (density and coverage); Yoon et
al. 2023 (memorised: the nearest training row is three times nearer than the next); Arora & Zhang 2018 (support);
Lopez-Paz & Oquab 2017 (two-sample test by the nearest neighbour).
Functions of one set of samples; distances in float64, a chunk of rows at a time, so that 10,000 against 10,000 fit.

Legend: N samples, R real rows, T training rows, F features, k neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from generative.metrics import CHUNK, distances

__all__ = ["memorised_share", "nearest", "neighbour_metrics", "radii", "support_size", "two_sample_accuracy"]


def radii(rows: Tensor, k: int) -> Tensor:
    """The distance of every row [N, F] to its k-th nearest other row, float64 [N].

    Raises:
        ValueError: there are not k other rows.
    """
    if len(rows) <= k:
        raise ValueError(f"{k} nearest neighbours need at least {k + 1} rows, there are {len(rows)}: draw more samples")
    return torch.cat([chunk.kthvalue(k + 1, dim=1).values for chunk in distances(rows, rows)])  # the first is itself


def neighbour_metrics(
    samples: Tensor, real: Tensor, k: int = 5, real_radii: Tensor | None = None
) -> dict[str, Tensor]:
    """Fidelity and diversity, apart from one another; 0-dim float64 each.

    The ball of a row reaches to its k-th nearest row of its own set. "precision": the share of samples in a real row's
    ball. "recall": of real rows in a sample's ball. "density": real balls a sample lies in, over k; 1 for equal
    distributions. "coverage": the share of real rows whose ball holds a sample;
    1 - (R-1)...(R-k) / ((N+R-1)...(N+R-k)) for equal distributions. Take N = R, for all four depend on both.

    Args:
        samples: [N, F].
        real: [R, F].
        k: neighbours.
        real_radii: `radii(real, k)` where it is known.

    Raises:
        ValueError: there are k rows or fewer.
    """
    of_real = radii(real, k) if real_radii is None else real_radii
    of_samples = radii(samples, k)
    precise = torch.zeros(len(samples), dtype=torch.bool, device=samples.device)
    recalled, covered, inside = [], [], []
    for distance, radius in zip(distances(real, samples), of_real.split(CHUNK), strict=True):  # [c, N], [c]
        held = distance <= radius.unsqueeze(1)
        precise |= held.any(0)
        covered.append(held.any(1))
        inside.append(held.sum())
        recalled.append((distance <= of_samples).any(1))
    return {
        "precision": precise.double().mean(),
        "recall": torch.cat(recalled).double().mean(),
        "density": torch.stack(inside).sum().double() / (k * len(samples)),
        "coverage": torch.cat(covered).double().mean(),
    }


def nearest(rows: Tensor, among: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """The k nearest of `among` to every row: (exact distances float64 [N, k], ascending; their indices int64 [N, k]).

    They are found in float32 and measured in float64.

    Args:
        rows: [N, ...], flattened.
        among: [T, ...], T >= k.
    """
    rows, among = rows.float().flatten(1), among.float().flatten(1)
    index = torch.cat([torch.cdist(c, among).topk(k, dim=1, largest=False).indices for c in rows.split(CHUNK // 4)])
    exact = (rows.double().unsqueeze(1) - among[index].double()).square().sum(-1).sqrt()
    exact, order = exact.sort(dim=1)
    return exact, index.gather(1, order)


def memorised_share(distance: Tensor, ratio: float = 1 / 3) -> Tensor:
    """The share of samples that copy a training row: its distance is below `ratio` of that to the next one.

    Args:
        distance: [N, 2], to the nearest two training rows, of `nearest`.
        ratio: 1/3 as Yoon et al.
    """
    return (distance[:, 0] < ratio * distance[:, 1]).double().mean()


def two_sample_accuracy(samples: Tensor, real: Tensor) -> Tensor:
    """How often a row's nearest other row is of its own set (Lopez-Paz & Oquab 2017), 0-dim float64.

    0.5 where nobody can tell N = R samples from real rows, 1 where they lie apart or NaN, less where samples copy real
    rows. It sees small structure and lost modes alike, in whatever unit.

    Args:
        samples: [N, F].
        real: [R, F].
    """
    rows = torch.cat([samples, real])
    right, first = [], 0
    for distance in distances(rows, rows):
        here = torch.arange(first, first + len(distance), device=rows.device)
        distance[here - first, here] = torch.inf
        partner = distance.nan_to_num(nan=torch.inf).argmin(1)  # of NaN the first row, a sample like itself
        right.append((partner < len(samples)) == (here < len(samples)))
        first += len(distance)
    return torch.cat(right).double().mean()


def support_size(rows: Tensor, same: float) -> Tensor:
    """How many different rows a generator can make, by the birthday paradox: pairs over pairs that collide.

    Arora & Zhang look for the batch that holds a duplicate half of the time; counting all pairs of one large batch
    uses it better. A lower bound where rows are not equally likely; infinity without a collision.

    Args:
        rows: [N, F], N >= 2.
        same: distance up to which two rows count as one.
    """
    count = len(rows)
    close = torch.stack([(chunk <= same).sum() for chunk in distances(rows, rows)]).sum() - count  # itself
    return torch.tensor(float(count * (count - 1)), dtype=torch.float64) / close
