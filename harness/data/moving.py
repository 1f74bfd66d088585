"""Clips in which one thing moves: computed, never stored. What it is and how it moves are labelled and independent.

Source of the protocol: Tulyakov et al., "MoCoGAN: Decomposing Motion and Content for Video Generation", 2018 (shapes);
Srivastava et al., "Unsupervised Learning of Video Representations using LSTMs", 2015 (digits that bounce).

Legend: N clips, T frames, H x W pixels, one channel. A label is content * (number of motions) + motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from harness.data import digits
from harness.data.digits import Rows
from harness.randomness import generator

__all__ = ["DIGITS", "SHAPES", "Moving", "draw_digits", "draw_shapes", "read_digits", "read_shapes"]


@dataclass(frozen=True)
class Moving:
    """What a set of clips holds.

    Attributes:
        contents: names of what is seen.
        motions: names of how it moves.
        shape: of a clip, (T, 1, H, W).
        definition: everything that decides the clips, for the card.
        rows: how many rows each split has.
    """

    contents: tuple[str, ...]
    motions: tuple[str, ...]
    shape: tuple[int, int, int, int]
    definition: str
    rows: dict[str, int]


ROWS = {"train": 4800, "validation": 1200, "test": 2400}
FORMS = ("square", "ring", "cross")
SHADES = {"dim": 0.5, "bright": 1.0}
SHAPES = Moving(
    contents=tuple(f"{shade} {form}" for form in FORMS for shade in SHADES),
    motions=("right", "left", "down", "up"),
    shape=(8, 1, 16, 16),
    definition="8 frames of 16 x 16: a square (side 5), a ring (radius 2.6, width 1.4) or a cross (bars 6 x 2), shade 0.5"
    " or 1, edges 1 pixel soft, moves 1 pixel a frame right, left, down or up; 24 cells and all places that keep it"
    " inside alike (computed)",
    rows=ROWS,
)
DIGITS = Moving(
    contents=tuple("0123456789"),
    motions=("right down", "right up", "left down", "left up"),
    shape=(12, 1, 20, 20),
    definition="12 frames of 20 x 20: a digit of data set 'digits' moves 1 pixel a frame along each axis and bounces at"
    " the borders; its label has the direction of its first step; 40 cells, images of a digit and places alike (computed)",
    rows=ROWS,
)
REACH = 3.0  # of a shape, from its centre
STEPS = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])  # (x, y) of SHAPES.motions
DIAGONALS = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])  # of DIGITS.motions


def distance_to(form: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance (in the larger coordinate for straight edges) of points to a shape's edge, negative inside.

    Args:
        form: a name in `FORMS`.
        x: coordinates from its centre, in pixels.
        y: likewise.
    """
    x, y = np.abs(x), np.abs(y)
    if form == "square":
        return np.maximum(x, y) - 2.5
    if form == "ring":
        return np.abs(np.hypot(x, y) - 2.6) - 0.7
    return np.minimum(np.maximum(x - REACH, y - 1), np.maximum(x - 1, y - REACH))


def draw_shapes(rng: np.random.Generator, count: int) -> Rows:
    """Clips of moving shapes, x [count, 8, 1, 16, 16], drawn afresh."""
    frames, _, height, width = SHAPES.shape
    content = rng.integers(0, len(SHAPES.contents), count)
    motion = rng.integers(0, len(SHAPES.motions), count)
    time = np.arange(frames) - (frames - 1) / 2
    # the path's middle: half its length further from the borders along the motion
    room = np.array([width, height]) / 2 - REACH - np.abs(STEPS[motion]) * time[-1]  # [N, 2]
    middle = np.array([width, height]) / 2 + room * rng.uniform(-1, 1, (count, 2))
    centre = middle[:, None] + time[:, None] * STEPS[motion][:, None]  # [N, T, 2]
    x = np.arange(width) + 0.5 - centre[..., 0, None]  # [N, T, W]
    y = np.arange(height) + 0.5 - centre[..., 1, None]
    clips = np.empty((count, frames, height, width), dtype=np.float32)
    for index, (form, shade) in enumerate((f, s) for f in FORMS for s in SHADES.values()):
        of = content == index
        clips[of] = shade * np.clip(0.5 - distance_to(form, x[of][:, :, None, :], y[of][:, :, :, None]), 0, 1)
    return Rows(clips[:, :, None], content * len(SHAPES.motions) + motion)


def draw_digits(rng: np.random.Generator, count: int, split: str = "train") -> Rows:
    """Clips of moving digits, x [count, 12, 1, 20, 20], made of the images of one split of 'digits'."""
    frames, _, height, _ = DIGITS.shape
    images = _digits()[split]
    side, room = images.x.shape[-1], height - images.x.shape[-1]
    content = rng.integers(0, len(DIGITS.contents), count)
    motion = rng.integers(0, len(DIGITS.motions), count)
    order = np.argsort(images.y, kind="stable")
    sizes = np.bincount(images.y, minlength=len(DIGITS.contents))
    first = np.cumsum(sizes) - sizes
    chosen = order[first[content] + np.floor(rng.random(count) * sizes[content]).astype(np.int64)]
    # a place on the way there and back, 0 ... 2 room - 1; those below `room` move towards larger coordinates
    phase = rng.integers(0, room, (count, 2)) + np.where(DIAGONALS[motion] > 0, 0, room)
    place = room - np.abs((phase[:, None] + np.arange(frames)[:, None]) % (2 * room) - room)  # [N, T, 2]
    clips = np.zeros((count, *DIGITS.shape), dtype=np.float32)
    n, t = np.arange(count)[:, None, None, None], np.arange(frames)[:, None, None]
    rows = place[..., 1, None, None] + np.arange(side)[:, None]
    columns = place[..., 0, None, None] + np.arange(side)
    clips[n, t, 0, rows, columns] = images.x[chosen][:, None]
    return Rows(clips, content * len(DIGITS.motions) + motion)


@cache
def _digits() -> dict[str, Rows]:
    return digits.read()


def read_shapes() -> dict[str, Rows]:
    """Fixed clips of every split."""
    return {split: draw_shapes(generator(0, f"data/moving-shapes/{split}"), n) for split, n in ROWS.items()}


def read_digits() -> dict[str, Rows]:
    """Fixed clips of every split, each of the images of the same split of 'digits'."""
    return {split: draw_digits(generator(0, f"data/moving-digits/{split}"), n, split) for split, n in ROWS.items()}
