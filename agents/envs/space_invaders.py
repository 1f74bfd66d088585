"""MinAtar's Space Invaders as pure functions of (state, action, noise) (Young & Tian 2019, arXiv:1903.03176).

Written from the paper and the published rules; tests/agents/envs/test_minatar.py plays the `minatar` package beside it.
The minimal actions of the package's version 1; sticky actions with probability 0.1; every wave moves a step faster than
the one before (difficulty ramping). Deliberate differences: 5000 steps truncate an episode (the package has no limit),
and an episode's first step can only stick to doing nothing (the package carries the last action over from the episode
before).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from agents.envs.spaces import discrete
from agents.envs.tables import cell, one_hot
from agents.envs.transition import Step, TensorEnv

__all__ = ["SpaceInvaders"]

SIZE = 10
RELOAD = 5  # steps between two shots of the cannon
ENEMY_RELOAD = 10
SLOWEST, FASTEST = 12, 6  # steps between two moves of a full wave: of the first wave, and at least
STICKY = 0.1
TIME_LIMIT = 5000


class SpaceInvaders(TensorEnv):
    """Nothing (0), left (1), right (2), fire (3); reward 1 for every alien; a hit or an alien at the bottom ends it.

    The state is {"cannon" its column, "direction" of the aliens, "interval" between their moves, "move_in", "shoot_in"
    steps until they do, "reload" until the cannon may fire, "last" action, "time": [...] each; "aliens", "ours",
    "theirs" (bullets): bool [..., 10, 10]}; the observation's channels are cannon, aliens, aliens that move left, that
    move right, our bullets, their bullets.
    """

    obs_shape = (6, SIZE, SIZE)
    action = discrete(4)
    reset_shape = step_shape = (1,)
    max_steps = TIME_LIMIT

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        """The first wave; noise unused [..., 1]."""
        zero = torch.zeros_like(noise[..., 0])
        wave = _wave(zero)
        return {
            "cannon": zero + 5,
            "aliens": wave,
            "ours": torch.zeros_like(wave),
            "theirs": torch.zeros_like(wave),
            "direction": zero - 1,
            "interval": zero + SLOWEST,
            "move_in": zero + SLOWEST,
            "shoot_in": zero + ENEMY_RELOAD,
            "reload": zero.clone(),
            "last": zero.clone(),
            "time": zero.clone(),
        }

    def observe(self, state: Mapping[str, Tensor]) -> Tensor:
        """Observation [..., 6, 10, 10]."""
        aliens, left = state["aliens"], (state["direction"] < 0)[..., None, None]
        cannon = _at_bottom(state["cannon"])
        channels = (cannon, aliens, aliens & left, aliens & ~left, state["ours"], state["theirs"])
        return torch.stack(channels, -3).to(state["cannon"].dtype)

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step; action 0 to 3 [...], noise [..., 1] for whether the last action sticks."""
        last = torch.where(noise[..., 0] < STICKY, state["last"], action.to(noise.dtype))
        fires = (last == 3) & (state["reload"] == 0)
        ours = state["ours"] | (_at_bottom(state["cannon"]) & fires[..., None, None])
        reload = torch.where(fires, float(RELOAD), state["reload"])
        move = (last == 2).to(noise.dtype) - (last == 1).to(noise.dtype)
        cannon = (state["cannon"] + move).clamp(0, SIZE - 1)
        here = _at_bottom(cannon)
        ours, theirs = _shift(ours, -1), _shift(state["theirs"], 1)
        over = _any(here & (theirs | state["aliens"]))
        aliens, direction, move_in, landed = _march(state)
        over = over | landed | _any(here & aliens)
        shoots = state["shoot_in"] == 0
        theirs = theirs | (_nearest(aliens, cannon) & shoots[..., None, None])
        hit = aliens & ours
        aliens, ours = aliens & ~hit, ours & ~hit
        cleared = ~_any(aliens)
        time = state["time"] + 1
        after = {
            "cannon": cannon,
            "aliens": aliens | (_wave(cannon) & cleared[..., None, None]),
            "ours": ours,
            "theirs": theirs,
            "direction": direction,
            "interval": torch.where(cleared, (state["interval"] - 1).clamp(min=FASTEST), state["interval"]),
            "move_in": move_in - 1,
            "shoot_in": torch.where(shoots, float(ENEMY_RELOAD), state["shoot_in"]) - 1,
            "reload": (reload - 1).clamp(min=0),
            "last": last,
            "time": time,
        }
        reward = hit.sum((-2, -1)).to(noise.dtype)
        return after, Step(self.observe(after), reward, over, time >= TIME_LIMIT)


def _any(grid: Tensor) -> Tensor:
    return grid.any(-1).any(-1)


def _at_bottom(column: Tensor) -> Tensor:
    """The cell of the lowest row in a column, bool [..., 10, 10]."""
    return cell(torch.full_like(column, SIZE - 1), column, SIZE, SIZE)


def _wave(like: Tensor) -> Tensor:
    """Four rows of six aliens, bool [..., 10, 10]."""
    at = torch.arange(SIZE, device=like.device)
    full = (at < 4).unsqueeze(-1) & (at >= 2) & (at < 8)
    return full.expand(*like.shape, SIZE, SIZE).clone()


def _shift(grid: Tensor, rows: int) -> Tensor:
    """Bullets one row down (1) or up (-1); those that leave the board are gone."""
    edge = one_hot(torch.full_like(grid[..., 0, 0], 0 if rows > 0 else SIZE - 1, dtype=torch.int64), SIZE)
    return torch.roll(grid, rows, -2) & ~edge.unsqueeze(-1)


def _march(state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Aliens move sideways when their time has come, at a wall down and back: (aliens, direction, move_in, landed).

    Fewer aliens move faster: a move comes after as many steps as there are aliens, at most `interval`.
    """
    aliens, direction = state["aliens"], state["direction"]
    moves = state["move_in"] == 0
    move_in = torch.where(
        moves, torch.minimum(aliens.sum((-2, -1)).to(direction.dtype), state["interval"]), state["move_in"]
    )
    left, right = aliens[..., 0].any(-1), aliens[..., SIZE - 1].any(-1)
    turns = moves & ((left & (direction < 0)) | (right & (direction > 0)))
    landed = turns & aliens[..., SIZE - 1, :].any(-1)
    sideways = torch.where((direction < 0)[..., None, None], torch.roll(aliens, -1, -1), torch.roll(aliens, 1, -1))
    moved = torch.where(turns[..., None, None], torch.roll(aliens, 1, -2), sideways)
    aliens = torch.where(moves[..., None, None], moved, aliens)
    return aliens, torch.where(turns, -direction, direction), move_in, landed


def _nearest(aliens: Tensor, cannon: Tensor) -> Tensor:
    """The lowest alien of the column nearest to the cannon, the left one of two: one cell, bool [..., 10, 10]."""
    at = torch.arange(SIZE, device=aliens.device)
    away = (at - cannon.unsqueeze(-1)).abs() * SIZE + at  # by distance, then from the left
    column = torch.where(aliens.any(-2), away, torch.inf).argmin(-1)
    there = aliens & one_hot(column, SIZE).unsqueeze(-2)
    lowest = (there.any(-1) * at).amax(-1)
    return there & one_hot(lowest, SIZE).unsqueeze(-1)
