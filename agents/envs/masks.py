"""Which actions an environment allows: where it says so, and the mask that stands among its observations.

Gymnasium's environments say it in three ways: by `action_masks()` as sb3-contrib has it, by `action_mask` of the
information beside an observation, and, as PettingZoo's do, by a part `action_mask` of observations by name. numpy and
Gymnasium only: worker processes import this.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

__all__ = ["MASK", "MaskApart", "allowed", "mask_apart", "says"]

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
