"""The ring of eight under its first names, until `generative/gan.py` asks by name."""

from __future__ import annotations

from functools import partial

import numpy as np

from harness.data.plane import SHAPES, centres, points

__all__ = ["STD", "ring_centres", "ring_points"]

STD = SHAPES["ring-8"].std or 0.0
ring_centres = partial(centres, "ring-8")


def ring_points(uniform: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """`points("ring-8", ...)`."""
    return points("ring-8", uniform, normal)
