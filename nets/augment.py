"""Augmentation of image batches in torch: pure functions, noise passed in, the same for one trial and under vmap.

Papers: He et al. 2016 (flip; crop after padding), DeVries & Taylor 2017 (cutout), Bishop 1995 (noise). mixup, which
also mixes targets, is `nets.regularise.mixup`.

Legend: B rows, H x W pixels; u uniform numbers in [0, 1). Images are [B, H, W] or [B, C, H, W].
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["cropped", "cutout", "flipped", "noisy", "shifted"]


def flipped(x: Tensor, u: Tensor) -> Tensor:
    """Left and right exchanged in half of the rows, those with u [B] below 0.5."""
    return torch.where(_each(u < 0.5, x), x.flip(-1), x)


def shifted(x: Tensor, u: Tensor, most: int, fill: float = 0.0) -> Tensor:
    """Moved by up to `most` pixels along each axis; what comes in has the value `fill`. u [B, 2]."""
    for axis, numbers in ((-2, u[:, 0]), (-1, u[:, 1])):
        place = _moved(x.shape[axis], numbers, most)
        inside = (place >= 0) & (place < x.shape[axis])
        x = torch.where(_along(inside, x, axis), _lines(x, axis, place.clamp(0, x.shape[axis] - 1)), fill)
    return x


def cropped(x: Tensor, u: Tensor, most: int) -> Tensor:
    """Crops of the images padded by `most` pixels of their mirror image: no empty border. u [B, 2]."""
    for axis, numbers in ((-2, u[:, 0]), (-1, u[:, 1])):
        last = x.shape[axis] - 1
        place = _moved(x.shape[axis], numbers, most).abs()
        x = _lines(x, axis, torch.where(place > last, 2 * last - place, place))
    return x


def noisy(x: Tensor, normal: Tensor, std: float | Tensor) -> Tensor:
    """White noise added: `normal` has the shape of x, mean 0 and variance 1."""
    return x + std * normal


def cutout(x: Tensor, u: Tensor, side: int, fill: float = 0.0) -> Tensor:
    """A square of `side` pixels becomes `fill`; its centre is any pixel, so it may reach over the edge. u [B, 2]."""
    hidden = torch.ones((), dtype=torch.bool, device=x.device)
    for axis, numbers in ((-2, u[:, 0]), (-1, u[:, 1])):
        length = x.shape[axis]
        first = (numbers * length).floor() - side // 2
        place = torch.arange(length, device=x.device)
        hidden = hidden & _along((place >= first[:, None]) & (place < first[:, None] + side), x, axis)
    return torch.where(hidden, fill, x)


def _moved(length: int, numbers: Tensor, most: int) -> Tensor:
    """Where each line of an axis comes from, int64 [B, length], for whole moves of -most to most, all as likely."""
    move = (numbers * (2 * most + 1)).floor().long() - most
    return torch.arange(length, device=numbers.device) - move[:, None]


def _each(row: Tensor, x: Tensor) -> Tensor:
    """[B] to [B, 1, ...], as many axes as x."""
    return row.reshape(-1, *[1] * (x.dim() - 1))


def _along(lines: Tensor, x: Tensor, axis: int) -> Tensor:
    """[B, length] to the axes of x, length along one of the last two."""
    shape = [len(x), *[1] * (x.dim() - 1)]
    shape[axis] = lines.shape[1]
    return lines.reshape(shape)


def _lines(x: Tensor, axis: int, place: Tensor) -> Tensor:
    """Lines [B, length] of every row of x, picked along an axis."""
    return x.gather(axis, _along(place, x, axis).expand_as(x))
