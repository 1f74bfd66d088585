"""Environments as stable-baselines3 takes them: Gymnasium's, ours by an adapter, vectorised, with frozen evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from sb3_contrib import MaskablePPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecNormalize,
    VecTransposeImage,
    is_vecenv_wrapped,
    unwrap_vec_normalize,
)

from agents.envs.catalogue import tensor_env
from agents.envs.config import MOST_STEPS, EnvConfig
from agents.envs.making import make_gym
from agents.envs.spaces import ActionSpace
from agents.envs.transition import TensorEnv
from harness.learner import Lanes
from harness.randomness import derive_seed

__all__ = ["TensorGym", "check_named", "episodes", "make_env", "vectorised"]

GOALS = {"achieved_goal", "desired_goal", "observation"}  # what a goal environment observes

EVALUATED_AT_ONCE = 10  # as our own learners do, see agents.envs.gym


class TensorGym(gymnasium.Env):
    """One of our tensor environments that Gymnasium has not, as a Gymnasium environment."""

    def __init__(self, env: TensorEnv) -> None:
        self.env = env
        self.observation_space = spaces.Box(-np.inf, np.inf, env.obs_shape, np.float32)
        self.action_space = _gym_space(env.action)
        if env.masked:
            self.action_masks = self._masks

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """A fresh episode."""
        super().reset(seed=seed)
        self.state: Any = self.env.reset(self._noise(self.env.reset_shape))
        return self.env.observe(self.state).float().numpy(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """One step."""
        kind = torch.float32 if self.env.action.kind in ("box", "multi-binary") else torch.int64
        taken = torch.as_tensor(np.asarray(action)).to(kind)
        self.state, step = self.env.step(self.state, taken, self._noise(self.env.step_shape))
        return step.next_obs.float().numpy(), float(step.reward), bool(step.terminated), bool(step.truncated), {}

    def _masks(self) -> np.ndarray:
        return self.env.mask(self.state).numpy()

    def _noise(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.as_tensor(self.np_random.random(shape, dtype=np.float32))


def make_env(config: EnvConfig, evaluating: bool = False, named: bool = False) -> gymnasium.Env:
    """One environment: Gymnasium's of that id, or ours where it has none.

    Args:
        config: says which.
        evaluating: without wrappers that would falsify a score.
        named: keeps observations by name as they are.

    Raises:
        ValueError: see `agents.envs.making.make_gym`.
    """
    own = tensor_env(config.env, config.env_options, config.wrapped)
    if own is not None and config.env not in gymnasium.registry:
        return TensorGym(own)
    return make_gym(config.env, config.env_options, config.wrapped, evaluating, named)


def vectorised(
    config: EnvConfig, n_envs: int, gamma: float, most: int | None = None, named: bool = False
) -> VecEnv:
    """So many environments with episode statistics, normalised as the configuration says.

    Args:
        config: says which.
        n_envs: how many.
        gamma: discount, for normalised rewards.
        most: steps after which an episode is cut off; None for as long as it lasts.
        named: as in `make_env`.
    """

    def make() -> gymnasium.Env:
        env = make_env(config, named=named)
        return Monitor(env if most is None else TimeLimit(env, most))

    envs: VecEnv = DummyVecEnv([make] * n_envs)
    observations, rewards = config.normalises
    if observations or rewards:
        envs = VecNormalize(envs, norm_obs=observations, norm_reward=rewards, gamma=gamma)
    return envs


def check_named(space: spaces.Space, env: str, goals: bool) -> None:
    """Raises ValueError where observations by name are asked for and there are none that a policy could take."""
    if not isinstance(space, spaces.Dict):
        what = f"the observations of '{env}' have no names"
        raise ValueError(f"policy: {what}, which MultiInputPolicy needs; take another")
    odd = [name for name, part in space.spaces.items() if not isinstance(part, spaces.Box) or len(part.shape) != 1]
    if odd:
        raise ValueError(f"policy: MultiInputPolicy takes vectors by name; `{odd[0]}` of '{env}' is {space[odd[0]]}")
    if goals and set(space.spaces) != GOALS:
        both = f"needs {', '.join(sorted(GOALS))}; '{env}' has {', '.join(space.spaces)}"
        raise ValueError(f"hyper.replay_buffer_class: HerReplayBuffer {both}")


def episodes(model: BaseAlgorithm, lanes: Lanes, progress: int, count: int, sampled: bool = False) -> np.ndarray:
    """Returns [count] of episodes in separate environments, seeded from (seed, episode, progress); moments are frozen.

    Args:
        model: the agent.
        lanes: one trial, whose configuration says how long an episode may last.
        progress: where in training.
        count: how many.
        sampled: whether actions are drawn as in training.
    """
    config: EnvConfig = lanes.config
    named = isinstance(model.observation_space, spaces.Dict)
    envs = [make_env(config, evaluating=True, named=named) for _ in range(min(EVALUATED_AT_ONCE, count))]
    purpose = "env/evaluate-sampled" if sampled else "env/evaluate"
    random_actions = model.action_space.np_random.bit_generator
    before, found = random_actions.state, []

    def cut() -> None:
        config.tell_cut(lanes.warnings)

    for first in range(0, count, len(envs)):
        some = envs[: count - first]
        seeds = [derive_seed(lanes.seeds[0], f"{purpose}/{first}/{n}", progress) for n in range(len(some))]
        found.append(_returns(model, some, seeds, sampled, config.cut_after, lanes.heed, cut))
    random_actions.state = before  # epsilon-greedy policies draw from the space that training draws from
    for env in envs:
        env.close()
    return np.concatenate(found)


def _returns(
    model: Any,
    envs: list[gymnasium.Env],
    seeds: list[int],
    sampled: bool,
    most: int | None = MOST_STEPS,
    heed: Callable[[], None] = lambda: None,
    cut: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """One episode in each environment, of at most so many steps: returns [environments].

    `heed` is called at every step, `cut` where an episode is cut off.
    """
    rows = [env.reset(seed=seed)[0] for env, seed in zip(envs, seeds, strict=True)]
    total, running = np.zeros(len(envs)), np.ones(len(envs), dtype=bool)
    carry, begins = None, np.ones(len(envs), dtype=bool)
    masked = isinstance(model, MaskablePPO)
    allowed: list[Any] = [None] * len(envs)  # what stands behind an end is no mask
    steps = 0
    while running.any():
        if steps == most:
            cut()
            break
        heed()
        steps += 1
        for n in np.flatnonzero(running & masked):
            allowed[n] = envs[n].get_wrapper_attr("action_masks")()
        masks = {"action_masks": np.stack(allowed)} if masked else {}
        actions, carry = model.predict(
            _seen(model, rows), state=carry, episode_start=begins, deterministic=not sampled, **masks
        )
        begins = np.zeros(len(envs), dtype=bool)
        for n in np.flatnonzero(running):
            rows[n], reward, terminated, truncated, _ = envs[n].step(actions[n])
            total[n] += float(reward)
            running[n] = not (terminated or truncated)
    return total


def _seen(model: BaseAlgorithm, rows: list[Any]) -> Any:
    """Observations as the policy sees them."""
    obs: Any = {k: np.stack([r[k] for r in rows]) for k in rows[0]} if isinstance(rows[0], dict) else np.stack(rows)
    assert model.env is not None
    moments = unwrap_vec_normalize(model.env)
    if moments is not None:
        obs = moments.normalize_obs(obs)
    if is_vecenv_wrapped(model.env, VecTransposeImage):
        obs = model.env.transpose_observations(obs)  # type: ignore[attr-defined]
    return obs


def _gym_space(action: ActionSpace) -> spaces.Space:
    if action.kind == "discrete":
        return spaces.Discrete(action.counts[0])
    if action.kind == "multi-discrete":
        return spaces.MultiDiscrete(list(action.counts))
    if action.kind == "multi-binary":
        return spaces.MultiBinary(len(action.counts))
    return spaces.Box(np.array(action.low, np.float32), np.array(action.high, np.float32))
