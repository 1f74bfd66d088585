"""Differentiable augmentation of images, for a discriminator that sees few: real and generated rows alike.

Paper: Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training" (brightness, contrast,
translation, cutout), with the probability of Karras et al. 2020 (ADA): each augmentation meets a row with probability
p, so that the generator cannot leak it for p well below 1.
Deliberate differences: pixels lie in [-1, 1] with -1 as the empty border; no saturation, which grey images lack.

Legend: B rows, C channels, H x W pixels; u uniform numbers in [0, 1), [B, UNIFORMS] for each augmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from nets.augment import cutout, shifted

__all__ = ["AUGMENTATIONS", "UNIFORMS", "AugmentationName", "augmented"]

UNIFORMS = 3  # one decides whether, two say how
SHIFT = 0.125  # of the side
CUTOUT = 0.5  # of the side
AugmentationName = Literal["colour", "translation", "cutout"]


def colour(x: Tensor, u: Tensor) -> Tensor:
    """Brightness moved by up to half of 1 and contrast scaled by 0.5 to 1.5. x [B, C, H, W], u [B, 2]."""
    brightness, contrast = (u[:, i].reshape(-1, 1, 1, 1) for i in range(2))
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (contrast + 0.5) + mean + brightness - 0.5


def translation(x: Tensor, u: Tensor) -> Tensor:
    """Moved by up to an eighth of the side along each axis; what comes in is -1. x [B, C, H, W], u [B, 2]."""
    return shifted(x, u, max(int(SHIFT * x.shape[-1] + 0.5), 1), fill=-1.0)


AUGMENTATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "colour": colour,
    "translation": translation,
    "cutout": lambda x, u: cutout(x, u, int(CUTOUT * x.shape[-1])),
}


def augmented(x: Tensor, names: Sequence[str], p: Tensor, u: Tensor) -> Tensor:
    """Rows as the discriminator sees them; a gradient passes through.

    Args:
        x: [B, H, W] or [B, C, H, W], pixels in [-1, 1].
        names: keys of `AUGMENTATIONS`, applied in this order.
        p: 0-dim, the probability that an augmentation meets a row.
        u: [B, len(names), UNIFORMS].
    """
    images = x.reshape(len(x), -1, *x.shape[-2:])
    for i, name in enumerate(names):
        chosen = (u[:, i, 0] < p).reshape(-1, 1, 1, 1)
        images = torch.where(chosen, AUGMENTATIONS[name](images, u[:, i, 1:]), images)
    return images.reshape(x.shape)
