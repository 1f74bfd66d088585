"""Any Gymnasium environment with discrete actions, stepped one by one in numpy, behind the calls of
`Environments`.

Such an environment's state cannot be saved. At every checkpoint, and after restoring one, all environments
are reset from a seed of (trial seed, environment, progress): an interrupted run and an uninterrupted one then
see the same numbers. It costs the episodes that were running; their value is bootstrapped, so no return is
lost to learning.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import FlattenObservation
from torch import Tensor

from agents.envs.transition import Act, Rollout
from harness.learner import Lanes
from harness.randomness import derive_seed

__all__ = ["GymEnvironments", "gym_space", "make_gym"]

EVALUATED_AT_ONCE = 10  # environments a lane; 100 of each would hold much memory for nothing


def make_gym(env_id: str) -> gymnasium.Env:
    """One environment with array observations (others are flattened, discrete ones to one-hot).

    Raises:
        ValueError: unknown id, missing package, or actions that are not discrete.
    """
    try:
        env = gymnasium.make(env_id)
    except gymnasium.error.Error as error:
        raise ValueError(f"environment '{env_id}': {error}") from error
    if not isinstance(env.action_space, Discrete):
        raise ValueError(f"environment '{env_id}' has actions {env.action_space}; discrete ones are needed")
    return env if isinstance(env.observation_space, Box) else FlattenObservation(env)


def gym_space(env_id: str) -> tuple[tuple[int, ...], int]:
    """(shape of an observation, number of actions)."""
    env = make_gym(env_id)
    shape, actions = env.observation_space.shape, int(env.action_space.n)  # type: ignore[attr-defined]
    env.close()
    assert shape is not None  # Box and flattened spaces have one
    return tuple(shape), actions


class GymEnvironments:
    """N Gymnasium environments for every lane.

    Args:
        env_id: Gymnasium id.
        act: the policy, a function of one trial.
        lanes: the cohort.
        n_envs: environments a lane.
        n_steps: steps of a rollout.
    """

    def __init__(self, env_id: str, act: Act, lanes: Lanes, n_envs: int, n_steps: int) -> None:
        self.env_id, self.lanes, self.n_envs, self.n_steps = env_id, lanes, n_envs, n_steps
        self.obs_shape, self.actions = gym_space(env_id)
        self.envs = [[make_gym(env_id) for _ in range(n_envs)] for _ in lanes.seeds]
        self.first = int(self.envs[0][0].action_space.start)  # type: ignore[attr-defined]
        self._sample = lanes.execution.each(act)
        self._greedy = lanes.execution.each(lambda params, obs: act(params, obs, None), rare=True)

    def start(self) -> dict[str, Any]:
        """Fresh episodes: {"obs": [K, N, ...], "return": [K, N] of the running episodes}."""
        obs = self._reset(self.envs, "env", 0)
        zeros = np.zeros(obs.shape[:2])
        return {"obs": self.lanes.execution.tensor(obs), "return": self.lanes.execution.tensor(zeros)}

    def checkpointed(self, state: dict[str, Any], progress: int) -> None:
        """Resets every environment from (seed, environment, progress)."""
        state["obs"] = self.lanes.execution.tensor(self._reset(self.envs, "env", progress))
        state["return"] = torch.zeros_like(state["return"])

    def collect(self, params: Any, state: dict[str, Any], progress: int) -> tuple[dict[str, Any], Rollout]:
        """T steps: (state after, rollout with [K, T, N, ...] tensors)."""
        tensor = self.lanes.execution.tensor
        noise = self.lanes.noise("env/actions", progress, (self.n_steps, self.n_envs), "uniform")
        obs, running = state["obs"], state["return"].cpu().numpy().astype(np.float64)
        rows = []
        for t in range(self.n_steps):
            action = self._sample(params, obs, noise[:, t].contiguous())
            stepped = _step(self.envs, action.cpu().numpy() + self.first)
            running = running + stepped["reward"]
            done = stepped["terminated"] | stepped["truncated"]
            episode, running = np.where(done, running, 0.0), np.where(done, 0.0, running)
            after = {name: tensor(a) for name, a in stepped.items() if name != "obs"}
            rows.append(Rollout(obs=obs, action=action, episode=tensor(episode), **after))
            obs = tensor(stepped["obs"])
        rollout = Rollout(*(torch.stack(ts, 1) for ts in zip(*rows, strict=True)))
        return {"obs": obs, "return": tensor(running)}, rollout

    def evaluate(self, params: Any, progress: int, episodes: int) -> Tensor:
        """Returns of deterministic episodes in separate environments, [K, episodes]."""
        count = min(EVALUATED_AT_ONCE, episodes)
        envs = [[make_gym(self.env_id) for _ in range(count)] for _ in self.lanes.seeds]
        waves = [
            self._episodes(
                params, [row[: episodes - first] for row in envs], f"env/evaluate/{first}", progress
            )
            for first in range(0, episodes, count)
        ]
        for env in (e for row in envs for e in row):
            env.close()
        return self.lanes.execution.tensor(np.concatenate(waves, axis=1))

    def _episodes(
        self, params: Any, envs: list[list[gymnasium.Env]], purpose: str, progress: int
    ) -> np.ndarray:
        """One episode in each environment: returns [K, environments]."""
        obs = self._reset(envs, purpose, progress)
        total, running = np.zeros(obs.shape[:2]), np.ones(obs.shape[:2], dtype=bool)
        while running.any():
            action = self._greedy(params, self.lanes.execution.tensor(obs)).cpu().numpy() + self.first
            for k, n in np.argwhere(running):
                obs[k, n], reward, terminated, truncated, _ = envs[k][n].step(action[k, n])
                total[k, n] += float(reward)
                running[k, n] = not (terminated or truncated)
        return total

    def _reset(self, envs: list[list[gymnasium.Env]], purpose: str, progress: int) -> np.ndarray:
        """Resets every environment from its own seed: observations [K, N, ...]."""
        return np.array(
            [
                [
                    env.reset(seed=derive_seed(seed, f"{purpose}/{n}", progress))[0]
                    for n, env in enumerate(row)
                ]
                for seed, row in zip(self.lanes.seeds, envs, strict=True)
            ],
            dtype=np.float64,
        )


def _step(envs: list[list[gymnasium.Env]], actions: np.ndarray) -> dict[str, np.ndarray]:
    """One step of every environment; a finished one is reset at once.

    Returns:
        [K, N, ...] arrays: reward, next_obs (before a reset), terminated, truncated, obs (after it).
    """
    rows: dict[str, list] = {name: [] for name in ("reward", "next_obs", "terminated", "truncated", "obs")}
    for env, action in zip((e for row in envs for e in row), actions.flat, strict=True):
        after, reward, terminated, truncated, _ = env.step(action)
        obs = env.reset()[0] if terminated or truncated else after
        for name, value in zip(rows, (float(reward), after, terminated, truncated, obs), strict=True):
            rows[name].append(value)
    out = {name: np.array(values) for name, values in rows.items()}
    return {name: a.reshape(*actions.shape, *a.shape[1:]) for name, a in out.items()}
