"""From an experiment file to the arguments of stable-baselines3's algorithms and policies, by their own signatures.

A file holds plain values. What is no plain value in Python is said so: a schedule that falls linearly to 0 as
"lin_1e-3" (rl-baselines3-zoo's way), action noise as {kind: normal, std: 0.1}, activations and optimisers by name.
Nothing is evaluated.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

import numpy as np
import sb3_contrib
import stable_baselines3
from pydantic import ConfigDict, TypeAdapter, ValidationError
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import ActionNoise, NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.her import HerReplayBuffer
from stable_baselines3.her.goal_selection_strategy import KEY_TO_GOAL_STRATEGY
from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop

from harness.spec_errors import nearest
from nets.activations import ACTIVATIONS

__all__ = ["ALGORITHMS", "Algorithm", "Linear", "action_noise", "arguments", "check_names", "policy_arguments"]

ALL = ("discrete", "multi-discrete", "multi-binary", "box")


@dataclass(frozen=True)
class Algorithm:
    """An algorithm of stable-baselines3 or sb3-contrib.

    Attributes:
        cls: its class.
        actions: kinds of actions that it takes.
    """

    cls: type[BaseAlgorithm]
    actions: tuple[str, ...]

    def default(self, name: str) -> Any:
        """Default of an argument of the constructor; None where it has no such argument."""
        parameter = inspect.signature(self.cls).parameters.get(name)
        return parameter.default if parameter else None

    @property
    def policies(self) -> Mapping[str, type[nn.Module]]:
        """Its policies by name."""
        return self.cls.policy_aliases

    @property
    def recurrent(self) -> bool:
        """Whether its policies have a memory."""
        return "MlpLstmPolicy" in self.policies

    @property
    def masks(self) -> bool:
        """Whether it needs an environment that says which actions are allowed."""
        return self.cls is sb3_contrib.MaskablePPO


ALGORITHMS = {
    "A2C": Algorithm(stable_baselines3.A2C, ALL),
    "ARS": Algorithm(sb3_contrib.ARS, ("discrete", "box")),
    "CrossQ": Algorithm(sb3_contrib.CrossQ, ("box",)),
    "DDPG": Algorithm(stable_baselines3.DDPG, ("box",)),
    "DQN": Algorithm(stable_baselines3.DQN, ("discrete",)),
    "MaskablePPO": Algorithm(sb3_contrib.MaskablePPO, ("discrete", "multi-discrete", "multi-binary")),
    "PPO": Algorithm(stable_baselines3.PPO, ALL),
    "QRDQN": Algorithm(sb3_contrib.QRDQN, ("discrete",)),
    "RecurrentPPO": Algorithm(sb3_contrib.RecurrentPPO, ALL),
    "SAC": Algorithm(stable_baselines3.SAC, ("box",)),
    "TD3": Algorithm(stable_baselines3.TD3, ("box",)),
    "TQC": Algorithm(sb3_contrib.TQC, ("box",)),
    "TRPO": Algorithm(sb3_contrib.TRPO, ALL),
}
# the learner's own business, or no plain value: own buffers, files of logs
NOT_OFFERED = {
    "self", "policy", "env", "policy_kwargs", "tensorboard_log", "verbose", "seed", "device", "_init_setup_model",
    "monitor_wrapper", "rollout_buffer_class", "rollout_buffer_kwargs", "observation_space", "action_space",
    "lr_schedule", "features_extractor_class", "features_extractor_kwargs",
}  # fmt: skip
BUFFERS = {"HerReplayBuffer": HerReplayBuffer}
NOISES = {"normal": NormalActionNoise, "ou": OrnsteinUhlenbeckActionNoise}
OPTIMISERS = {"Adam": Adam, "AdamW": AdamW, "RMSprop": RMSprop, "RMSpropTFLike": RMSpropTFLike, "SGD": SGD}
ACTIVATION_CLASSES = {"tanh": nn.Tanh} | {n: a for n, a in ACTIVATIONS.items() if isinstance(a, type) and n != "tanh"}
ANY_TYPE = ConfigDict(arbitrary_types_allowed=True)


class Linear:
    """A schedule that falls linearly to 0: what is left of training, 1 to 0, times where it starts.

    It stays at 0 behind the end: the last rollout may go beyond it, and stable-baselines3 then calls what is left a
    negative number.
    """

    def __init__(self, start: float) -> None:
        self.start = start

    def __call__(self, progress_remaining: float) -> float:
        """The value when so much of training is left."""
        return max(progress_remaining, 0.0) * self.start


def arguments(algorithm: Algorithm, hyper: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of an algorithm's constructor, checked by its signature.

    `action_noise` is checked and stays as it is: `action_noise` makes it once the action space is known.

    Raises:
        ValueError: an argument that it has not, or a value of another type; names both.
    """
    hints = {name: p.annotation for name, p in inspect.signature(algorithm.cls).parameters.items()}
    known = [name for name in hints if name not in NOT_OFFERED]
    check_names("hyper", hyper, known, f"argument of {algorithm.cls.__name__}")
    return {name: _argument(name, value, hints[name]) for name, value in hyper.items()}


