"""Points in the plane: rings, grids, spirals, checkerboards; computed, never stored.

Training points are drawn from a trial's own noise with `points`. Sources of the protocol: Srivastava et al. 2017
(VEEGAN: ring and grid), Lin et al. 2018 (PacGAN), Grathwohl et al. 2019 (FFJORD: spirals and checkerboard).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.data.cards import Card, DataError, DataSet, Rows, digest

__all__ = ["SETS", "centres", "points", "std"]

ROWS = {"train": 6000, "validation": 2000, "test": 2000}
Place = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Shape:
    """A distribution in the plane.

    Attributes:
        definition: in words, with every number; its sha256 is the set's.
        classes: modes, arms or squares, all of one share.
        place: points [..., 2] from noise: uniform [...], normal [..., 2]; class is floor(uniform * classes).
        centres: of the modes, float64 [M, 2]; None where there are no modes.
        std: of every mode; None where there are no modes.
    """

    definition: str
    classes: int
    place: Place
    centres: np.ndarray | None = None
    std: float | None = None


def _modes(definition: str, centres: np.ndarray, std: float) -> Shape:
    """Narrow Gaussians of equal shares."""

    def place(uniform: np.ndarray, normal: np.ndarray) -> np.ndarray:
        return centres[np.floor(uniform * len(centres)).astype(np.int64)] + std * normal

    text = f"{definition}, standard deviation {std}, equal shares (computed)"
    return Shape(text, len(centres), place, centres, std)


def _ring(modes: int, radius: float, std: float) -> Shape:
    """Counter-clockwise from (radius, 0)."""
    angle = 2 * np.pi * np.arange(modes) / modes
    centres = radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return _modes(f"ring of {modes} Gaussians, radius {radius}", centres, std)


def _grid(side: int, spacing: float, std: float) -> Shape:
    """Row by row from the lower left; centred on the origin."""
    line = spacing * (np.arange(side) - (side - 1) / 2)
    centres = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    return _modes(f"grid of {side} x {side} Gaussians, spacing {spacing}", centres, std)


def _spirals() -> Shape:
    """Two arms of one and a half turns; the angle grows with the root of uniform noise, so that density is even."""

    def place(uniform: np.ndarray, normal: np.ndarray) -> np.ndarray:
        arm = np.floor(uniform * 2)
        angle = 3 * np.pi * np.sqrt(uniform * 2 - arm)
        curve = angle[..., None] * np.stack([-np.cos(angle), np.sin(angle)], axis=-1) / 3
        return (1 - 2 * arm)[..., None] * curve + 0.1 * normal

    text = "two spirals of 1.5 turns, radius pi at their ends, standard deviation 0.1, equal shares (computed)"
    return Shape(text, 2, place)


def _checkerboard() -> Shape:
    """The eight dark squares of a 4 x 4 board on [-4, 4]^2; the place in a square is the normal noise's probability."""

    def place(uniform: np.ndarray, normal: np.ndarray) -> np.ndarray:
        from scipy.special import ndtr

        square = np.floor(uniform * 8).astype(np.int64)
        row, pair = square // 2, square % 2
        corner = np.stack([2 * pair + row % 2, row], axis=-1)
        return 2 * (corner + ndtr(normal)) - 4

    text = "checkerboard of 4 x 4 squares of side 2 centred on the origin, 8 dark ones, uniform (computed)"
    return Shape(text, 8, place)


SHAPES = {
    "ring-8": _ring(8, 2.0, 0.02),
    "grid-25": _grid(5, 2.0, 0.05),
    "spirals": _spirals(),
    "checkerboard": _checkerboard(),
}


def _shape(name: str) -> Shape:
    if name not in SHAPES:
        raise DataError(f"no set of points is called {name!r}; there are {', '.join(SHAPES)}")
    return SHAPES[name]


def points(name: str, uniform: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Points from noise, [..., 2].

    Args:
        name: of the set.
        uniform: [...] in [0, 1): chooses the mode, or the place along an arm.
        normal: [..., 2], mean 0 and variance 1: the place within the mode.
    """
    return _shape(name).place(uniform, normal)


def centres(name: str) -> np.ndarray:
    """Centres of the modes, float64 [M, 2].

    Raises:
        DataError: the set has no modes (its `std` is None).
    """
    found = _shape(name).centres
    if found is None:
        raise DataError(f"{name} has no modes, hence no centres")
    return found


def std(name: str) -> float | None:
    """Standard deviation of every mode; None where there are no modes."""
    return _shape(name).std


def draw(name: str, rng: np.random.Generator, shape: Sequence[int]) -> Rows:
    """Fresh points with the index of their mode, arm or square as label."""
    uniform, normal = rng.random(shape), rng.standard_normal((*shape, 2))
    labels = np.floor(uniform * SHAPES[name].classes).astype(np.int64)
    return Rows(points(name, uniform, normal).astype(np.float32), labels)


def _set(name: str, shape: Shape) -> DataSet:
    card = Card(
        name=name,
        kind="points",
        source=shape.definition,
        licence="none needed: computed",
        sha256=digest(shape.definition),
        shape=(2,),
        classes=shape.classes,
        rows=ROWS,
    )
    return DataSet(card, draw=partial(draw, name))


SETS = {name: _set(name, shape) for name, shape in SHAPES.items()}
