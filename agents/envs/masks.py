"""Which actions an environment allows: where it says so, and the mask that stands among its observations.

Gymnasium's environments say it in three ways: by `action_masks()` as sb3-contrib has it, by `action_mask` of the
information beside an observation, and, as PettingZoo's do, by a part `action_mask` of observations by name. numpy and
Gymnasium only: worker processes import this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

__all__ = ["MASK", "MaskApart", "allowed", "drawing_allowed", "mask_apart", "says"]

MASK = "action_mask"


class MaskApart(gymnasium.ObservationWrapper):
    """Takes the mask out of observations by name and gives it by `action_masks()`; a single other part stands alone."""

    mask_observed = True  # found through all wrappers

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        space: Any = env.observation_space
        parts = {name: part for name, part in space.spaces.items() if name != MASK}
        self.only = next(iter(parts)) if len(parts) == 1 else None
        self.observation_space = parts[self.only] if self.only is not None else spaces.Dict(parts)
        self.mask: Any = None

    def observation(self, observation: Any) -> Any:
        self.mask = observation.get(MASK)
        if self.only is not None:
            return observation[self.only]
        return {name: part for name, part in observation.items() if name != MASK}

    def action_masks(self) -> Any:
        """The mask of the newest observation."""
        return self.mask


def mask_apart(env: gymnasium.Env) -> gymnasium.Env:
    """The environment, in `MaskApart` where its observations hold a mask of its choices.

    Raises:
        ValueError: they hold an `action_mask` that is none.
    """
    space, action = env.observation_space, env.action_space
    if not isinstance(space, spaces.Dict) or MASK not in space.spaces or len(space.spaces) < 2:
        return env
    if not isinstance(action, spaces.Discrete | spaces.MultiDiscrete):
        return env
    count = int(action.n) if isinstance(action, spaces.Discrete) else int(action.nvec.sum())
    mask = space[MASK]
    if not isinstance(mask, spaces.Box | spaces.MultiBinary | spaces.MultiDiscrete) or np.prod(mask.shape) != count:
        raise ValueError(
            f"its observations hold an `{MASK}`, {mask}, that is no mask of its {count} actions; "
            "give one number for each of them, or the part another name"
        )
    return MaskApart(env)


def says(env: gymnasium.Env, info: dict[str, Any]) -> bool:
    """Whether it tells which actions are allowed; `info` is that of a reset."""
    return env.has_wrapper_attr("action_masks") or MASK in info


def allowed(env: gymnasium.Env, info: dict[str, Any], count: int) -> np.ndarray | str:
    """Which actions may be taken now, bool [count]; what is wrong with the mask, as the end of a sentence, if it is.

    Args:
        env: the environment in its wrappers.
        info: what came with its newest observation.
        count: entries of a mask.
    """
    given = env.get_wrapper_attr("action_masks")() if env.has_wrapper_attr("action_masks") else info.get(MASK)
    if given is None:
        return f"gave no {MASK} with this observation"
    mask = np.asarray(given, bool).reshape(-1)
    if len(mask) != count or not mask.any():
        return f"gave a mask that allows {mask.sum()} of {mask.size} actions, of {count}"
    return mask


@contextmanager
def drawing_allowed(env: gymnasium.Env) -> Iterator[None]:
    """Within it, `env.action_space.sample()` draws what the newest mask allows, where there is one.

    Gymnasium's checker plays random actions, and many games raise at a forbidden one.

    Args:
        env: a bare environment.
    """
    space, draw = env.action_space, env.action_space.sample
    newest: tuple[Any, Any] = ({}, {})

    def remembered(method: Any) -> Any:
        @wraps(method)  # the checker looks at its signature
        def call(*args: Any, **options: Any) -> Any:
            nonlocal newest
            result = method(*args, **options)
            if isinstance(result, tuple) and len(result) > 1:
                newest = (result[0], result[-1])
            return result

        return call

    def drawn(*args: Any, **options: Any) -> Any:
        mask = _newest_mask(env, *newest)
        return draw(*args, **options) if mask is None else draw(mask=mask)

    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        changed: Any = env
        changed.reset, changed.step = remembered(env.reset), remembered(env.step)
        space.sample = drawn  # type: ignore[method-assign]
    try:
        yield
    finally:
        vars(space).pop("sample", None)  # a space may be shared by all environments of a class


def _newest_mask(env: gymnasium.Env, obs: Any, info: Any) -> Any:
    """The mask as `env.action_space.sample` takes it; None where nothing is said or it makes no sense."""
    space: Any = env.action_space
    among = obs if isinstance(obs, dict) and MASK in obs else info if isinstance(info, dict) else {}
    count = int(space.n) if isinstance(space, spaces.Discrete) else int(space.nvec.sum())
    found = allowed(env, among, count)
    if isinstance(found, str):
        return None
    mask = found.astype(np.int8)
    if isinstance(space, spaces.Discrete):
        return mask
    parts = np.split(mask, np.cumsum(space.nvec.reshape(-1))[:-1])
    return tuple(parts) if space.nvec.ndim == 1 and all(part.any() for part in parts) else None