def check_names(field: str, given: Mapping[str, Any], known: list[str], noun: str) -> None:
    """Raises ValueError for a name that is not known, with the nearest one."""
    for name in given:
        if name not in known:
            raise ValueError(f"{field}: {nearest(name, known, noun)}")


def action_noise(given: Mapping[str, Any], shape: tuple[int, ...]) -> ActionNoise:
    """Noise on actions in [-1, 1] of that shape, from {kind, std}."""
    return NOISES[given["kind"]](np.zeros(shape), np.full(shape, float(given["std"])))


def policy_arguments(policy: type[nn.Module], given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a policy's constructor, checked by its signature.

    Raises:
        ValueError: an argument that it has not, or a name that stands for nothing.
    """
    known = [n for n in inspect.signature(policy).parameters if n not in NOT_OFFERED | {"use_sde"}]
    check_names("policy_kwargs", given, known, f"argument of {policy.__name__}")
    found = dict(given)
    if "activation_fn" in found:
        found["activation_fn"] = _activation(found["activation_fn"])
    if "optimizer_class" in found:
        name = str(found["optimizer_class"])
        if name not in OPTIMISERS:
            raise ValueError(f"policy_kwargs.optimizer_class: {nearest(name, OPTIMISERS, 'optimiser')}")
        found["optimizer_class"] = OPTIMISERS[name]
    return found


def _activation(given: Any) -> type[nn.Module]:
    """An activation by its name in `nets.activations` or in `torch.nn` ("relu", "ReLU", "nn.ReLU")."""
    name = str(given).removeprefix("nn.")
    cls = ACTIVATION_CLASSES.get(name) or getattr(nn.modules.activation, name, None)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ValueError(f"policy_kwargs.activation_fn: {nearest(name, ACTIVATION_CLASSES, 'activation')}")
    return cls


def _argument(name: str, value: Any, hint: Any) -> Any:
    """A plain value as a constructor takes it."""
    if name in SPECIAL:
        return SPECIAL[name](value)
    if isinstance(value, str) and any(Callable in (kind, get_origin(kind)) for kind in get_args(hint)):
        return _schedule(name, value)
    if isinstance(value, list):
        value = tuple(value)
    try:
        return TypeAdapter(hint, config=ANY_TYPE).validate_python(value, strict=True)
    except ValidationError as error:
        wanted = str(getattr(hint, "__name__", hint) if isinstance(hint, type) else hint)
        wanted = wanted.replace("collections.abc.Callable[[float], float]", '"lin_NUMBER"')
        wanted = wanted.replace("collections.abc.Callable", '"lin_NUMBER"')
        raise ValueError(f"hyper.{name}: {value!r} is no {wanted}: {error.errors()[0]['msg']}") from None


def _checked_noise(value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) != {"kind", "std"}:
        raise ValueError("hyper.action_noise: write {kind: normal, std: 0.1}; kinds are normal and ou")
    if value["kind"] not in NOISES:
        raise ValueError(f"hyper.action_noise.kind: {nearest(str(value['kind']), NOISES, 'noise')}")
    if isinstance(value["std"], bool) or not isinstance(value["std"], int | float) or value["std"] < 0:
        raise ValueError(f"hyper.action_noise.std: {value['std']!r} is no standard deviation")
    return dict(value)


def _buffer(value: Any) -> Any:
    if value is None:
        return None
    if value not in BUFFERS:
        raise ValueError(f"hyper.replay_buffer_class: {nearest(str(value), BUFFERS, 'replay buffer')}")
    return BUFFERS[value]


def _goals(value: Any) -> Any:
    """Arguments of HerReplayBuffer: how many goals a row, and which."""
    field, given = "hyper.replay_buffer_kwargs", value or {}
    if not isinstance(given, Mapping):
        raise ValueError(f"{field}: write {{n_sampled_goal: 4, goal_selection_strategy: future}}")
    check_names(field, given, ["n_sampled_goal", "goal_selection_strategy"], "argument of HerReplayBuffer")
    count, strategy = given.get("n_sampled_goal", 4), str(given.get("goal_selection_strategy", "future"))
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"{field}.n_sampled_goal: {count!r} is not a whole number of 1 or more")
    if strategy not in KEY_TO_GOAL_STRATEGY:
        raise ValueError(f"{field}.goal_selection_strategy: {nearest(strategy, KEY_TO_GOAL_STRATEGY, 'strategy')}")
    return dict(given)


def _no_saving(value: Any) -> Any:
    if value is not False:
        raise ValueError("hyper.optimize_memory_usage: only false is offered; take it out")
    return value


SPECIAL = {
    "action_noise": _checked_noise,
    "replay_buffer_class": _buffer,
    "replay_buffer_kwargs": _goals,
    "optimize_memory_usage": _no_saving,
}


def _schedule(name: str, text: str) -> Linear:
    prefix, _, number = text.partition("_")
    try:
        if prefix == "lin":
            return Linear(float(number))
    except ValueError:
        pass
    raise ValueError(f"hyper.{name}: {text!r} is neither a number nor a schedule; write for example lin_1e-3")
