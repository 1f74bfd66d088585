"""MinAtar's Breakout as pure functions of (state, action, noise) (Young & Tian 2019, arXiv:1903.03176).

Written from the paper and the published rules; tests/agents/envs/test_minatar.py plays the `minatar` package beside it.
The minimal actions of the package's version 1; sticky actions with probability 0.1; no difficulty ramping (the game has
none). Deliberate differences: 5000 steps truncate an episode (the package has no limit), and an episode's first step
can only stick to doing nothing (the package carries the last action over from the episode before).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from agents.envs.spaces import discrete
from agents.envs.tables import cell
from agents.envs.transition import Step, TensorEnv

__all__ = ["Breakout"]

SIZE = 10
BRICK_ROWS = (1, 2, 3)
STICKY = 0.1
TIME_LIMIT = 5000


class Breakout(TensorEnv):
    """Nothing (0), left (1), right (2); reward 1 for every brick, and new bricks when all are gone.

    The state is {"paddle" its column, "x", "y" the ball's column and row, "dx", "dy" its direction, "last_x", "last_y"
    where it was, "strike" whether it hit a brick in the last step, "last" action, "time": [...] each; "bricks": bool
    [..., 10, 10]}; the observation's channels are paddle, ball, trail (where the ball was) and bricks.
    """

    obs_shape = (4, SIZE, SIZE)
    action = discrete(3)
    reset_shape = step_shape = (1,)
    max_steps = TIME_LIMIT

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        """The ball falls inwards from one of two sides; noise [..., 1]."""
        right = noise[..., 0] >= 0.5
        x = torch.where(right, SIZE - 1.0, 0.0).to(noise.dtype)
        zero = torch.zeros_like(x)
        return {
            "paddle": zero + 4,
            "x": x,
            "y": zero + 3,
            "dx": torch.where(right, -1.0, 1.0).to(noise.dtype),
            "dy": zero + 1,
            "last_x": x.clone(),
            "last_y": zero + 3,
            "strike": torch.zeros_like(right),
            "bricks": _all_bricks(zero),
            "last": zero,
            "time": zero.clone(),
        }

    def observe(self, state: Mapping[str, Tensor]) -> Tensor:
        """Observation [..., 4, 10, 10]."""
        paddle = cell(torch.full_like(state["paddle"], SIZE - 1), state["paddle"], SIZE, SIZE)
        ball = cell(state["y"], state["x"], SIZE, SIZE)
        trail = cell(state["last_y"], state["last_x"], SIZE, SIZE)
        return torch.stack((paddle, ball, trail, state["bricks"]), -3).to(state["x"].dtype)

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step; action 0, 1 or 2 [...], noise [..., 1] for whether the last action sticks."""
        last = torch.where(noise[..., 0] < STICKY, state["last"], action.to(noise.dtype))
        move = (last == 2).to(noise.dtype) - (last == 1).to(noise.dtype)
        paddle = (state["paddle"] + move).clamp(0, SIZE - 1)
        ball, bricks, broken, lost = _fly(state, paddle)
        time = state["time"] + 1
        after = {**ball, "paddle": paddle, "bricks": bricks, "last": last, "time": time}
        return after, Step(self.observe(after), broken.to(noise.dtype), lost, time >= TIME_LIMIT)


def _all_bricks(like: Tensor) -> Tensor:
    """Three full rows, bool [..., 10, 10]."""
    rows = torch.arange(SIZE, device=like.device).unsqueeze(-1)
    full = (rows >= BRICK_ROWS[0]) & (rows <= BRICK_ROWS[-1])
    return full.expand(*like.shape, SIZE, SIZE).clone()


def _fly(state: Mapping[str, Tensor], paddle: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
    """The ball moves diagonally and bounces off walls, bricks and the paddle: (ball, bricks, broken, lost).

    It breaks one brick at a time: while it flies from brick to brick it passes through.
    """
    x, y, dx, dy, bricks = (state[name] for name in ("x", "y", "dx", "dy", "bricks"))
    side = (x + dx < 0) | (x + dx > SIZE - 1)
    new_x = (x + dx).clamp(0, SIZE - 1)
    dx = torch.where(side, -dx, dx)
    ceiling = y + dy < 0
    new_y = (y + dy).clamp(min=0)
    here = cell(new_y, new_x, SIZE, SIZE)
    brick = (bricks & here).any(-1).any(-1) & ~ceiling
    broken = brick & ~state["strike"]
    bottom = (new_y == SIZE - 1) & ~brick
    flat = bottom & (x == paddle)  # from right above the paddle
    corner = bottom & (new_x == paddle) & ~flat  # from beside it: straight back
    cleared = bottom & ~bricks.any(-1).any(-1)
    bricks = (bricks & ~(here & broken[..., None, None])) | (_all_bricks(x) & cleared[..., None, None])
    ball = {
        "x": new_x,
        "y": torch.where(broken | flat | corner, y, new_y),
        "dx": torch.where(corner, -dx, dx),
        "dy": torch.where(ceiling | broken | flat | corner, -dy, dy),
        "last_x": x,
        "last_y": y,
        "strike": brick,
    }
    return ball, bricks, broken, bottom & ~flat & ~corner
