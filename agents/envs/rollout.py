"""Environments of a cohort: the same calls for tensor environments and for Gymnasium's."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from agents.envs.catalogue import tensor_env
from agents.envs.config import EnvConfig
from agents.envs.gym import GymEnvironments
from agents.envs.normalising import Normalising
from agents.envs.render import Episode, can_draw, draw
from agents.envs.scores import scored
from agents.envs.spaces import Fit
from agents.envs.transition import Policy, Rollout, TensorEnv, where_done
from harness.learner import Lanes, tree_map

__all__ = ["Environments", "TensorEnvironments", "evaluated", "make_environments"]

UNROLL = 8  # steps in one compiled call: more compile longer and gain nothing
BLOCK = 32  # steps of an evaluation whose noise is drawn at once


class Environments(Protocol):
    """N environments for every lane."""

    def start(self) -> dict[str, Any]:
        """The environments' part of the state at progress 0."""
        ...

    def collect(self, params: Any, state: dict[str, Any], progress: int) -> tuple[dict[str, Any], Rollout]:
        """T steps: (state after, rollout with [K, T, N, ...] tensors)."""
        ...

    def evaluate(
        self, params: Any, state: dict[str, Any], progress: int, episodes: int, sampled: bool = False
    ) -> Tensor:
        """Returns of episodes in separate environments, [K, episodes]; what normalises observations is frozen."""
        ...

    def record(self, params: Any, state: dict[str, Any], lane: int, progress: int) -> Episode | None:
        """A deterministic episode of one lane as pictures; None where it cannot be drawn."""
        ...

    def checkpointed(self, state: dict[str, Any], progress: int) -> None:
        """Called after every checkpoint and after restoring one: what cannot be saved starts anew."""
        ...

    def close(self) -> None:
        """Ends processes and windows."""
        ...


