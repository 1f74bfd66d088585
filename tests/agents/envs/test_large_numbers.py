"""Observations that are large and differ little, as times do: their mean is taken away before they are rounded."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from tests.agents.envs.test_gym import start

NOW = 1_700_000_000  # float32 has steps of 128 there


class Clock(gymnasium.Env):
    """Shows a time that differs by seconds.

    Args:
        kind: type of the observations.
    """

    def __init__(self, kind: str) -> None:
        self.observation_space = spaces.Box(0, 2 * NOW, (2,), np.dtype(kind).type)
        self.action_space = spaces.Discrete(2)

    def _seen(self):
        noise = self.np_random.integers(-3, 4, 2)
        return (NOW + noise).astype(self.observation_space.dtype)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._seen(), {}

    def step(self, action):
        return self._seen(), 1.0, False, False, {}


gymnasium.register("Clock-v0", Clock)


@pytest.mark.parametrize("kind", ["float64", "int64"])
def test_times_are_normalised_by_their_seconds(kind, monkeypatch):
    monkeypatch.setattr("agents.envs.describing.is_trusted", lambda env, *_: True)  # no process: seconds
    limit = {"time-limit": {"steps": 50}}
    wrappers = [limit, "normalise-observations"]
    envs, state, _ = start("Clock-v0", env_options={"kind": kind}, wrappers=wrappers, env_workers=0, steps=64)
    state, _ = envs.collect({}, state, 0)
    state, rollout = envs.collect({}, state, 64)
    assert rollout.obs.dtype == torch.float32
    mean, var = rollout.obs.mean((1, 2)), rollout.obs.var((1, 2))
    assert (mean.abs() < 0.3).all()  # rounded before, all were 0
    assert ((var > 0.7) & (var < 1.3)).all()
    assert len(rollout.obs.unique()) > 50
    assert torch.isfinite(envs.evaluate({}, state, 128, 1)).all()
    envs.close()
