"""Environments by name: ours as tensors where there is one, else Gymnasium's."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from agents.envs.acrobot import Acrobot
from agents.envs.breakout import Breakout
from agents.envs.cartpole import CartPole, CartPoleNoVel
from agents.envs.catch import Catch
from agents.envs.deep_sea import DeepSea
from agents.envs.digits import Digits
from agents.envs.gym import gym_spec
from agents.envs.identity import Identity, MaskedIdentity
from agents.envs.mountain_car import MountainCar
from agents.envs.mountain_car_continuous import MountainCarContinuous
from agents.envs.pendulum import Pendulum
from agents.envs.recall import Recall
from agents.envs.space_invaders import SpaceInvaders
from agents.envs.spaces import EnvSpec, box, discrete, multi_binary, multi_discrete
from agents.envs.transition import TensorEnv

__all__ = ["spec_of", "tensor_env", "tensor_env_ids"]

# Gymnasium has these too: with options or wrappers they are Gymnasium's
SHARED: dict[str, Callable[..., TensorEnv]] = {
    "Acrobot-v1": Acrobot,
    "CartPole-v1": CartPole,
    "MountainCar-v0": MountainCar,
    "MountainCarContinuous-v0": MountainCarContinuous,
    "Pendulum-v1": Pendulum,
}
# and these it has not; `env_options` are arguments of the constructor
OWN: dict[str, Callable[..., TensorEnv]] = {
    "CartPoleNoVel-v1": CartPoleNoVel,
    "Catch-v0": Catch,
    "DeepSea-v0": DeepSea,
    "Digits-v0": Digits,
    "Identity-v0": lambda: Identity(discrete(4)),
    "IdentityBox-v0": lambda: Identity(box((-1.0,), (1.0,))),
    "IdentityMultiBinary-v0": lambda: Identity(multi_binary(3)),
    "IdentityMultiDiscrete-v0": lambda: Identity(multi_discrete((2, 3))),
    "MaskedIdentity-v0": MaskedIdentity,
    "MinAtar/Breakout-v1": Breakout,
    "MinAtar/SpaceInvaders-v1": SpaceInvaders,
    "Recall-v0": Recall,
}


def tensor_env_ids() -> tuple[str, ...]:
    """The ids of all environments that are tensors."""
    return tuple(sorted(SHARED | OWN))


def tensor_env(env: str, options: dict[str, Any], wrappers: Sequence[Any]) -> TensorEnv | None:
    """Our own environment of that name, if there is one and nothing is asked of it that only Gymnasium's has.

    Raises:
        ValueError: it exists only here and has no such option, or wrappers are asked for.
    """
    if env in OWN:
        if wrappers:
            raise ValueError(f"wrappers: '{env}' is one of Seedbed's own environments, which take none but normalisers")
        return _own(env, json.dumps(options, sort_keys=True))
    return _own(env, "{}") if env in SHARED and not options and not wrappers else None


@lru_cache(maxsize=256)
def _own(env: str, options_json: str) -> TensorEnv:
    """One instance for every id and options; data is read when it is first asked for."""
    make, options = (SHARED | OWN)[env], json.loads(options_json)
    known = list(inspect.signature(make).parameters)
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ValueError(f"env_options: '{env}' has no option '{unknown[0]}'; it has {', '.join(known) or 'none'}")
    return make(**options)


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
