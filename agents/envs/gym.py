"""Any Gymnasium environment, stepped in numpy, behind the calls of `Environments`.

Such an environment's state cannot be saved. At every checkpoint, and after restoring one, all environments
are reset from a seed of (trial seed, environment, progress): an interrupted run and an uninterrupted one then
see the same numbers. It costs the episodes that were running: they count for no return, and where episodes are longer
than the way between two checkpoints, their ends are never seen; their value is bootstrapped, so what they earned is not
lost to learning. `exact: false` lets them run on, and a resumed run then differs from an uninterrupted one.

Environments are made by `making`, stepped by `stepping`, in this process or in `processes`, and checked by `vector`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from agents.envs.describing import description_of
from agents.envs.making import is_trusted, make_gym
from agents.envs.masks import allowed
from agents.envs.normalising import Normalising
from agents.envs.processes import Processes
from agents.envs.render import Episode, film
from agents.envs.spaces import ActionSpace, EnvSpec, Fit
from agents.envs.stepping import Layout
from agents.envs.transition import Policy, Rollout
from agents.envs.vector import Engine, InProcess, Stepped, Vector
from harness.learner import LaneError, Lanes, tree_map
from harness.randomness import derive_seed

if TYPE_CHECKING:
    from agents.envs.config import EnvConfig

__all__ = ["GymEnvironments", "gym_spec", "make_gym"]

EVALUATED_AT_ONCE = 10  # environments a lane; 100 of each would hold much memory for nothing
BLOCK = 32  # steps of an evaluation whose noise is drawn at once


def gym_spec(env_id: str, options: dict[str, Any], wrappers: Sequence[Any]) -> EnvSpec:
    """What a Gymnasium environment looks like.

    Raises:
        ValueError: there is no such environment, a package is missing, it breaks Gymnasium's rules, or no learner could
            take it.
    """
    found = description_of(env_id, options, wrappers)
    sizes = [tuple(found["action"].get(name, ())) for name in ("counts", "low", "high")]
    action = ActionSpace(found["action"]["kind"], *sizes)
    shape, pixels = tuple(found["obs_shape"]), found["obs_dtype"] == "uint8"
    observed = found["mask_observed"]
    return EnvSpec(env_id, shape, action, found["masked"], observed, pixels=pixels, max_steps=found["max_steps"])


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
        self.normalising = Normalising(*config.normalises, dtype=lanes.execution.dtype)
        each = lanes.execution.each
        self._sample = each(policy)
        self._greedy = each(lambda params, carry, obs, mask: policy(params, carry, obs, mask, None), rare=True)
        self._first = each(self.normalising.first, rare=True)
        self._seen = each(self.normalising.step, rare=True)
        self._frozen = each(self.normalising.frozen, rare=True)
        evaluated = min(EVALUATED_AT_ONCE, max(config.eval_episodes, config.eval_sampled_episodes))
        self.per_lane = config.n_envs + evaluated
        self.rows = np.arange(len(lanes) * self.per_lane).reshape(len(lanes), self.per_lane)
        self.replaced = np.zeros(len(lanes), dtype=int)
        self.stepped = False
        self._mask_now: Tensor  # allowed actions [K, N, A]: environments restored from a checkpoint are always reset
        found = description_of(config.env, config.env_options, config.wrapped)
        bounds = [np.array(found[n]) for n in ("low", "high")]
        low, high = (b.reshape(self.spec.obs_shape) if b.ndim else b for b in bounds)
        self.vector = Vector(self._engine(found), self.per_lane, (low, high), self._name, self._lost, self._lied)

    def start(self) -> dict[str, Any]:
        """Fresh episodes: {"obs": [K, N, ...], "return": [K, N] of the running episodes, "carry", "norm"}."""
        norm = self.normalising.start(self.spec.obs_shape, self.config.n_envs, self.lanes)
        return self._fresh(norm, 0)

    def checkpointed(self, state: dict[str, Any], progress: int) -> None:
        """Resets every environment from (seed, environment, progress); with `exact: false` only after restoring."""
        if self.config.exact or not self.stepped:
            state.update(self._fresh(state["norm"], progress))

    def close(self) -> None:
        """Closes all environments and ends their processes."""
        self.vector.close()

    def collect(self, params: Any, state: dict[str, Any], progress: int) -> tuple[dict[str, Any], Rollout]:
        """T steps: (state after, rollout with [K, T, N, ...] tensors)."""
        self.stepped = True
        rows = self.rows[:, : self.config.n_envs]
        shape, kind = self.spec.action.noise
        noise = self.lanes.noise("env/actions", progress, (self.n_steps, self.config.n_envs, *shape), kind)
        obs, mask, carry, norm = state["obs"], self._mask_now, state["carry"], state["norm"]
        running = state["return"].cpu().numpy().astype(np.float64)
        seen, told = [], []
        for t in range(self.n_steps):
            action, carry = self._sample(params, carry, obs, mask, noise[:, t].contiguous())
            step = self._step(rows, action)
            done = step.terminated | step.truncated
            running = running + step.reward
            told.append((step.terminated, step.truncated, np.where(done, running, 0.0)))
            running = np.where(done, 0.0, running)
            carry = self._keep(carry, done)
            norm, after, next_obs, reward = self._normalised(norm, step, done)
            next_mask = self._tensor(step.next_mask)
            seen.append((obs, mask, action, reward, next_obs, next_mask))
            obs = after
            mask = next_mask if step.mask is step.next_mask else self._tensor(step.mask)
        self._mask_now = mask
        tensors = [torch.stack(ts, 1) for ts in zip(*seen, strict=True)]
        arrays = [self._tensor(np.stack(values, 1)) for values in zip(*told, strict=True)]
        after_all = {"obs": obs, "return": self._tensor(running), "carry": carry, "norm": norm}
        return after_all, Rollout(*tensors, *arrays)

    def evaluate(
        self, params: Any, state: dict[str, Any], progress: int, episodes: int, sampled: bool = False
    ) -> Tensor:
        """Returns of episodes in separate environments, [K, episodes]; what normalises observations is frozen.

        Episodes play side by side; an environment that has finished one takes the next. An episode whose environment is
        lost begins anew.
        """
        purpose = "env/evaluate-sampled" if sampled else "env/evaluate"
        limit = self.config.cut_after
        count = min(self.per_lane - self.config.n_envs, episodes)
        rows = self.rows[:, self.config.n_envs : self.config.n_envs + count]
        episode = np.tile(np.arange(count), (len(self.lanes), 1))  # which one an environment plays
        begun = np.full(len(self.lanes), count)
        total, steps = np.zeros(rows.shape), np.zeros(rows.shape, dtype=int)
        playing = np.ones(rows.shape, dtype=bool)
        returns = np.zeros((len(self.lanes), episodes))
        obs, mask = self._reset(rows, episode, purpose, progress)
        carry = self._no_carry(self._tensor(total))
        t = 0
        while playing.any():
            self.lanes.heed()
            when = (purpose, progress, t)
            raw, carry = self._evaluated_actions(params, state["norm"], carry, obs, mask, when, sampled)
            step = self.vector.step(rows[playing], self._for_env(raw)[playing])
            obs[playing], mask[playing] = step.obs, step.mask
            total[playing] += step.reward
            steps[playing] += 1
            again, ended = np.zeros(rows.shape, dtype=bool), np.zeros(rows.shape, dtype=bool)
            again[playing] = step.replaced
            ended[playing] = (step.terminated | step.truncated) & ~step.replaced
            if limit is not None:
                cut = playing & ~again & ~ended & (steps >= limit)
                ended |= cut
                if cut.any():
                    self.config.tell_cut(self.lanes.warnings)
            for k, n in np.argwhere(ended):
                returns[k, episode[k, n]] = total[k, n]
                playing[k, n], episode[k, n], begun[k] = begun[k] < episodes, begun[k], begun[k] + 1
            fresh = ended & playing
            if fresh.any():
                obs[fresh], mask[fresh] = self._reset(rows, episode, purpose, progress, fresh)
            over = ended | again
            total[over], steps[over] = 0.0, 0
            carry = self._keep(carry, over)
            t += 1
        return self._tensor(returns)

    def record(self, params: Any, state: dict[str, Any], lane: int, progress: int) -> Episode | None:
        """A deterministic episode of one lane as pictures; None where it cannot be drawn."""
        params, norm = (tree_map(lambda t: t[lane], tree) for tree in (params, state["norm"]))
        carry = {n: torch.zeros_like(c[lane, :1]) for n, c in state["carry"].items()}
        nothing = np.zeros(0, dtype=bool)

        def act(obs: np.ndarray, env: gymnasium.Env, info: dict[str, Any]) -> Any:
            nonlocal carry
            self.lanes.heed()
            seen = self.normalising.frozen(norm, self._observed(np.asarray(obs)[None]))
            mask = allowed(env, info, self.spec.mask_width) if self.spec.masked else nothing
            action, carry = self.policy(params, carry, seen, self._tensor(np.asarray(mask)[None]), None)
            return self._for_env(action)[0]

        options = {**self.config.env_options, "render_mode": "rgb_array"}
        seed = derive_seed(self.lanes.seeds[lane], "env/record", progress)
        episode, cut = film(
            lambda: make_gym(self.config.env, options, self.config.wrapped, evaluating=True),
            act,
            seed,
            self.config.cut_after,
        )
        if cut:
            self.config.tell_cut(self.lanes.warnings)
        return episode

    # What the environments are

    def _engine(self, found: dict[str, Any]) -> Engine:
        config, n = self.config, self.config.n_envs
        workers = config.env_workers
        if workers is None:
            workers = 0 if is_trusted(config.env, config.wrapped) else 1
        layout = Layout(
            self.rows.size,
            self.spec.obs_shape,
            found["obs_dtype"],
            self.spec.action.shape,
            found["action_dtype"],
            self.spec.mask_width,
        )
        evaluating = set(self.rows[:, n:].flatten().tolist())
        of = (config.env, config.env_options, config.wrapped)
        if workers == 0:
            return InProcess(layout, evaluating, of)
        shares = [[*row[:n][w::workers], *row[n:][w::workers]] for row in self.rows.tolist() for w in range(workers)]
        return Processes(layout, [share for share in shares if share], evaluating, of, config.env_timeout)

    def _name(self, row: int) -> str:
        lane, number = divmod(row, self.per_lane)
        kind = "training" if number < self.config.n_envs else "evaluation"
        number -= 0 if kind == "training" else self.config.n_envs
        return f"environment '{self.config.env}' ({kind} {number} of the trial with seed {self.lanes.seeds[lane]})"

    def _lost(self, lane: int, sentence: str) -> None:
        """A process hung or died: another one takes its place, or the lane ends."""
        if self.replaced[lane] == self.config.env_restarts:
            allowed = self.config.env_restarts
            raise LaneError([lane], f"{sentence}; env_restarts = {allowed} allows no further replacement")
        self.replaced[lane] += 1
        self.lanes.notes.append(f"{sentence}; it is replaced, and the episodes that ran in its process are cut off")

    def _lied(self, row: int, what: str) -> None:
        """An environment left the box that it declares: said once a run, and training goes on."""
        sentence = f"{self._name(row)} {what}: the space that it declares is wrong; training goes on"
        self.lanes.warnings[f"space {self.config.env}"] = sentence

    # Resets and steps, with lanes

    def _fresh(self, norm: Any, progress: int) -> dict[str, Any]:
        rows = self.rows[:, : self.config.n_envs]
        seen, mask = self._reset(rows, np.tile(np.arange(rows.shape[1]), (len(rows), 1)), "env", progress)
        norm, obs = self._first(norm, self._observed(seen))
        self._mask_now = self._tensor(mask)
        zeros = self._tensor(np.zeros(rows.shape))
        return {"obs": obs, "return": zeros, "carry": self._no_carry(zeros), "norm": norm}

    def _reset(
        self, rows: np.ndarray, numbers: np.ndarray, purpose: str, progress: int, which: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Resets environments, each from a seed of (trial seed, purpose, its number, progress).

        Args:
            rows: [K, B].
            numbers: of the environment or the episode, [K, B].
            purpose: what the seeds are for.
            progress: of the cohort.
            which: bool [K, B]; None for all.

        Returns:
            observations and masks, [K, B, ...], or [chosen, ...] with `which`.
        """
        chosen = np.ones(rows.shape, dtype=bool) if which is None else which
        seeds = [
            derive_seed(self.lanes.seeds[k], f"{purpose}/{numbers[k, n]}", progress) for k, n in np.argwhere(chosen)
        ]
        obs, mask = self.vector.reset(rows[chosen], seeds)
        if which is not None:
            return obs, mask
        return obs.reshape(*rows.shape, *obs.shape[1:]), mask.reshape(*rows.shape, -1)

    def _step(self, rows: np.ndarray, action: Tensor) -> Stepped:
        """One step of all `rows` [K, B]: [K, B, ...] arrays."""
        actions = self._for_env(action)
        step = self.vector.step(rows.reshape(-1), actions.reshape(rows.size, *actions.shape[2:]))
        same = step.next_obs is step.obs
        shaped = [a.reshape(*rows.shape, *a.shape[1:]) for a in step]
        if same:
            shaped[1], shaped[3] = shaped[0], shaped[2]
        return Stepped(*shaped)

    def _normalised(self, norm: Any, step: Stepped, done: np.ndarray) -> tuple[Any, Tensor, Tensor, Tensor]:
        """(moments, obs, next_obs, reward) as the learner sees them."""
        obs = self._observed(step.obs)
        next_obs = obs if step.next_obs is step.obs else self._observed(step.next_obs)
        reward = self._tensor(step.reward)
        if not any(self.config.normalises):
            return norm, obs, next_obs, reward
        return self._seen(norm, obs, next_obs, reward, self._tensor(done), self.gamma)

    def _evaluated_actions(
        self, params: Any, norm: Any, carry: Any, obs: Any, mask: Any, when: tuple[str, int, int], sampled: bool
    ) -> tuple[Tensor, Any]:
        """(actions [K, B, ...], carry) in an evaluation; `when` is (purpose, progress, step)."""
        seen, allowed = self._frozen(norm, self._observed(obs)), self._tensor(mask)
        if not sampled:
            return self._greedy(params, carry, seen, allowed)
        purpose, progress, t = when
        if t % BLOCK == 0:
            shape, kind = self.spec.action.noise
            block = (BLOCK, obs.shape[1], *shape)
            self._noise = self.lanes.noise(f"{purpose}/actions/{t // BLOCK}", progress, block, kind)
        return self._sample(params, carry, seen, allowed, self._noise[:, t % BLOCK].contiguous())

    def _tensor(self, array: np.ndarray) -> Tensor:
        return self.lanes.execution.tensor(array)

    def _observed(self, obs: np.ndarray) -> Tensor:
        """Observations as tensors; pictures stay bytes, but numbers to normalise are rounded after that."""
        if self.normalising.observations:
            return self.lanes.execution.move(torch.as_tensor(obs.astype(np.float64)))
        return self._tensor(obs)

    def _for_env(self, action: Tensor) -> np.ndarray:
        return self.spec.action.fit(action, self.fit).cpu().numpy()

    def _no_carry(self, like: Tensor) -> dict[str, Tensor]:
        """A recurrent policy's memory before the first step, for environments [K, B]."""
        return {name: like.new_zeros(*like.shape, *shape) for name, shape in self.carry.items()}

    def _keep(self, carry: dict[str, Tensor], over: np.ndarray) -> dict[str, Tensor]:
        """The memory, zero where an episode is over, bool [K, B]."""
        if not carry or not over.any():
            return carry
        kept = self._tensor(~over)
        return {n: c * kept.reshape(*kept.shape, *[1] * (c.dim() - 2)) for n, c in carry.items()}
