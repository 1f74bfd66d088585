"""What a Gymnasium environment looks like, as plain values, found by making one. numpy and Gymnasium only."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from functools import lru_cache, wraps
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from agents.envs.limits import own_limit
from agents.envs.making import is_trusted, make_bare, make_gym
from agents.envs.masks import drawing_allowed, says
from agents.envs.packages import installed, package_of
from agents.envs.wrappers import check_wrappers

__all__ = ["check", "describe", "description_of"]


def description_of(env_id: str, options: dict[str, Any], wrappers: Sequence[Any]) -> dict[str, Any]:
    """What an environment looks like; found once a process.

    One that Gymnasium did not register itself, or that has a wrapper of the user's own, is made in a process of its
    own under a watchdog, so that whatever it does cannot hang or end this one; the former is checked by Gymnasium's
    `check_env` too.

    Returns:
        {"obs_shape", "obs_dtype", "low", "high" (number or flat list), "action": {"kind", "counts", "low", "high"},
        "action_dtype", "masked", "mask_observed", "max_steps"}.

    Raises:
        ValueError: there is no such environment, a package is missing, or it breaks Gymnasium's rules.
    """
    check_wrappers(wrappers)
    found = _description(env_id, json.dumps(options, sort_keys=True), json.dumps(wrappers, sort_keys=True))
    if "error" in found:
        raise ValueError(found["error"])
    return found


@lru_cache(maxsize=256)
def _description(env_id: str, options_json: str, wrappers_json: str) -> dict[str, Any]:
    options, wrappers = json.loads(options_json), json.loads(wrappers_json)
    if not is_trusted(env_id, wrappers) and _can_be_made(env_id):
        from agents.envs.processes import ask

        question = {"do": "describe", "env": env_id, "options": options, "wrappers": wrappers}
        return ask(f"environment '{env_id}'", question)
    try:
        return describe(env_id, options, wrappers)
    except ValueError as error:
        return {"error": str(error)}


def _can_be_made(env_id: str) -> bool:
    """Whether there is something to make; a missing package is said without a process."""
    package = package_of(env_id)
    return ":" in env_id or env_id in gymnasium.registry or (package is not None and installed(package.module))


def check(env_id: str, options: dict[str, Any]) -> None:
    """Gymnasium's own check of an environment.

    Raises:
        ValueError: with the checker's sentence.
    """
    env = make_bare(env_id, options)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with drawing_allowed(env.unwrapped):
                _end_in_plain_booleans(env.unwrapped)
                check_env(env.unwrapped, skip_render_check=True)
    except Exception as error:  # assertions, and whatever the environment raises
        text = " ".join(str(error).split())
        raise ValueError(f"environment '{env_id}' breaks Gymnasium's rules (check_env): {text}") from error
    finally:
        env.close()


def _end_in_plain_booleans(env: gymnasium.Env) -> None:
    """Make `env.step` say how episodes end in Python's own booleans, as far as they are booleans or 0 and 1.

    The checker compares them with `is False`, and says of numpy's that the environment "truncates after 1 step".
    """
    step = env.step

    @wraps(step)  # the checker looks at its signature
    def call(*args: Any, **options: Any) -> Any:
        result: Any = step(*args, **options)
        if not isinstance(result, tuple) or len(result) != 5:
            return result
        obs, reward, terminated, truncated, info = result
        return obs, reward, _plain(terminated), _plain(truncated), info

    changed: Any = env
    changed.step = call


def _plain(over: Any) -> Any:
    """True or False for anything that is one number 0 or 1; all else as it is."""
    one = isinstance(over, int | np.bool_ | np.integer) or (isinstance(over, np.ndarray) and over.shape == ())
    return bool(over) if one and over in (0, 1) else over


def describe(env_id: str, options: dict[str, Any], wrappers: Sequence[Any]) -> dict[str, Any]:
    """Makes one environment, resets it and says what it looks like (see `description_of`)."""
    env = make_gym(env_id, options, wrappers)
    try:
        _, info = env.reset(seed=0)
    except Exception as error:  # the environment's own
        raise ValueError(f"environment '{env_id}' raised {type(error).__name__} at its reset: {error}") from error
    seen = env.observation_space
    assert isinstance(seen, spaces.Box)
    action = _action(env.action_space)
    choices = action["kind"] in ("discrete", "multi-discrete")
    masked = choices and says(env, info)
    limit = own_limit(env)
    env.close()
    return {
        "obs_shape": list(seen.shape),
        "obs_dtype": _stored(seen),
        "low": _short(seen.low),
        "high": _short(seen.high),
        "action": action,
        "action_dtype": str(env.action_space.dtype),
        "masked": bool(masked),
        "mask_observed": env.has_wrapper_attr("mask_observed"),
        "max_steps": limit,
    }


def _stored(space: spaces.Box) -> str:
    """Pictures stay bytes, doubles doubles, as do integers that float32 does not hold; all else becomes float32."""
    if space.dtype == np.uint8 and len(space.shape) == 3:
        return "uint8"
    most = max(abs(float(bound)) for bound in (space.low.min(), space.high.max()))
    large = np.issubdtype(space.dtype, np.integer) and most > 2**24
    return "float64" if large or space.dtype == np.float64 else "float32"


def _short(bound: np.ndarray) -> float | list[float]:
    flat = bound.astype(np.float64).reshape(-1)
    return float(flat[0]) if (flat == flat[0]).all() else flat.tolist()


def _action(space: spaces.Space) -> dict[str, Any]:
    """A flat space of actions (of `make_gym`) by the names of `agents.envs.spaces.ActionSpace`."""
    if isinstance(space, spaces.Discrete):
        return {"kind": "discrete", "counts": [int(space.n)]}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "multi-discrete", "counts": space.nvec.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "multi-binary", "counts": [2] * int(np.prod(space.shape))}
    assert isinstance(space, spaces.Box)
    low, high = (bound.astype(np.float64).tolist() for bound in (space.low, space.high))
    return {"kind": "box", "low": low, "high": high}
