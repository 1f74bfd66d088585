"""Clips in which one thing moves: computed, never stored. What it is and how it moves are labelled and independent.

Source of the protocol: Tulyakov et al., "MoCoGAN: Decomposing Motion and Content for Video Generation", 2018 (shapes);
Srivastava et al., "Unsupervised Learning of Video Representations using LSTMs", 2015 (digits that bounce).

Legend: N clips, T frames, H x W pixels, one channel. A label is content * (number of motions) + motion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.data import digits
from harness.data.cards import Card, DataSet, Rows, digest

__all__ = ["CLIPS", "SETS", "Moving", "draw_shapes", "move_digits"]

ROWS = {"train": 4800, "validation": 1200, "test": 2400}
FORMS = ("square", "ring", "cross")
SHADES = {"dim": 0.5, "bright": 1.0}
REACH = 4.0  # of a shape from its centre, in pixels


@dataclass(frozen=True)
class Moving:
    """What a set of clips holds.

    Attributes:
        contents: names of what is seen.
        motions: (x, y) of a frame's step by the name of the motion.
        shape: of a clip, (T, 1, H, W).
        definition: what decides the clips, in words.
    """

    contents: tuple[str, ...]
    motions: dict[str, tuple[int, int]]
    shape: tuple[int, int, int, int]
    definition: str

    @property
    def classes(self) -> int:
        """How many cells of content and motion there are."""
        return len(self.contents) * len(self.motions)

    @property
    def steps(self) -> np.ndarray:
        """(x, y) of every motion's step, [M, 2]."""
        return np.array(list(self.motions.values()))

    def rows(self, clips: np.ndarray, content: np.ndarray, motion: np.ndarray, shape: Sequence[int]) -> Rows:
        """Clips [N, T, 1, H, W] with their labels, as [*shape, ...]."""
        labels = content * len(self.motions) + motion
        return Rows(clips.reshape(*shape, *self.shape), labels.reshape(shape))


def distance_to(form: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance of points to a shape's edge, negative inside; along the axes only for straight edges.

    Args:
        form: a name in `FORMS`.
        x: coordinates from its centre, in pixels.
        y: likewise.
    """
    x, y = np.abs(x), np.abs(y)
    if form == "square":
        return np.maximum(x, y) - 3.5
    if form == "ring":
        return np.abs(np.hypot(x, y) - 3.2) - 0.8
    return np.minimum(np.maximum(x - REACH, y - 1.2), np.maximum(x - 1.2, y - REACH))


def draw_shapes(rng: np.random.Generator, shape: Sequence[int]) -> Rows:
    """Clips of moving shapes, x [*shape, 8, 1, 16, 16]."""
    what, count = SHAPES, math.prod(shape)
    frames, _, *size = what.shape
    content, motion = (rng.integers(0, len(names), count) for names in (what.contents, what.motions))
    step = what.steps[motion]
    time = np.arange(frames) - (frames - 1) / 2
    # the path's middle keeps off the borders by half the path's length more along the motion
    room = np.array(size[::-1]) / 2 - REACH - np.abs(step) * time[-1]  # [N, 2]
    middle = np.array(size[::-1]) / 2 + room * rng.uniform(-1, 1, (count, 2))
    centre = middle[:, None] + time[:, None] * step[:, None]  # [N, T, 2]
    x = np.arange(size[1]) + 0.5 - centre[..., 0, None]  # [N, T, W]
    y = np.arange(size[0]) + 0.5 - centre[..., 1, None]
    clips = np.empty((count, frames, *size), dtype=np.float32)
    for index, (form, shade) in enumerate((f, s) for f in FORMS for s in SHADES.values()):
        of = content == index
        clips[of] = shade * np.clip(0.5 - distance_to(form, x[of][:, :, None, :], y[of][:, :, :, None]), 0, 1)
    return what.rows(clips, content, motion, shape)


def move_digits(images: Rows, rng: np.random.Generator, shape: Sequence[int]) -> Rows:
    """Clips of moving digits, x [*shape, 12, 1, 20, 20], made of images [M, 8, 8]."""
    what, count = DIGITS, math.prod(shape)
    frames, _, height, _ = what.shape
    side, room = images.x.shape[-1], height - images.x.shape[-1]
    content, motion = (rng.integers(0, len(names), count) for names in (what.contents, what.motions))
    order, sizes = np.argsort(images.y, kind="stable"), np.bincount(images.y)
    first = np.cumsum(sizes) - sizes
    chosen = order[first[content] + np.floor(rng.random(count) * sizes[content]).astype(np.int64)]
    # a place on the way there and back, 0 ... 2 room - 1; below `room` it goes towards larger coordinates
    phase = rng.integers(0, room, (count, 2)) + np.where(what.steps[motion] > 0, 0, room)
    place = room - np.abs((phase[:, None] + np.arange(frames)[:, None]) % (2 * room) - room)  # [N, T, 2]
    clips = np.zeros((count, *what.shape), dtype=np.float32)
    n, t = np.arange(count)[:, None, None, None], np.arange(frames)[:, None, None]
    rows = place[..., 1, None, None] + np.arange(side)[:, None]
    columns = place[..., 0, None, None] + np.arange(side)
    clips[n, t, 0, rows, columns] = images.x[chosen][:, None]
    return what.rows(clips, content, motion, shape)


SHAPES = Moving(
    contents=tuple(f"{shade} {form}" for form in FORMS for shade in SHADES),
    motions={"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)},
    shape=(8, 1, 16, 16),
    definition="8 frames of 16 x 16: a square (side 7), a ring (radius 3.2, width 1.6) or a cross (bars 8 x 2.4),"
    " shade 0.5 or 1, edges 1 pixel soft, moves 1 pixel a frame right, left, down or up; all 24 cells alike, and all"
    " places that keep it inside (computed)",
)
DIGITS = Moving(
    contents=tuple("0123456789"),
    motions={"right down": (1, 1), "right up": (1, -1), "left down": (-1, 1), "left up": (-1, -1)},
    shape=(12, 1, 20, 20),
    definition="12 frames of 20 x 20: a digit of data set 'digits' moves 1 pixel a frame along each axis and bounces at"
    " the borders; its label has the direction of its first step; all 40 cells alike, images of a digit and places"
    " (computed)",
)
CLIPS = {"moving-shapes": SHAPES, "moving-digits": DIGITS}


def _card(name: str, what: Moving, licence: str, base: str = "") -> Card:
    return Card(
        name=name,
        kind="video",
        source=what.definition,
        licence=licence,
        sha256=digest(what.definition + base),
        shape=what.shape,
        classes=what.classes,
        rows=ROWS,
    )


SETS = {
    "moving-shapes": DataSet(_card("moving-shapes", SHAPES, "none needed: computed"), draw=draw_shapes),
    "moving-digits": DataSet(
        _card("moving-digits", DIGITS, digits.CARD.licence, digits.CARD.sha256), combine=move_digits, base="digits"
    ),
}
