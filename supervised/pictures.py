"""Rows as one picture: images side by side, series as drawn lines, attention as maps."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from harness.learner import Media

__all__ = ["attention_maps", "pictured"]

SIDE = 56  # pixels of one row, at least
LINE = (56, 112)  # height and width of a drawn series
CELL = 14  # pixels of a cell of a map
PAPER = 242  # the lightest cell, so that a map's edge is seen


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
    """Where a decoder looks: a column for each source token, a row for each target token; dark is much.

    Args:
        weights: [N, T, S], in [0, 1].
        pairs: (source, target) tokens of each map; those beyond T and S are not shown.
    """
    maps = [_map(weight, source, [*target, "(end)"]) for weight, (source, target) in zip(weights, pairs, strict=True)]
    width = max(one.shape[1] for one in maps)
    lines = [_beside(maps[i : i + 2], width, columns=min(2, len(maps))) for i in range(0, len(maps), 2)]
    about = "Attention: target tokens from top to bottom, source tokens from left to right; dark is much"
    return Media("image", np.concatenate(lines), caption=about)


def _beside(maps: Sequence[np.ndarray], width: int, columns: int) -> np.ndarray:
    """Maps in one line of white."""
    line = np.full((max(one.shape[0] for one in maps), columns * width), 255, np.uint8)
    for i, one in enumerate(maps):
        line[: one.shape[0], i * width :][:, : one.shape[1]] = one
    return line


def _map(weight: np.ndarray, source: Sequence[str], target: Sequence[str]) -> np.ndarray:
    """One map with its tokens at the left and above, uint8 [H, W]."""
    source, target = source[: weight.shape[1]], target[: weight.shape[0]]
    left, above = ([_written(token) for token in tokens] for tokens in (target, source))
    corner = [max((word.shape[1] for word in words), default=0) for words in (above, left)]  # height, width
    dark = 255 * (1 - weight[: len(target), : len(source)].clip(0, 1))
    cells = dark.round().astype(np.uint8).repeat(CELL, 0).repeat(CELL, 1)
    sheet = np.full((corner[0] + cells.shape[0] + CELL, corner[1] + cells.shape[1] + CELL), 255, np.uint8)
    sheet[corner[0] : -CELL, corner[1] : -CELL] = np.minimum(cells, PAPER)
    for i, word in enumerate(left):
        sheet[corner[0] + i * CELL :, corner[1] - word.shape[1] :][:CELL, : word.shape[1]] = word
    for j, word in enumerate(above):
        sheet[corner[0] - word.shape[1] :, corner[1] + j * CELL :][: word.shape[1], :CELL] = np.rot90(word)
    return sheet


def _written(text: str) -> np.ndarray:
    """A word in black on white, CELL high, uint8 [CELL, W]; without accents, which Pillow's own font lacks."""
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode() or "?"
    font = ImageFont.load_default(CELL - 3)
    image = Image.new("L", (math.ceil(font.getlength(text)) + 6, CELL), 255)
    ImageDraw.Draw(image).text((3, CELL // 2), text, fill=0, font=font, anchor="lm")
    return np.asarray(image)


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
