"""Randomness is a function of (trial seed, purpose, progress), not a state.

Every random number comes from a counter-based generator (Philox 4x64, Salmon et al. 2011). Nothing about a generator is
saved, a lane's noise depends neither on how many lanes there are nor on its place, and a resumed run sees the same
numbers.

Key layout, written here and nowhere else::

    key     = [seed, first 8 bytes of sha256(purpose)]     2 x 64 bits
    counter = [0, 0, 0, progress]                          4 x 64 bits; draws count up in the low words
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

__all__ = ["FOREIGN_SEEDS", "derive_seed", "foreign_seed", "generator", "noise", "torch_seed"]

Kind = Literal["uniform", "normal"]
# Others' code takes seeds below this: numpy.random.seed and scikit-learn's random_state take 32 bits, C code often 31;
# stable-baselines3 adds the number of the environment, hence the room
FOREIGN_SEEDS = 2**31 - 2**16


@lru_cache(maxsize=4096)
def _purpose_word(purpose: str) -> int:
    return int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")


def generator(seed: int, purpose: str, progress: int = 0) -> np.random.Generator:
    """A fresh generator for one trial, one purpose and one progress.

    Args:
        seed: the trial's seed, 0 <= seed < 2**64.
        purpose: what the numbers are for, e.g. "ppo/actions".
        progress: where in the training they are drawn.
    """
    key = np.array([seed, _purpose_word(purpose)], dtype=np.uint64)
    counter = np.array([0, 0, 0, progress], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def noise(
    seeds: Sequence[int],
    purpose: str,
    progress: int,
    shape: Sequence[int],
    kind: Kind = "normal",
    dtype: str = "float32",
) -> np.ndarray:
    """Independent noise for every lane, [K, *shape]; row k depends on seeds[k] alone.

    Args:
        seeds: the lanes' trial seeds.
        purpose: what the noise is for.
        progress: where in the training it is drawn.
        shape: of one lane's noise.
        kind: "normal" (mean 0, variance 1) or "uniform" (in [0, 1)).
        dtype: "float32" or "float64"; float32 noise is float64 noise rounded, so both see the same numbers.
    """
    out = np.empty((len(seeds), *shape), dtype=dtype)
    for row, seed in zip(out, seeds, strict=True):
        rng = generator(seed, purpose, progress)
        row[...] = rng.standard_normal(shape) if kind == "normal" else rng.random(shape)
    if kind == "uniform" and out.dtype == np.float32:
        np.minimum(out, np.float32(1 - 2**-24), out=out)  # rounding must not reach 1
    return out


def torch_seed(seed: int, purpose: str, progress: int = 0) -> int:
    """A 63-bit seed for `torch.manual_seed`, which takes 64 bits, from (seed, purpose, progress)."""
    return int(generator(seed, purpose, progress).integers(0, 2**63 - 1))


def derive_seed(seed: int, purpose: str, progress: int = 0) -> int:
    """A seed below `FOREIGN_SEEDS` for others' code (Gymnasium's reset), from (seed, purpose, progress)."""
    return torch_seed(seed, purpose, progress) % FOREIGN_SEEDS


def foreign_seed(seed: int) -> int:
    """A trial's own seed for others' code: itself where it is below `FOREIGN_SEEDS`."""
    return seed % FOREIGN_SEEDS
