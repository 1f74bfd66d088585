"""A goal environment: a point is pushed to where it should be; the reward is 0 there and -1 elsewhere."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

__all__ = ["Reaching"]

AT_GOAL = 0.1


class Reaching(gymnasium.Env):
    """A point in [-1, 1] x [-1, 1], moved by at most 0.2 a step along each axis."""

    def __init__(self, render_mode: str | None = None) -> None:
        box = spaces.Box(-1, 1, (2,), np.float64)
        self.observation_space = spaces.Dict({"observation": box, "achieved_goal": box, "desired_goal": box})
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place, self.goal = self.np_random.uniform(-1, 1, (2, 2))
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.place = np.clip(self.place + 0.2 * np.asarray(action, np.float64), -1, 1)
        reward = self.compute_reward(self.place[None], self.goal[None], [{}])[0]
        return self._seen(), float(reward), False, False, {}

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> np.ndarray:
        """Rewards [B] of goals [B, 2]."""
        return -(np.abs(achieved - desired).max(-1) > AT_GOAL).astype(np.float64)

    def _seen(self) -> dict[str, np.ndarray]:
        return {"observation": self.place.copy(), "achieved_goal": self.place.copy(), "desired_goal": self.goal.copy()}


gymnasium.register("Reaching-v0", entry_point=Reaching, max_episode_steps=20)
