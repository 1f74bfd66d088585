"""Makes Gymnasium environments by id, in the form that learners take. numpy and Gymnasium only.

Observations: one array; names, tuples and discrete ones are flattened, pictures have their channels first [C, H, W].
Actions: flat and counted from 0.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TransformAction, TransformObservation

from agents.envs.packages import missing, package_of, register
from agents.envs.pictures import is_picture, layout, picture_last
from agents.envs.wrappers import flatten, wrap

__all__ = ["TRUSTED", "is_trusted", "make_bare", "make_gym"]

# whose environments and wrappers are taken to keep Gymnasium's rules and to come back from every step
TRUSTED = ("gymnasium.", "ale_py.", "minigrid.", "stable_baselines3.", "sb3_contrib.")


def make_gym(
    env_id: str, options: dict[str, Any], wrappers: Sequence[Any], evaluating: bool = False, named: bool = False
) -> gymnasium.Env:
    """One environment: its observations are a Box, its actions flat and counted from 0.

    Args:
        env_id: registered id, or "module:Id".
        options: arguments of its constructor.
        wrappers: innermost first, as `agents.envs.wrappers.wrap` takes them; no normalisers.
        evaluating: without wrappers that would falsify a score.
        named: keeps observations by name as they are.

    Raises:
        ValueError: unknown id, missing package, unknown wrapper, or spaces that no learner takes.
    """
    names = {one if isinstance(one, str) else next(iter(one), "") for one in wrappers}
    env = make_bare(env_id, options, {"frameskip": 1} if "atari" in names else {})  # the wrapper skips frames itself
    try:
        seen = wrap(env, wrappers, evaluating)
        keep = named and isinstance(seen.observation_space, spaces.Dict)
        return _flat_actions(seen if keep else _as_array(seen))
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise missing(env_id, error) from error
    except ValueError as error:
        env.close()
        raise ValueError(f"environment '{env_id}': {error}") from error


def make_bare(env_id: str, options: dict[str, Any], of_ale: Mapping[str, Any] | None = None) -> gymnasium.Env:
    """One environment as it was registered; Gymnasium's warnings are kept from the terminal.

    Args:
        env_id: registered id, or "module:Id".
        options: arguments of its constructor.
        of_ale: more of them, for a game of ALE.

    Raises:
        ValueError: unknown id, missing package, or its constructor fails.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            register(env_id)
            if of_ale and _entry_point(env_id).startswith("ale_py."):
                options = {**of_ale, **options}
            return gymnasium.make(env_id, disable_env_checker=True, **options)
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise missing(env_id, error) from error
    except Exception as error:  # a constructor may raise anything
        what = str(error) if isinstance(error, gymnasium.error.Error) else f"{type(error).__name__}: {error}"
        if isinstance(error, gymnasium.error.UnregisteredEnv) and ":" not in env_id:
            what = f"{what.rstrip('.')}; one of your own is written module:{env_id}"
        raise ValueError(f"environment '{env_id}': {what}") from error


def is_trusted(env_id: str, wrappers: Sequence[Any] = ()) -> bool:
    """Whether Gymnasium itself, or a package of the same makers, brings this environment and all its wrappers."""
    paths = [name for one in wrappers for name in ([one] if isinstance(one, str) else one) if ":" in name]
    return _entry_point(env_id).startswith(TRUSTED) and all(path.startswith(TRUSTED) for path in paths)


def _entry_point(env_id: str) -> str:
    """Where an environment is from: "module:Class", or "module." before its package was imported; else empty."""
    found = gymnasium.registry.get(env_id)
    if found is not None:
        return found.entry_point if isinstance(found.entry_point, str) else ""
    package = package_of(env_id)
    return f"{package.module}." if package else ""


def _as_array(env: gymnasium.Env) -> gymnasium.Env:
    """Observations as one array; pictures channel-first."""
    if not isinstance(env.observation_space, spaces.Box):
        try:
            env = flatten(env)
        except NotImplementedError:
            raise ValueError(f"observations {env.observation_space} cannot be made an array") from None
    space = env.observation_space
    if not isinstance(space, spaces.Box):
        raise ValueError(f"observations {space} cannot be made an array")
    first, picture = False, True
    if len(space.shape) in (3, 4) or (len(space.shape) == 2 and space.dtype == np.uint8):
        first, channels = layout(env)
        picture = space.dtype != np.uint8 or is_picture(env, channels)
    change = _to_channels_first(space, first)
    if change is not None:
        low, high = change(space.low), change(space.high)
        env = TransformObservation(env, change, spaces.Box(low, high, dtype=space.dtype.type))
    return env if picture else _as_numbers(env)


def _as_numbers(env: gymnasium.Env) -> gymnasium.Env:
    """Bytes that are no brightnesses, as float32: networks see them as they are."""
    space = env.observation_space
    assert isinstance(space, spaces.Box)
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    return TransformObservation(env, lambda obs: obs.astype(np.float32), spaces.Box(low, high, dtype=np.float32))


def _to_channels_first(space: spaces.Box, first: bool | None = None) -> Callable[[np.ndarray], np.ndarray] | None:
    """How an observation becomes what networks take; None where it is that already.

    Args:
        space: of numbers, pictures [H, W] of bytes, [H, W, C] or [C, H, W], or stacks of pictures.
        first: whether channels come before height and width; None by Gymnasium's convention.
    """
    shape = space.shape
    if not shape:
        return lambda obs: np.reshape(obs, 1)
    if len(shape) == 2 and space.dtype == np.uint8:
        return lambda obs: obs[None]
    if len(shape) not in (3, 4):
        return None
    last = bool(picture_last(shape[-3:])) if first is None else not first
    if len(shape) == 3:
        return (lambda obs: np.moveaxis(obs, -1, 0)) if last else None
    size = (-1, *(shape[1:3] if last else shape[2:]))  # a stack of pictures: its frames become channels
    return lambda obs: (np.moveaxis(obs, -1, 1) if last else obs).reshape(size)


def _flat_actions(env: gymnasium.Env) -> gymnasium.Env:
    """Actions flat and counted from 0.

    Raises:
        ValueError: actions of a kind that no learner takes.
    """
    own = env.action_space
    flat: spaces.Space
    if isinstance(own, spaces.Discrete):
        start, flat = int(own.start), spaces.Discrete(int(own.n))
        return env if start == 0 else TransformAction(env, lambda action: int(action) + start, flat)
    if not isinstance(own, spaces.MultiDiscrete | spaces.MultiBinary | spaces.Box):
        raise ValueError(f"actions {own} are of a kind that no learner takes")
    shape, kind = own.shape, own.dtype
    if isinstance(own, spaces.MultiDiscrete):
        first = own.start
        flat = spaces.MultiDiscrete(own.nvec.flatten(), dtype=kind)
        if len(shape) == 1 and not first.any():
            return env
        return TransformAction(env, lambda action: np.asarray(action, kind).reshape(shape) + first, flat)
    if len(shape) == 1:
        return env
    if isinstance(own, spaces.MultiBinary):
        flat = spaces.MultiBinary(int(np.prod(shape)))
    else:
        flat = spaces.Box(own.low.flatten(), own.high.flatten(), dtype=own.dtype.type)
    return TransformAction(env, lambda action: np.asarray(action, kind).reshape(shape), flat)
