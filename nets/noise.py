"""Random numbers inside a network: a function of a key, so that a lane's noise is its own and a run can be repeated.

A training step passes one int64 number, the key, to `nets.lanes.call`. While the network runs, its dropout layers
(and whatever else draws) ask for numbers; each question is a call site, counted in the order of the calls. A number
is a hash of (key, call site, index): no generator, no state, the same under vmap, compiled and on a GPU.

    with noise_from(key):
        y = net(x)              # Dropout inside draws `active_noise().uniform(x.shape, x)`
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["Noise", "active_noise", "bits", "noise_from"]

GOLDEN = -7046029254386353131  # 0x9e3779b97f4a7c15 as a signed number
FIRST, SECOND = -4658895280553007687, -7723592293110705685  # 0xbf58476d1ce4e5b9, 0x94d049bb133111eb


def bits(number: Tensor) -> Tensor:
    """64 random-looking bits of an int64 number: the output function of SplitMix64 (Steele et al. 2014).

    Args:
        number: int64, any shape.

    Returns:
        int64 of the same shape.
    """
    z = (number ^ _shifted(number, 30)) * FIRST
    z = (z ^ _shifted(z, 27)) * SECOND
    return z ^ _shifted(z, 31)


class Noise:
    """The random numbers of one call of a network.

    Args:
        key: int64, 0-dim: of one trial and one training step.
    """

    def __init__(self, key: Tensor) -> None:
        self.key = key
        self.site = 0

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Numbers in [0, 1), multiples of 2^-24, of the dtype of `like`; the next call site's."""
        self.site += 1
        offset = (self.site * GOLDEN + 2**63) % 2**64 - 2**63  # wraps around as tensors do; a Python int would not fit
        start = bits(self.key + offset)
        index = torch.arange(math.prod(shape), device=like.device)
        # not index * GOLDEN: TorchInductor would compute that with Python's integers and find it too large
        number = bits((start ^ index) * GOLDEN)
        return (_shifted(number, 40).to(like.dtype) * 2.0**-24).reshape(tuple(shape))

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Standard normal numbers (Box and Muller 1958); takes two call sites."""
        radius = (-2 * torch.log1p(-self.uniform(shape, like))).sqrt()
        return radius * torch.cos(2 * math.pi * self.uniform(shape, like))


_ACTIVE: list[Noise] = []


@contextmanager
def noise_from(key: Tensor | None) -> Iterator[None]:
    """Within it, layers draw from the key; with None nothing changes."""
    if key is None:
        yield
        return
    _ACTIVE.append(Noise(key))
    try:
        yield
    finally:
        _ACTIVE.pop()


def active_noise() -> Noise | None:
    """The noise of the call under way; None outside of one (layers then use torch's own generator)."""
    return _ACTIVE[-1] if _ACTIVE else None


def _shifted(number: Tensor, by: int) -> Tensor:
    """A logical shift to the right; torch's own repeats the sign."""
    return (number >> by) & ((1 << (64 - by)) - 1)
