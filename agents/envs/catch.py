"""Catch: move a paddle under a falling ball (bsuite: Osband et al. 2020, arXiv:1908.03568, appendix A.1).

Written from that description: a board of 10 rows and 5 columns, a ball that falls one row a step from the top, a paddle
in the bottom row that starts in the middle; after 9 steps the reward is 1 for a caught ball, else -1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from agents.envs.spaces import discrete
from agents.envs.tables import cell
from agents.envs.transition import Step, TensorEnv

__all__ = ["Catch"]

ROWS, COLUMNS = 10, 5


class Catch(TensorEnv):
    """Left (0), stay (1) or right (2).

    The state is {"ball": [...] its column, "paddle": [...] its column, "time": [...] the ball's row}; the observation
    is the board [10, 5]: 1 at ball and paddle. An episode always ends by itself, never by a time limit.
    """

    obs_shape = (ROWS, COLUMNS)
    action = discrete(3)
    reset_shape = (1,)
    max_steps = ROWS - 1

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        """A ball in any column; noise [..., 1]."""
        ball = torch.floor(noise[..., 0] * COLUMNS)
        return {"ball": ball, "paddle": torch.full_like(ball, COLUMNS // 2), "time": torch.zeros_like(ball)}

    def observe(self, state: Mapping[str, Tensor]) -> Tensor:
        """Observation [..., 10, 5]."""
        paddle = cell(torch.full_like(state["paddle"], ROWS - 1), state["paddle"], ROWS, COLUMNS)
        return (cell(state["time"], state["ball"], ROWS, COLUMNS) | paddle).to(state["time"].dtype)

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step; action 0, 1 or 2 [...], noise unused [..., 0]."""
        ball = state["ball"]
        paddle = (state["paddle"] + action.to(ball.dtype) - 1).clamp(0, COLUMNS - 1)
        after = {"ball": ball, "paddle": paddle, "time": state["time"] + 1}
        terminated = after["time"] >= ROWS - 1
        reward = torch.where(terminated, torch.where(paddle == ball, 1.0, -1.0), 0.0).to(ball.dtype)
        return after, Step(self.observe(after), reward, terminated, torch.zeros_like(terminated))
