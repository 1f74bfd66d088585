"""The state of an agent of stable-baselines3 as a tree of tensors, arrays and JSON values, and its random numbers.

Nothing is pickled and nothing unpickled. What stable-baselines3 itself saves (`_get_torch_save_params`: policy,
optimisers, temperature) is here, and beside it what it leaves out or pickles: the replay buffer with its position, the
moments that normalise, counters, recent episodes.
"""

from __future__ import annotations

import random
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her import HerReplayBuffer

from harness.learner import tree_map

__all__ = ["Streams", "restart", "state_of", "take_state"]

COUNTERS = (
    "num_timesteps", "_n_updates", "_episode_num", "_current_progress_remaining",
    "_n_calls", "exploration_rate",  # DQN, QRDQN
    "old_count", "weights",  # ARS
)  # fmt: skip
REPLAY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
EPISODES = ("ep_start", "ep_length")  # of a buffer with goals


def state_of(model: BaseAlgorithm) -> dict[str, Any]:
    """All that training needs but the environments; the replay buffer's arrays are not copied."""
    modules, variables = model._get_torch_save_params()
    buffer = getattr(model, "replay_buffer", None)
    moments = model.get_vec_normalize_env()
    return {
        "modules": {name: _copied(attrgetter(name)(model).state_dict()) for name in modules},
        "variables": {name: attrgetter(name)(model).detach().clone() for name in variables},
        "counters": {name: getattr(model, name) for name in COUNTERS if hasattr(model, name)},
        "episodes": [dict(episode) for episode in model.ep_info_buffer or ()],
        "successes": [bool(success) for success in model.ep_success_buffer or ()],
        "replay": _replay(buffer) if buffer is not None else None,
        "moments": _moments(moments) if moments is not None else None,
    }


def take_state(model: BaseAlgorithm, tree: dict[str, Any]) -> None:
    """Puts back what `state_of` gave."""
    for name, state in tree["modules"].items():
        attrgetter(name)(model).load_state_dict(state)
    for name, value in tree["variables"].items():
        attrgetter(name)(model).data.copy_(value)
    for name, value in tree["counters"].items():
        setattr(model, name, value)
    model.ep_info_buffer = deque(tree["episodes"], maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(tree["successes"], maxlen=model._stats_window_size)
    if tree["replay"] is not None:
        _fill(model.replay_buffer, tree["replay"])  # type: ignore[attr-defined]
    moments = model.get_vec_normalize_env()
    if moments is not None:
        _take_moments(moments, tree["moments"])


def restart(model: Any, seed: int) -> None:
    """Begins anew, from a seed, what cannot be saved: the global generators, the environments, their episodes."""
    model.set_random_seed(seed)
    if isinstance(buffer := getattr(model, "replay_buffer", None), HerReplayBuffer):
        buffer.truncate_last_trajectory()  # goals are those of episodes that are over
    if isinstance(buffer, NStepReplayBuffer):
        buffer.timeouts[buffer.pos - 1] = 1 - buffer.dones[buffer.pos - 1]  # no return reaches into the next episode
    model._last_obs = model.env.reset()
    model._last_episode_starts = np.ones(model.env.num_envs, dtype=bool)
    moments = model.get_vec_normalize_env()
    if moments is not None:
        model._last_original_obs = moments.get_original_obs()
    if model.action_noise is not None:
        model.action_noise.reset()
    memory = getattr(model, "_last_lstm_states", None)
    if memory is not None:  # RecurrentPPO
        model._last_lstm_states = type(memory)(*(tuple(map(torch.zeros_like, m)) for m in memory))


class Streams:
    """The global generators of Python, numpy and torch, held for one trial: nobody else moves them."""

    def __init__(self) -> None:
        self._own = _generators()

    @contextmanager
    def here(self, keep: bool = True) -> Iterator[None]:
        """Inside, the global generators are this trial's, and stable-baselines3's warnings are not printed.

        Args:
            keep: whether the trial's generators go on from where they are at the end.
        """
        outer = _generators()
        _set_generators(self._own)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            if keep:
                self._own = _generators()
            _set_generators(outer)


def _generators() -> tuple[Any, Any, torch.Tensor]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _set_generators(states: tuple[Any, Any, torch.Tensor]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


def _copied(state: Any) -> Any:
    """A state dict whose tensors share no memory: two names of one tensor become two tensors."""
    if isinstance(state, dict):
        return {name: _copied(value) for name, value in state.items()}
    return state.detach().clone() if isinstance(state, torch.Tensor) else state


def _replay(buffer: ReplayBuffer) -> dict[str, Any]:
    """The filled part of the buffer."""
    filled = buffer.buffer_size if buffer.full else buffer.pos
    arrays = {name: tree_map(lambda a: a[:filled], getattr(buffer, name)) for name in REPLAY}
    saved = {"pos": buffer.pos, "full": buffer.full, "arrays": arrays}
    if isinstance(buffer, HerReplayBuffer):
        arrays |= {name: getattr(buffer, name)[:filled] for name in EPISODES}
        saved["episodes"] = buffer._current_ep_start.copy()
    return saved


def _fill(buffer: ReplayBuffer, saved: dict[str, Any]) -> None:
    buffer.pos, buffer.full = saved["pos"], saved["full"]
    if isinstance(buffer, HerReplayBuffer):
        buffer._current_ep_start = saved["episodes"].copy()
    for name, array in saved["arrays"].items():
        _copy_into(getattr(buffer, name), array)


def _copy_into(to: Any, array: Any) -> None:
    if isinstance(array, dict):
        for key, part in array.items():
            _copy_into(to[key], part)
    else:
        to[: len(array)] = array


def _moments(envs: VecNormalize) -> dict[str, Any]:
    found: dict[str, Any] = {"returns": envs.returns, "reward": _of(envs.ret_rms)}
    if envs.norm_obs:
        rms = envs.obs_rms
        found["obs"] = {k: _of(r) for k, r in rms.items()} if isinstance(rms, dict) else _of(rms)
    return found


def _of(rms: RunningMeanStd) -> dict[str, Any]:
    mean, var = (float(a) if np.ndim(a) == 0 else a for a in (rms.mean, rms.var))
    return {"mean": mean, "var": var, "count": float(rms.count)}


def _take_moments(envs: VecNormalize, saved: dict[str, Any]) -> None:
    envs.returns = saved["returns"].copy()
    _take_rms(envs.ret_rms, saved["reward"])
    if envs.norm_obs:
        _take_rms(envs.obs_rms, saved["obs"])


def _take_rms(rms: Any, saved: dict[str, Any]) -> None:
    if isinstance(rms, dict):
        for key, one in rms.items():
            _take_rms(one, saved[key])
    else:
        rms.mean, rms.var, rms.count = saved["mean"], saved["var"], saved["count"]
