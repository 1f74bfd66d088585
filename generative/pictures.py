"""What a person looks at: grids of samples, interpolations, densities of points, neighbours; uint8 pictures.

Legend: N images, C channels, H x W pixels, k neighbours.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["beside", "density", "grid", "slerp"]

WIDTH = 320  # pixels that a grid fills at most, unless its images need more: what `harness.gif` keeps
SIDE = 156  # bins of a density along each axis, one pixel each: two panels fill WIDTH
PAPER, DATA_INK, SAMPLE_INK = (250, 250, 250), (194, 65, 12), (29, 78, 216)
LINE = 200  # light grey, between panels


def grid(images: np.ndarray, columns: int = 8) -> np.ndarray:
    """Images side by side as one picture, black lines between: uint8 [H', W'], or [H', W', 3] for colour.

    Args:
        images: [N, H, W], [N, 1, H, W] or [N, 3, H, W] in [0, 1].
        columns: images of a row; the last row is filled with black.
    """
    channels = images[:, None] if images.ndim == 3 else images
    count, depth, height, width = channels.shape
    scale = max(1, WIDTH // (columns * (width + 1)))
    padded = np.pad(channels, ((0, -count % columns), (0, 0), (0, 1), (0, 1)))
    rows = padded.reshape(-1, columns, depth, height + 1, width + 1).transpose(0, 3, 1, 4, 2)
    picture = rows.reshape(-1, columns * (width + 1), depth)[:-1, :-1].repeat(scale, 0).repeat(scale, 1)
    pixels = np.round(255 * np.clip(np.nan_to_num(picture), 0, 1)).astype(np.uint8)
    return pixels[..., 0] if depth == 1 else pixels


def beside(samples: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Samples in the first row, below each its nearest training images, the nearest first; a wide line between.

    Args:
        samples: [N, (C,) H, W] in [0, 1].
        found: [N, k, (C,) H, W].
    """
    top = grid(samples, columns=len(samples))
    below = grid(found.swapaxes(0, 1).reshape(-1, *samples.shape[1:]), columns=len(samples))
    line = np.full((6, *top.shape[1:]), 255, dtype=np.uint8)
    return np.concatenate([top, line, below])


def density(samples: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The data's points (left) and samples (right) in one frame of the plane: uint8 [H', W', 3].

    The frame is the data's own, a tenth wider; what lies outside is not seen. A pixel is the darker the more points it
    and its neighbours hold, on a logarithmic scale that both panels share.

    Args:
        samples: [N, 2].
        reference: [R, 2].
    """
    low, high = reference.min(0), reference.max(0)
    edge = 0.05 * (high - low)
    counts = [_counts(points, low - edge, high + edge) / len(points) for points in (reference, samples)]
    most = max(count.max() for count in counts)
    panels = []
    for count, ink in zip(counts, (DATA_INK, SAMPLE_INK), strict=True):
        shade = np.log1p(50 * count / most)[..., None] / np.log1p(50)
        panels.append(np.round((1 - shade) * np.array(PAPER) + shade * np.array(ink)).astype(np.uint8))
    gap = np.full((SIDE, 8, 3), PAPER, dtype=np.uint8)
    gap[:, 3:5] = LINE
    return np.concatenate([panels[0], gap, panels[1]], axis=1)


def _counts(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Points in every pixel and the four beside it, [SIDE, SIDE], the second axis upwards."""
    finite = points[np.isfinite(points).all(axis=1)]
    found, _ = np.histogramdd(finite, bins=SIDE, range=list(zip(low.tolist(), high.tolist(), strict=True)))
    found = np.pad(found.T[::-1], 1)
    return found[1:-1, 1:-1] + 0.5 * (found[:-2, 1:-1] + found[2:, 1:-1] + found[1:-1, :-2] + found[1:-1, 2:])


def slerp(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Latent codes along the great circle from one to the other, [N, steps, Z] (White 2016).

    A straight line between two normal codes passes near the origin, where a generator has never been.

    Args:
        start: [N, Z].
        end: [N, Z].
        steps: both ends included.
    """
    directions = (code / code.norm(dim=-1, keepdim=True) for code in (start, end))
    angle = torch.linalg.vecdot(*directions).clamp(-1, 1).acos()[:, None, None].clamp(min=1e-6)
    share = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device)[:, None]
    weights = (((1 - share) * angle).sin() / angle.sin(), (share * angle).sin() / angle.sin())
    return weights[0] * start[:, None] + weights[1] * end[:, None]
