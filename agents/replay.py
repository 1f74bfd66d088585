"""Replay: the last steps of every lane, in rings that are written in place.

A replay is {"obs": [K, C, N, ...], "mask", "action", "reward", "next_obs", "next_mask", "terminated", "truncated",
"added": int64 [K]}, part of the state tree; time is the second axis, so a row's successor in the same environment is
the next one. `added` counts the time steps ever written; step t stands at t modulo C.

Legend: K lanes, C time steps kept, N environments, G gradient steps, B rows of a batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.envs.spaces import EnvSpec
from agents.envs.transition import Rollout
from harness.learner import Lanes

__all__ = ["FIELDS", "replay_add", "replay_draw", "replay_init", "replay_take"]

FIELDS = ("obs", "mask", "action", "reward", "next_obs", "next_mask", "terminated", "truncated")


def replay_init(spec: EnvSpec, lanes: Lanes, steps: int, n_envs: int) -> dict[str, Tensor]:
    """An empty replay.

    Args:
        spec: the environment.
        lanes: the cohort.
        steps: C, time steps kept (each of n_envs rows).
        n_envs: N.
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
    device, k = lanes.execution.device, len(lanes)
    rings = {
        name: torch.zeros((k, steps, n_envs, *shape), dtype=dtype, device=device)
        for name, (shape, dtype) in fields.items()
    }
    return {**rings, "added": torch.zeros(k, dtype=torch.int64, device=device)}


def replay_add(replay: dict[str, Tensor], rollout: Rollout) -> None:
    """Writes a rollout [K, T, N, ...] (T at most C), in place, over the oldest steps where the ring is full."""
    steps = rollout.reward.shape[1]
    size, first = replay["reward"].shape[1], int(replay["added"][0])
    at = torch.arange(first, first + steps, device=replay["reward"].device) % size
    for name in FIELDS:
        replay[name].index_copy_(1, at, getattr(rollout, name).to(replay[name].dtype))
    replay["added"] += steps


def replay_draw(lanes: Lanes, replay: dict[str, Tensor], purpose: str, progress: int, shape: tuple[int, ...]) -> Tensor:
    """Rows drawn uniformly from what is kept: indices int64 [K, *shape] into the flat [C * N] rows of a lane."""
    steps, n_envs = replay["reward"].shape[1:3]
    rows = min(int(replay["added"][0]), steps) * n_envs
    drawn = [g.integers(0, rows, shape) for g in lanes.generators(purpose, progress)]
    return lanes.execution.tensor(np.stack(drawn))


def replay_take(replay: dict[str, Tensor], index: Tensor) -> dict[str, Any]:
    """Rows of every lane: name -> [K, *shape, ...].

    Args:
        replay: as `replay_init` gives it.
        index: int64 [K, *shape] of flat rows.
    """
    lane = torch.arange(len(index), device=index.device).reshape(-1, *[1] * (index.dim() - 1))
    return {name: replay[name].flatten(1, 2)[lane, index] for name in FIELDS}
