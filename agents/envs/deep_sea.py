"""DeepSea: dive to a treasure that only one sequence of actions reaches (bsuite: Osband et al. 2020, arXiv:1908.03568,
appendix A.4; Osband et al. 2019, arXiv:1703.07608).

Written from that description, deterministic: a diver starts in the upper left of N x N cells and sinks one row a step,
one column to the right or to the left. Right costs 0.01 / N, left nothing; right in the lowest right cell brings 1.
Which of the two actions is right differs from cell to cell, by a mapping that is fixed for every size (numpy's PCG64
seeded with N), so that all seeds and lanes of a size face the same sea.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from agents.envs.spaces import discrete
from agents.envs.tables import Table, cell
from agents.envs.transition import Step, TensorEnv

__all__ = ["DeepSea"]

MOVE_COST = 0.01
LARGEST = 100


class DeepSea(TensorEnv):
    """The best return is 0.99; random actions find it once in 2^N episodes.

    The state is {"column": [...], "time": [...] the row}; the observation is the cells [N, N], 1 where the diver is
    (all 0 below the sea). An episode always ends by itself, after N steps.

    Args:
        size: N.

    Raises:
        ValueError: the size is not an integer from 2 to 100.
    """

    action = discrete(2)
    reset_shape = (1,)

    def __init__(self, size: int = 10) -> None:
        if type(size) is not int or not 2 <= size <= LARGEST:
            raise ValueError(f"env_options: size must be an integer from 2 to {LARGEST}, not {size!r}")
        self.size = self.max_steps = size
        self.obs_shape = (size, size)
        self.right = Table(torch.from_numpy(np.random.default_rng(size).integers(0, 2, size * size)))

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        """In the upper left; noise unused [..., 1]."""
        self.right.on(noise)
        return {"column": torch.zeros_like(noise[..., 0]), "time": torch.zeros_like(noise[..., 0])}

    def observe(self, state: Mapping[str, Tensor]) -> Tensor:
        """Observation [..., N, N]."""
        return cell(state["time"], state["column"], self.size, self.size).to(state["time"].dtype)

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step; action 0 or 1 [...], noise unused [..., 0]."""
        column, row = state["column"], state["time"]
        right = action == self.right.on(column)[(row * self.size + column).long()]
        treasure = right & (column == self.size - 1)
        reward = treasure.to(column.dtype) - right.to(column.dtype) * (MOVE_COST / self.size)
        moved = (column + torch.where(right, 1.0, -1.0).to(column.dtype)).clamp(0, self.size - 1)
        after = {"column": moved, "time": row + 1}
        terminated = after["time"] >= self.size
        return after, Step(self.observe(after), reward, terminated, torch.zeros_like(terminated))
