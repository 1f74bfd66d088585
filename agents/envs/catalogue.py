"""Environments by name: ours as tensors where there is one, else Gymnasium's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from agents.envs.acrobot import Acrobot
from agents.envs.cartpole import CartPole
from agents.envs.gym import gym_spec
from agents.envs.mountain_car import MountainCar, MountainCarContinuous
from agents.envs.pendulum import Pendulum
from agents.envs.spaces import EnvSpec
from agents.envs.transition import TensorEnv

__all__ = ["TENSOR_ENVS", "spec_of", "tensor_env"]

TENSOR_ENVS: dict[str, TensorEnv] = {
    "CartPole-v1": CartPole(),
    "Acrobot-v1": Acrobot(),
    "MountainCar-v0": MountainCar(),
    "MountainCarContinuous-v0": MountainCarContinuous(),
    "Pendulum-v1": Pendulum(),
}


def tensor_env(env: str, options: dict[str, Any], wrappers: Sequence[Any]) -> TensorEnv | None:
    """Our own environment of that name, if there is one and nothing is asked of it that it has not."""
    return TENSOR_ENVS.get(env) if not options and not wrappers else None


def spec_of(env: str, options: dict[str, Any], wrappers: Sequence[Any]) -> EnvSpec:
    """What an environment looks like.

    Raises:
        ValueError: there is no such environment, a package is missing, or no learner could take it.
    """
    return _spec(env, json.dumps(options, sort_keys=True), json.dumps(wrappers, sort_keys=True))


@lru_cache(maxsize=256)
def _spec(env: str, options_json: str, wrappers_json: str) -> EnvSpec:
    options, wrappers = json.loads(options_json), json.loads(wrappers_json)
    own = tensor_env(env, options, wrappers)
    if own is None:
        return gym_spec(env, options, wrappers)
    return EnvSpec(env, own.obs_shape, own.action, own.masked, tensor=True, max_steps=own.max_steps)
