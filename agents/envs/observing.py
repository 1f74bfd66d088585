"""Wrappers that change what is observed, and how often: time left, history, frame skip, hidden velocities, pictures.

numpy and Gymnasium only: worker processes import this.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import GrayscaleObservation, ResizeObservation

__all__ = ["FrameSkip", "History", "MaskVelocity", "TimeFeature", "greyscale", "resize"]

# components of an observation that are velocities
VELOCITIES = {
    "CartPole": (1, 3),
    "MountainCar": (1,),
    "MountainCarContinuous": (1,),
    "Pendulum": (2,),
    "LunarLander": (2, 3, 5),
    "LunarLanderContinuous": (2, 3, 5),
}


class FrameSkip(gymnasium.Wrapper):
    """Repeats every action; rewards are summed, and the last observation is seen.

    Args:
        env: any.
        skip: how often an action is taken, fewer times where the episode ends.
    """

    def __init__(self, env: gymnasium.Env, skip: int = 4) -> None:
        super().__init__(env)
        if skip < 1:
            raise ValueError(f"`skip` should be 1 or more, not {skip}")
        self.skip = skip

    def step(self, action: Any) -> Any:
        total = 0.0
        for _ in range(self.skip):
            obs, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return obs, total, terminated, truncated, info


class History(gymnasium.Wrapper):
    """The newest observations and the actions that led to them, oldest first, as one vector.

    Zeros stand for what was before the episode. Observations and actions are vectors of numbers.

    Args:
        env: its observations and its actions are boxes with one axis.
        horizon: how many of both.
    """

    def __init__(self, env: gymnasium.Env, horizon: int = 2) -> None:
        super().__init__(env)
        if horizon < 1:
            raise ValueError(f"`horizon` should be 1 or more, not {horizon}")
        seen, done = env.observation_space, env.action_space
        for what, space in (("observations", seen), ("actions", done)):
            if not isinstance(space, spaces.Box) or len(space.shape) != 1:
                raise ValueError(f"it needs {what} that are vectors of numbers, not {space}")
        assert isinstance(seen, spaces.Box)
        assert isinstance(done, spaces.Box)
        low, high = (
            np.concatenate((np.tile(getattr(seen, side), horizon), np.tile(getattr(done, side), horizon)))
            for side in ("low", "high")
        )
        kind = seen.dtype.type
        self.observation_space = spaces.Box(low.astype(kind), high.astype(kind), dtype=kind)
        self.seen = np.zeros((horizon, *seen.shape), seen.dtype)
        self.done = np.zeros((horizon, *done.shape), done.dtype)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        obs, info = self.env.reset(seed=seed, options=options)
        self.seen[:], self.done[:] = 0, 0
        self.seen[-1] = obs
        return self._both(), info

    def step(self, action: Any) -> Any:
        obs, *rest = self.env.step(action)
        self.seen = np.roll(self.seen, -1, axis=0)
        self.done = np.roll(self.done, -1, axis=0)
        self.seen[-1], self.done[-1] = obs, action
        return self._both(), *rest

    def _both(self) -> np.ndarray:
        return np.concatenate((self.seen.reshape(-1), self.done.reshape(-1))).astype(self.seen.dtype)


class TimeFeature(gymnasium.Wrapper):
    """The share of the episode's steps that is left, as one more number (Pardo et al. 2018, arXiv:1712.00378).

    Args:
        env: its observations are vectors, or have a vector called "observation".
        max_steps: of an episode, where the environment says nothing of it.
    """

    def __init__(self, env: gymnasium.Env, max_steps: int = 1000) -> None:
        super().__init__(env)
        if max_steps < 1:
            raise ValueError(f"`max_steps` should be 1 or more, not {max_steps}")
        whole = env.observation_space
        self.named = isinstance(whole, spaces.Dict)
        space = whole.spaces.get("observation") if isinstance(whole, spaces.Dict) else whole
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"it needs observations that are vectors of numbers, not {whole}")
        self.kind = space.dtype.type
        low, high = np.append(space.low, 0).astype(self.kind), np.append(space.high, 1).astype(self.kind)
        longer = spaces.Box(low, high, dtype=self.kind)
        self.observation_space = longer
        if isinstance(whole, spaces.Dict):
            self.observation_space = spaces.Dict({**whole.spaces, "observation": longer})
        limit = env.spec.max_episode_steps if env.spec else None
        self.max_steps, self.steps = limit or max_steps, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        obs, info = self.env.reset(seed=seed, options=options)
        self.steps = 0
        return self._timed(obs), info

    def step(self, action: Any) -> Any:
        obs, *rest = self.env.step(action)
        self.steps += 1
        return self._timed(obs), *rest

    def _timed(self, obs: Any) -> Any:
        left = 1 - self.steps / self.max_steps
        if self.named:
            return {**obs, "observation": np.append(obs["observation"], left).astype(self.kind)}
        return np.append(obs, left).astype(self.kind)


class MaskVelocity(gymnasium.ObservationWrapper):
    """Velocities are seen as 0, so that a policy must remember (rl-baselines3-zoo's "NoVel" environments)."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        name = env.spec.id.rpartition("-v")[0] if env.spec else ""
        if name not in VELOCITIES:
            raise ValueError(f"it is for {', '.join(VELOCITIES)}")
        self.mask = np.ones(env.observation_space.shape or (), env.observation_space.dtype)
        self.mask[list(VELOCITIES[name])] = 0

    def observation(self, observation: Any) -> Any:
        return observation * self.mask


def resize(env: gymnasium.Env, height: int, width: int) -> gymnasium.Env:
    """Pictures of so many pixels (OpenCV's mean over areas)."""
    return ResizeObservation(env, (height, width))


def greyscale(env: gymnasium.Env) -> gymnasium.Env:
    """Coloured pictures as grey ones."""
    return GrayscaleObservation(env, keep_dim=True)
