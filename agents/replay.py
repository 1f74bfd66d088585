"""Replay: the last steps of every lane, in rings that are written in place.

A replay is {"obs": [K, C, N, ...], "mask", "action", "reward", "next_obs", "next_mask", "terminated", "truncated",
"added": int64 [K]}, part of the state tree; time is the second axis, so a row's successor in the same environment is
the next one. `added` counts the time steps ever written; step t stands at t modulo C. Rows are addressed flat: that of
step t and environment n is (t modulo C) * N + n.

Legend: K lanes, C time steps kept, N environments, G gradient steps, B rows of a batch.
"""

from __future__ import annotations

import math
import os
import tempfile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.envs.spaces import EnvSpec
from agents.envs.transition import Rollout
from harness.learner import Lanes

__all__ = [
    "FIELDS",
    "replay_add",
    "replay_cut",
    "replay_draw",
    "replay_init",
    "replay_n_step",
    "replay_rows",
    "replay_take",
]

FIELDS = ("obs", "mask", "action", "reward", "next_obs", "next_mask", "terminated", "truncated")
LARGE = 2**30  # bytes of a cohort's replay from which it lies in a file instead of memory


def replay_init(spec: EnvSpec, lanes: Lanes, steps: int, n_envs: int, large: int = LARGE) -> dict[str, Tensor]:
    """An empty replay; a large one of lanes on the CPU is mapped from files that nobody else sees.

    Args:
        spec: the environment.
        lanes: the cohort.
        steps: C, time steps kept (each of n_envs rows).
        n_envs: N.
        large: bytes from which it is mapped.
    """
    float_ = lanes.execution.dtype
    seen = torch.uint8 if spec.pixels else float_
    act = float_ if spec.action.kind in ("box", "multi-binary") else torch.int64
    fields: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "obs": (spec.obs_shape, seen),
        "mask": ((spec.mask_width,), torch.bool),
        "action": (spec.action.shape, act),
        "reward": ((), float_),
        "next_obs": (spec.obs_shape, seen),
        "next_mask": ((spec.mask_width,), torch.bool),
        "terminated": ((), torch.bool),
        "truncated": ((), torch.bool),
    }
    row = sum(math.prod(shape) * dtype.itemsize for shape, dtype in fields.values())
    zeros = _mapped if len(lanes) * steps * n_envs * row >= large else torch.zeros
    rings = {
        name: lanes.execution.move(zeros((len(lanes), steps, n_envs, *shape), dtype=dtype))
        for name, (shape, dtype) in fields.items()
    }
    return {**rings, "added": lanes.execution.tensor(np.zeros(len(lanes), dtype=np.int64))}


def replay_add(replay: dict[str, Tensor], rollout: Rollout) -> None:
    """Writes a rollout [K, T, N, ...] (T at most C), in place, over the oldest steps where the ring is full."""
    steps = rollout.reward.shape[1]
    size, first = replay["reward"].shape[1], int(replay["added"][0])
    at = torch.arange(first, first + steps, device=replay["reward"].device) % size
    for name in FIELDS:
        replay[name].index_copy_(1, at, getattr(rollout, name).to(replay[name].dtype))
    replay["added"] += steps


def replay_cut(replay: dict[str, Tensor]) -> None:
    """Marks the newest step as truncated: what is added next belongs to other episodes (environments began anew)."""
    if int(replay["added"][0]):
        replay["truncated"][:, (int(replay["added"][0]) - 1) % replay["truncated"].shape[1]] = True


def replay_rows(replay: dict[str, Tensor]) -> int:
    """Rows of a lane that hold something."""
    steps, n_envs = replay["reward"].shape[1:3]
    return min(int(replay["added"][0]), steps) * n_envs


def replay_draw(lanes: Lanes, replay: dict[str, Tensor], purpose: str, progress: int, shape: tuple[int, ...]) -> Tensor:
    """Rows drawn uniformly from what is kept: indices int64 [K, *shape] into the flat [C * N] rows of a lane."""
    drawn = [g.integers(0, replay_rows(replay), shape) for g in lanes.generators(purpose, progress)]
    return lanes.execution.tensor(np.stack(drawn))


def replay_take(replay: dict[str, Tensor], index: Tensor) -> dict[str, Any]:
    """Rows of every lane: name -> [K, *shape, ...].

    Args:
        replay: as `replay_init` gives it.
        index: int64 [K, *shape] of flat rows.
    """
    lane = _lane(index)
    return {name: replay[name].flatten(1, 2)[lane, index] for name in FIELDS}


def replay_n_step(replay: dict[str, Tensor], index: Tensor, n: int, gamma: Tensor) -> dict[str, Tensor]:
    """Rows with their n-step returns (Sutton 1988), as `replay_take`, and "discount", that of the value behind them.

    The m steps that a return has are n, or fewer where the episode ends or the newest step is reached before: "reward"
    is the sum of gamma^i r_{t+i} over i < m, "next_obs", "next_mask", "terminated" and "truncated" are those of its
    last step, "discount" is gamma^m. An end by the time limit and the newest step leave the value behind them to count.

    Args:
        replay: as `replay_init` gives it.
        index: int64 [K, *shape] of flat rows.
        n: steps of a return.
        gamma: discount [K].
    """
    lane, (size, n_envs) = _lane(index), replay["reward"].shape[1:3]
    flat = {name: replay[name].flatten(1, 2) for name in FIELDS}
    newer = (int(replay["added"][0]) - 1 - index // n_envs) % size  # steps that came after this one
    gamma = gamma.reshape(-1, *[1] * (index.dim() - 1)).expand(index.shape)
    last, discount, total = index, gamma, flat["reward"][lane, index]
    for i in range(1, n):
        over = flat["terminated"][lane, last] | flat["truncated"][lane, last] | (newer < i)
        following = (index + i * n_envs) % (size * n_envs)
        total = torch.where(over, total, total + discount * flat["reward"][lane, following])
        discount = torch.where(over, discount, discount * gamma)
        last = torch.where(over, last, following)
    ahead = {name: flat[name][lane, last] for name in ("next_obs", "next_mask", "terminated", "truncated")}
    here = {name: flat[name][lane, index] for name in ("obs", "mask", "action")}
    return {**here, "reward": total, **ahead, "discount": discount}


def _lane(index: Tensor) -> Tensor:
    """0 to K - 1, shaped to go beside an index [K, ...]."""
    return torch.arange(len(index), device=index.device).reshape(-1, *[1] * (index.dim() - 1))


def _mapped(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros in a file under the folder for temporary files ($TMPDIR).

    The file has no name any more when this returns: it is gone with its last tensor, however the process ends. Its
    space is taken at once, for a full disk is an error here and would be a dead process later.
    """
    with tempfile.NamedTemporaryFile(prefix="seedbed-replay-") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, math.prod(shape) * dtype.itemsize))
        flat = torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=dtype)
    return flat.reshape(shape)
