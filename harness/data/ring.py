"""A ring of eight narrow Gaussians: computed, never stored.

Training points are drawn from a trial's own noise with `ring_points`; `read` gives fixed points to compare
with. Source of the protocol: Srivastava et al., "VEEGAN", 2017; Lin et al., "PacGAN", 2018.
"""

from __future__ import annotations

import numpy as np

from harness.data.digits import Rows
from harness.randomness import generator

__all__ = ["DEFINITION", "MODES", "RADIUS", "ROWS", "STD", "read", "ring_centres", "ring_points"]

MODES = 8
RADIUS = 2.0
STD = 0.02
DEFINITION = f"ring of {MODES} Gaussians, radius {RADIUS}, standard deviation {STD}, equal shares (computed)"
ROWS = {"train": 6000, "validation": 2000, "test": 2000}


def ring_centres() -> np.ndarray:
    """Centres of the modes, float64 [8, 2], counter-clockwise from (2, 0)."""
    angle = 2 * np.pi * np.arange(MODES) / MODES
    return RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def ring_points(uniform: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Points of the ring from noise, [..., 2].

    Args:
        uniform: [...] in [0, 1): chooses the mode.
        normal: [..., 2], mean 0 and variance 1: the place within the mode.
    """
    return ring_centres()[np.floor(uniform * MODES).astype(np.int64)] + STD * normal


def read() -> dict[str, Rows]:
    """Fixed points of every split, with the index of their mode as label."""
    splits = {}
    for name, count in ROWS.items():
        rng = generator(0, f"data/ring-8/{name}")
        uniform, normal = rng.random(count), rng.standard_normal((count, 2))
        modes = np.floor(uniform * MODES).astype(np.int64)
        splits[name] = Rows(ring_points(uniform, normal).astype(np.float32), modes)
    return splits