class TensorEnvironments:
    """Environments that are tensors: their whole state is in the state tree.

    Args:
        env: the environment.
        policy: a function of one trial.
        lanes: the cohort.
        config: of the cohort.
        n_steps: T, steps of a rollout.
        carry: shapes of a recurrent policy's memory by name; {} for none.
        fit: how a box's actions reach the environment.
        gamma: discount [K], for normalised rewards.
    """

    def __init__(
        self,
        env: TensorEnv,
        policy: Policy,
        lanes: Lanes,
        config: EnvConfig,
        n_steps: int,
        carry: dict[str, tuple[int, ...]],
        fit: Fit,
        gamma: Tensor,
    ) -> None:
        self.env, self.policy, self.lanes, self.config, self.n_steps = env, policy, lanes, config, n_steps
        self.carry, self.fit, self.gamma = carry, fit, gamma
        self.normalising = Normalising(*config.normalises)
        self.unroll = next(u for u in range(min(UNROLL, n_steps), 0, -1) if n_steps % u == 0)
        self._begin = lanes.execution.each(self._begin_of_one, rare=True)
        self._steps = lanes.execution.scan(self._some_steps)
        self._evaluated = lanes.execution.each(self._evaluated_step, rare=True)

    def start(self) -> dict[str, Any]:
        """Fresh episodes: {"env", "obs" as the policy sees it, "return" of the running episodes, "carry", "norm"}."""
        noise = self.lanes.noise("env/start", 0, (self.config.n_envs, *self.env.reset_shape), "uniform")
        norm = self.normalising.start(self.env.obs_shape, self.config.n_envs, self.lanes)
        return self._begin(noise, norm)

    def collect(self, params: Any, state: dict[str, Any], progress: int) -> tuple[dict[str, Any], Rollout]:
        """T steps: (state after, rollout with [K, T, N, ...] tensors)."""
        noise = self._noise("env", progress, self.n_steps, self.config.n_envs)
        resets = self.lanes.noise(
            "env/resets", progress, (self.n_steps, self.config.n_envs, *self.env.reset_shape), "uniform"
        )
        drawn = zip(*(n.split(self.unroll, 1) for n in (*noise, resets)), strict=True)
        state, parts = self._steps(state, drawn, params, self.gamma)
        return state, Rollout(*(torch.cat(tensors, 1) for tensors in zip(*parts, strict=True)))

    def evaluate(
        self, params: Any, state: dict[str, Any], progress: int, episodes: int, sampled: bool = False
    ) -> Tensor:
        """Returns of episodes in separate environments, [K, episodes]; what normalises observations is frozen."""
        purpose = "env/evaluate-sampled" if sampled else "env/evaluate"
        noise = self.lanes.noise(purpose, progress, (episodes, *self.env.reset_shape), "uniform")
        env = self.env.reset(noise)
        carry = self._no_carry(noise, 2)
        total = torch.zeros_like(noise.flatten(2)[..., 0])
        running = torch.ones_like(total)
        for t in range(self.env.max_steps):
            if t % BLOCK == 0:
                actions, steps = self._noise(f"{purpose}/{t // BLOCK}", progress, BLOCK, episodes)
            before = (params, state["norm"], env, carry, total, running, steps[:, t % BLOCK])
            drawn = (actions[:, t % BLOCK],) if sampled else ()
            env, carry, total, running = self._evaluated(*before, *drawn)
            if not running.any():
                break
        return total

    def record(self, params: Any, state: dict[str, Any], lane: int, progress: int) -> Episode | None:
        """A deterministic episode of one lane as pictures; None where it cannot be drawn."""
        if not can_draw(self.config.env, self.env):
            return None
        params, norm = (tree_map(lambda t: t[lane], tree) for tree in (params, state["norm"]))
        noise = self.lanes.noise("env/record", progress, (1, *self.env.reset_shape), "uniform")[lane]
        _, steps = self._noise("env/record", progress, self.env.max_steps, 1)
        env, carry = self.env.reset(noise), self._no_carry(noise, 1)
        total, running, states = noise.new_zeros(1), noise.new_ones(1), []
        while running.any():
            states.append(tree_map(lambda t: t[0], env))
            env, carry, total, running = self._evaluated_step(
                params, norm, env, carry, total, running, steps[lane, len(states) - 1]
            )
        return draw(self.config.env, self.env, states, float(total))

    def checkpointed(self, state: dict[str, Any], progress: int) -> None:
        """Nothing starts anew: the state tree holds all."""

    def close(self) -> None:
        """Nothing to end."""

    def _noise(self, purpose: str, progress: int, steps: int, rows: int) -> tuple[Tensor, Tensor]:
        """Noise of actions and of steps, [K, steps, rows, ...] each."""
        shape, kind = self.env.action.noise
        actions = self.lanes.noise(f"{purpose}/actions", progress, (steps, rows, *shape), kind)
        if 0 in self.env.step_shape:
            return actions, actions.new_zeros(len(self.lanes), steps, rows, 0)
        return actions, self.lanes.noise(
            f"{purpose}/steps", progress, (steps, rows, *self.env.step_shape), "uniform"
        )

    def _no_carry(self, like: Tensor, leading: int) -> dict[str, Tensor]:
        """A recurrent policy's memory before the first step: zeros."""
        return {name: like.new_zeros(*like.shape[:leading], *shape) for name, shape in self.carry.items()}

    # Functions of one trial

    def _begin_of_one(self, noise: Tensor, norm: Any) -> dict[str, Any]:
        """The state of N fresh environments."""
        env = self.env.reset(noise)
        norm, obs = self.normalising.first(norm, self.env.observe(env))
        zeros = noise.new_zeros(self.config.n_envs)
        return {"env": env, "obs": obs, "return": zeros, "carry": self._no_carry(noise, 1), "norm": norm}

    def _some_steps(
        self, state: Any, noise: tuple[Tensor, Tensor, Tensor], params: Any, gamma: Tensor
    ) -> tuple[Any, Rollout]:
        """`unroll` steps, from noise of actions, steps and resets."""
        rows, (actions, steps, resets) = [], noise
        for t in range(self.unroll):
            state, row = self._one_step(params, state, actions[t], steps[t], resets[t], gamma)
            rows.append(row)
        return state, Rollout(*(torch.stack(ts) for ts in zip(*rows, strict=True)))

    def _one_step(
        self, params: Any, state: Any, action_noise: Tensor, step_noise: Tensor, reset_noise: Tensor, gamma: Tensor
    ) -> tuple[Any, Rollout]:
        """One step of N environments; finished ones start anew at once."""
        env, obs = state["env"], state["obs"]
        mask = self._mask(env)
        action, carry = self.policy(params, state["carry"], obs, mask, action_noise)
        after, step = self.env.step(env, self.env.action.fit(action, self.fit), step_noise)
        done = step.terminated | step.truncated
        next_mask = self._mask(after)
        fresh = self.env.reset(reset_noise)
        observed = where_done(done, {"obs": self.env.observe(fresh)}, {"obs": step.next_obs})["obs"]
        running = state["return"] + step.reward
        norm, obs_after, next_obs, reward = self.normalising.step(
            state["norm"], observed, step.next_obs, step.reward, done, gamma
        )
        following = {
            "env": where_done(done, fresh, after),
            "obs": obs_after,
            "return": torch.where(done, 0.0, running),
            "carry": where_done(done, {n: torch.zeros_like(c) for n, c in carry.items()}, carry),
            "norm": norm,
        }
        episode = torch.where(done, running, 0.0)
        return following, Rollout(
            obs, mask, action, reward, next_obs, next_mask, step.terminated, step.truncated, episode
        )

    def _mask(self, env: Any) -> Tensor:
        """Allowed actions [N, A], or [N, 0] where the environment gives no masks."""
        if self.env.masked:
            return self.env.mask(env)
        first = next(iter(env.values()))
        return torch.zeros((first.shape[0], 0), dtype=torch.bool, device=first.device)

    def _evaluated_step(
        self,
        params: Any,
        norm: Any,
        env: Any,
        carry: Any,
        total: Tensor,
        running: Tensor,
        step_noise: Tensor,
        action_noise: Tensor | None = None,
    ) -> Any:
        """One step; finished episodes no longer count."""
        obs = self.normalising.frozen(norm, self.env.observe(env))
        action, carry = self.policy(params, carry, obs, self._mask(env), action_noise)
        env, step = self.env.step(env, self.env.action.fit(action, self.fit), step_noise)
        total = total + torch.where(running > 0, step.reward, 0.0)
        return env, carry, total, running * (~(step.terminated | step.truncated)).to(running.dtype)


