"""Any Gymnasium environment, stepped one by one in numpy, behind the calls of `Environments`.

Such an environment's state cannot be saved. At every checkpoint, and after restoring one, all environments
are reset from a seed of (trial seed, environment, progress): an interrupted run and an uninterrupted one then
see the same numbers. It costs the episodes that were running; their value is bootstrapped, so no return is
lost to learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation
from torch import Tensor

from agents.envs.normalising import Normalising
from agents.envs.render import Episode, film
from agents.envs.spaces import ActionSpace, EnvSpec, Fit, box, discrete, multi_binary, multi_discrete
from agents.envs.transition import Policy, Rollout
from harness.learner import Lanes, tree_map
from harness.randomness import derive_seed

if TYPE_CHECKING:
    from agents.envs.config import EnvConfig

__all__ = ["GymEnvironments", "action_space_of", "gym_spec", "make_gym"]

EVALUATED_AT_ONCE = 10  # environments a lane; 100 of each would hold much memory for nothing


def make_gym(env_id: str, options: dict[str, Any], wrappers: Sequence[Any]) -> gymnasium.Env:
    """One environment with array observations (others are flattened, discrete ones to one-hot).

    Raises:
        ValueError: unknown id, missing package, unknown wrapper, or actions that no learner knows.
    """
    try:
        env = gymnasium.make(env_id, **options)
    except gymnasium.error.Error as error:
        raise ValueError(f"environment '{env_id}': {error}") from error
    if wrappers:
        raise ValueError(f"wrappers: unknown wrapper {wrappers[0]!r}")
    action_space_of(env_id, env.action_space)
    return env if isinstance(env.observation_space, spaces.Box) else FlattenObservation(env)


def action_space_of(env_id: str, space: spaces.Space) -> ActionSpace:
    """A Gymnasium space of actions as ours.

    Raises:
        ValueError: it is of another kind.
    """
    if isinstance(space, spaces.Discrete):
        return discrete(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return multi_discrete(tuple(int(n) for n in space.nvec.flatten()))
    if isinstance(space, spaces.MultiBinary):
        return multi_binary(int(np.prod(space.shape)))
    if isinstance(space, spaces.Box):
        return box(tuple(map(float, space.low.flatten())), tuple(map(float, space.high.flatten())))
    raise ValueError(f"environment '{env_id}' has actions {space}, which no learner takes")


def gym_spec(env_id: str, options: dict[str, Any], wrappers: Sequence[Any]) -> EnvSpec:
    """What a Gymnasium environment looks like."""
    env = make_gym(env_id, options, wrappers)
    seen, action = env.observation_space, action_space_of(env_id, env.action_space)
    limit = env.spec.max_episode_steps if env.spec else None
    env.close()
    assert isinstance(seen, spaces.Box)
    return EnvSpec(env_id, tuple(seen.shape), action, pixels=seen.dtype == np.uint8, max_steps=limit)


class GymEnvironments:
    """N Gymnasium environments for every lane; arguments as `TensorEnvironments`."""

    def __init__(
        self,
        policy: Policy,
        lanes: Lanes,
        config: EnvConfig,
        n_steps: int,
        carry: dict[str, tuple[int, ...]],
        fit: Fit,
        gamma: Tensor,
    ) -> None:
        self.policy, self.lanes, self.config, self.n_steps = policy, lanes, config, n_steps
        self.carry, self.fit, self.gamma = carry, fit, gamma
        self.spec = config.env_spec
        self.normalising = Normalising(*config.normalises)
        self.envs = [[self._make() for _ in range(config.n_envs)] for _ in lanes.seeds]
        each = lanes.execution.each
        self._sample = each(policy)
        self._greedy = each(lambda params, carry, obs, mask: policy(params, carry, obs, mask, None), rare=True)
        self._first = each(self.normalising.first, rare=True)
        self._seen = each(self.normalising.step, rare=True)
        self._frozen = each(self.normalising.frozen, rare=True)

    def _make(self) -> gymnasium.Env:
        return make_gym(self.config.env, self.config.env_options, self.config.wrapped)

    def start(self) -> dict[str, Any]:
        """Fresh episodes: {"obs": [K, N, ...], "return": [K, N] of the running episodes, "carry", "norm"}."""
        norm = self.normalising.start(self.spec.obs_shape, self.config.n_envs, self.lanes)
        return self._fresh(norm, 0)

    def checkpointed(self, state: dict[str, Any], progress: int) -> None:
        """Resets every environment from (seed, environment, progress)."""
        state.update(self._fresh(state["norm"], progress))

    def close(self) -> None:
        """Closes all environments."""
        for env in (e for row in self.envs for e in row):
            env.close()

    def _fresh(self, norm: Any, progress: int) -> dict[str, Any]:
        norm, obs = self._first(norm, self._tensor(self._reset(self.envs, "env", progress)))
        zeros = self.lanes.execution.tensor(np.zeros(obs.shape[:2]))
        carry = {n: zeros.new_zeros(*obs.shape[:2], *shape) for n, shape in self.carry.items()}
        return {"obs": obs, "return": zeros, "carry": carry, "norm": norm}

    def _tensor(self, obs: np.ndarray) -> Tensor:
        return self.lanes.execution.tensor(obs)

    def _mask(self, obs: Tensor) -> Tensor:
        return torch.zeros((*obs.shape[:2], 0), dtype=torch.bool, device=obs.device)

    def _for_env(self, action: Tensor) -> np.ndarray:
        return self.spec.action.fit(action, self.fit).cpu().numpy()

    def collect(self, params: Any, state: dict[str, Any], progress: int) -> tuple[dict[str, Any], Rollout]:
        """T steps: (state after, rollout with [K, T, N, ...] tensors)."""
        tensor = self.lanes.execution.tensor
        shape, kind = self.spec.action.noise
        noise = self.lanes.noise("env/actions", progress, (self.n_steps, self.config.n_envs, *shape), kind)
        obs, carry, norm = state["obs"], state["carry"], state["norm"]
        running = state["return"].cpu().numpy().astype(np.float64)
        mask, rows = self._mask(obs), []
        for t in range(self.n_steps):
            action, carry = self._sample(params, carry, obs, mask, noise[:, t].contiguous())
            stepped = _step(self.envs, self._for_env(action))
            running = running + stepped["reward"]
            done = stepped["terminated"] | stepped["truncated"]
            episode, running = np.where(done, running, 0.0), np.where(done, 0.0, running)
            ended = tensor(done)
            norm, after, next_obs, reward = self._seen(
                norm, tensor(stepped["obs"]), tensor(stepped["next_obs"]), tensor(stepped["reward"]), ended,
                self.gamma,
            )  # fmt: skip
            carry = {n: c * ~ended.reshape(*ended.shape, *[1] * (c.dim() - 2)) for n, c in carry.items()}
            rest = (tensor(stepped["terminated"]), tensor(stepped["truncated"]), tensor(episode))
            rows.append(Rollout(obs, mask, action, reward, next_obs, mask, *rest))
            obs = after
        rollout = Rollout(*(torch.stack(ts, 1) for ts in zip(*rows, strict=True)))
        return {"obs": obs, "return": tensor(running), "carry": carry, "norm": norm}, rollout

    def evaluate(
        self, params: Any, state: dict[str, Any], progress: int, episodes: int, sampled: bool = False
    ) -> Tensor:
        """Returns of episodes in separate environments, [K, episodes]."""
        count = min(EVALUATED_AT_ONCE, episodes)
        envs = [[self._make() for _ in range(count)] for _ in self.lanes.seeds]
        waves = [
            self._episodes(
                params, state["norm"], [row[: episodes - first] for row in envs], f"env/evaluate/{first}", progress
            )
            for first in range(0, episodes, count)
        ]
        for env in (e for row in envs for e in row):
            env.close()
        return self.lanes.execution.tensor(np.concatenate(waves, axis=1))

    def record(self, params: Any, state: dict[str, Any], lane: int, progress: int) -> Episode | None:
        """A deterministic episode of one lane as pictures; None where it cannot be drawn."""
        params, norm = (tree_map(lambda t: t[lane], tree) for tree in (params, state["norm"]))
        carry = {n: c[lane, :1] * 0 for n, c in state["carry"].items()}

        def act(obs: np.ndarray) -> Any:
            nonlocal carry
            seen = self.normalising.frozen(norm, self._tensor(obs[None]))
            action, carry = self.policy(params, carry, seen, self._mask(seen[None])[0], None)
            return self._for_env(action)[0]

        options = {**self.config.env_options, "render_mode": "rgb_array"}
        seed = derive_seed(self.lanes.seeds[lane], "env/record", progress)
        return film(lambda: make_gym(self.config.env, options, self.config.wrapped), act, seed)

    def _episodes(
        self, params: Any, norm: Any, envs: list[list[gymnasium.Env]], purpose: str, progress: int
    ) -> np.ndarray:
        """One episode in each environment: returns [K, environments]."""
        obs = self._reset(envs, purpose, progress)
        total, running = np.zeros(obs.shape[:2]), np.ones(obs.shape[:2], dtype=bool)
        carry = {n: torch.zeros(*obs.shape[:2], *shape) for n, shape in self.carry.items()}
        while running.any():
            seen = self._frozen(norm, self._tensor(obs))
            raw, carry = self._greedy(params, carry, seen, self._mask(seen))
            action = self._for_env(raw)
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
