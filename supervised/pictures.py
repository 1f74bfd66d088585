"""Rows as one picture: images side by side, series as drawn lines, attention as maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from harness.learner import Media

__all__ = ["attention_maps", "pictured"]

SIDE = 56  # pixels of one row, at least
LINE = (56, 112)  # height and width of a drawn series


def pictured(rows: np.ndarray, kind: str) -> np.ndarray | None:
    """Rows beside and below each other, uint8 [H, W] or [H, W, 3]; None where there is nothing to draw.

    Args:
        rows: images [N, H, W] or [N, C, H, W] with pixels in [-1, 1], or series [N, T, F].
        kind: of the data: "images" or "series"; others are not drawn.
    """
    if not len(rows) or kind not in ("images", "series"):
        return None
    images = _drawn(rows) if kind == "series" else _enlarged(rows)
    columns = math.ceil(math.sqrt(len(images)))
    blank = np.full((-len(images) % columns, *images.shape[1:]), 255, np.uint8)
    padded = np.pad(np.concatenate([images, blank]), ((0, 0), (0, 2), (0, 2), (0, 0)), constant_values=255)
    lines = padded.reshape(-1, columns, *padded.shape[1:]).swapaxes(1, 2)
    sheet = lines.reshape(lines.shape[0] * lines.shape[1], -1, lines.shape[-1])
    return sheet[..., 0] if sheet.shape[-1] == 1 else sheet


def attention_maps(weights: np.ndarray, pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> Media:
    """Where a decoder looks, side by side: a column for each source token, a row for each target token; dark is much.

    Args:
        weights: [N, T, S], in [0, 1].
        pairs: (source, target) tokens of each map.
    """
    height, width = weights.shape[1:]
    times = max(math.ceil(4 * SIDE / max(height, width)), 1)
    maps = []
    for weight, (source, target) in zip(weights, pairs, strict=True):
        real = np.full((height + 1, width + 1), 255, np.uint8)
        rows, columns = min(len(target) + 1, height), min(len(source), width)
        real[:rows, :columns] = (255 * (1 - weight[:rows, :columns].clip(0, 1))).round()
        real[rows, :columns] = real[: rows + 1, columns] = 160  # the map's edge
        maps.append(real.repeat(times, 0).repeat(times, 1))
    named = "; ".join(f"{' '.join(s)} -> {' '.join(t)}" for s, t in pairs)
    about = f"Attention: target tokens from top to bottom, source tokens from left to right. {named}"
    return Media("image", np.concatenate(maps, 1), caption=about)


def _enlarged(rows: np.ndarray) -> np.ndarray:
    """Pixels in [-1, 1] as bytes [N, h, w, C], each several times over; one channel or three."""
    images = rows[:, None] if rows.ndim == 3 else rows
    images = images[:, :3] if images.shape[1] >= 3 else images[:, :1]
    times = max(math.ceil(SIDE / images.shape[-1]), 1)
    shown = (127.5 * (images.clip(-1, 1) + 1)).round().astype(np.uint8).repeat(times, 2).repeat(times, 3)
    return shown.transpose(0, 2, 3, 1)


def _drawn(rows: np.ndarray) -> np.ndarray:
    """Series [N, T, F] as dark lines on white, [N, h, w, 1]; each fills its own height."""
    height, width = LINE
    places = np.linspace(0, rows.shape[1] - 1, width)
    images = np.full((len(rows), height, width, 1), 255, np.uint8)
    for image, row in zip(images, rows, strict=True):
        low, high = row.min(), row.max()
        for line in row.T:
            values = np.interp(places, np.arange(len(line)), line)
            at = ((high - values) / max(high - low, 1e-12) * (height - 1)).round().astype(int)
            ends = np.append(at[1:], at[-1])
            for column, (a, b) in enumerate(zip(at, ends, strict=True)):
                image[min(a, b) : max(a, b) + 1, column] = 0
    return images