def make_environments(
    policy: Policy,
    lanes: Lanes,
    n_steps: int,
    fit: Fit = "clip",
    carry: dict[str, tuple[int, ...]] | None = None,
    gamma: Tensor | None = None,
) -> Environments:
    """The environments of a cohort, `config.n_envs` a lane.

    Args:
        policy: a function of one trial, see `transition.Policy`.
        lanes: the cohort; its configurations are `EnvConfig`s.
        n_steps: T, steps of one `collect`.
        fit: whether a box's actions are clipped to it or scaled to it from [-1, 1].
        carry: shapes of a recurrent policy's memory by name, of one environment.
        gamma: discount [K], for normalised rewards; 0.99 where none is given.
    """
    config = lanes.config
    discount = lanes.execution.tensor([0.99] * len(lanes)) if gamma is None else gamma
    rest = (policy, lanes, config, n_steps, carry or {}, fit, discount)
    own = tensor_env(config.env, config.env_options, config.wrapped)
    return GymEnvironments(*rest) if own is None else TensorEnvironments(own, *rest)


def evaluated(
    envs: Environments, config: EnvConfig, params: Any, state: dict[str, Any], progress: int
) -> dict[str, Tensor]:
    """What a learner's `evaluate` gives: see `scored`; "sampled_return" too where it is asked for.

    Args:
        envs: of the cohort.
        config: of the cohort.
        params: what the policy takes.
        state: the environments' part of the state.
        progress: of the cohort.
    """
    found = scored(config, envs.evaluate(params, state, progress, config.eval_episodes))
    if config.eval_sampled_episodes:
        found["sampled_return"] = envs.evaluate(params, state, progress, config.eval_sampled_episodes, sampled=True)
    return found
