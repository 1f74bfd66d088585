"""Environments of a cohort: the same four calls for tensor environments and for Gymnasium's.

A policy is a function of one trial: `act(params, obs [N, ...], u [N]) -> action [N]`, where u is uniform
noise, or None for the deterministic action.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from agents.envs.cartpole import CartPole
from agents.envs.gym import GymEnvironments, gym_space
from agents.envs.transition import Act, Rollout, TensorEnv
from harness.learner import Lanes

__all__ = ["TENSOR_ENVS", "Environments", "TensorEnvironments", "make_environments", "space_of"]


TENSOR_ENVS: dict[str, TensorEnv] = {"CartPole-v1": CartPole()}
UNROLL = 8  # steps in one compiled call: more compile longer and gain nothing


class Environments(Protocol):
    """N environments for every lane."""

    obs_shape: tuple[int, ...]
    actions: int

    def start(self) -> dict[str, Any]:
        """The environments' part of the state at progress 0."""
        ...

    def collect(self, params: Any, state: dict[str, Any], progress: int) -> tuple[dict[str, Any], Rollout]:
        """T steps: (state after, rollout with [K, T, N, ...] tensors)."""
        ...

    def evaluate(self, params: Any, progress: int, episodes: int) -> Tensor:
        """Returns of deterministic episodes in separate environments, [K, episodes]."""
        ...

    def checkpointed(self, state: dict[str, Any], progress: int) -> None:
        """Called after every checkpoint and after restoring one: what cannot be saved starts anew."""
        ...


class TensorEnvironments:
    """Environments that are tensors: their whole state is in the state tree.

    Args:
        env: the environment.
        act: the policy, a function of one trial.
        lanes: the cohort.
        n_envs: environments a lane.
        n_steps: steps of a rollout.
    """

    def __init__(self, env: TensorEnv, act: Act, lanes: Lanes, n_envs: int, n_steps: int) -> None:
        self.env, self.act, self.lanes, self.n_envs, self.n_steps = env, act, lanes, n_envs, n_steps
        self.obs_shape, self.actions = env.obs_shape, env.actions
        self.unroll = next(u for u in range(min(UNROLL, n_steps), 0, -1) if n_steps % u == 0)
        self._steps = lanes.execution.each(self._some_steps)
        self._greedy = lanes.execution.each(self._greedy_step, rare=True)

    def start(self) -> dict[str, Any]:
        """Fresh episodes: {"env": ..., "return": [K, N] of the running episodes}."""
        noise = self.lanes.noise("env/start", 0, (self.n_envs, *self.env.reset_shape), "uniform")
        return {"env": self.env.reset(noise), "return": torch.zeros_like(noise.flatten(2)[..., 0])}

    def collect(self, params: Any, state: dict[str, Any], progress: int) -> tuple[dict[str, Any], Rollout]:
        """T steps: (state after, rollout with [K, T, N, ...] tensors)."""
        shape = (self.n_steps, self.n_envs)
        u = self.lanes.noise("env/actions", progress, shape, "uniform")
        resets = self.lanes.noise("env/resets", progress, (*shape, *self.env.reset_shape), "uniform")
        parts = []
        for u_part, resets_part in zip(u.split(self.unroll, 1), resets.split(self.unroll, 1), strict=True):
            state, part = self._steps(params, state, u_part.contiguous(), resets_part.contiguous())
            parts.append(part)
        return state, Rollout(*(torch.cat(tensors, 1) for tensors in zip(*parts, strict=True)))

    def evaluate(self, params: Any, progress: int, episodes: int) -> Tensor:
        """Returns of deterministic episodes in separate environments, [K, episodes]."""
        noise = self.lanes.noise("env/evaluate", progress, (episodes, *self.env.reset_shape), "uniform")
        env = self.env.reset(noise)
        total = torch.zeros_like(noise.flatten(2)[..., 0])
        running = torch.ones_like(total)
        for _ in range(self.env.max_steps):
            env, total, running = self._greedy(params, env, total, running, noise)
            if not running.any():
                break
        return total

    def checkpointed(self, state: dict[str, Any], progress: int) -> None:
        """Nothing starts anew: the state tree holds all."""

    def _some_steps(self, params: Any, state: Any, u: Tensor, resets: Tensor) -> tuple[Any, Rollout]:
        """`unroll` steps of one trial."""
        env, running = state["env"], state["return"]
        rows = []
        for t in range(self.unroll):
            obs = self.env.observe(env)
            action = self.act(params, obs, u[t])
            env, step = self.env.step(env, action, resets[t])
            running = running + step.reward
            done = step.terminated | step.truncated
            episode = torch.where(done, running, 0.0)
            running = torch.where(done, 0.0, running)
            rows.append(
                Rollout(obs, action, step.reward, step.next_obs, step.terminated, step.truncated, episode)
            )
        return {"env": env, "return": running}, Rollout(*(torch.stack(ts) for ts in zip(*rows, strict=True)))

    def _greedy_step(self, params: Any, env: Any, total: Tensor, running: Tensor, noise: Tensor) -> Any:
        """One deterministic step of one trial; finished episodes no longer count."""
        env, step = self.env.step(env, self.act(params, self.env.observe(env), None), noise)
        total = total + running * step.reward
        return env, total, running * (~(step.terminated | step.truncated)).to(running.dtype)


def space_of(env: str) -> tuple[tuple[int, ...], int]:
    """(shape of an observation, number of actions) of an environment.

    Raises:
        ValueError: Gymnasium does not know the id, or its actions are not discrete.
    """
    if env in TENSOR_ENVS:
        return TENSOR_ENVS[env].obs_shape, TENSOR_ENVS[env].actions
    return gym_space(env)


def make_environments(env: str, act: Act, lanes: Lanes, n_envs: int, n_steps: int) -> Environments:
    """The environments of a cohort: ours as tensors where there is one, else Gymnasium's."""
    if env in TENSOR_ENVS:
        return TensorEnvironments(TENSOR_ENVS[env], act, lanes, n_envs, n_steps)
    return GymEnvironments(env, act, lanes, n_envs, n_steps)
