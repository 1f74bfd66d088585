"""Pictures among observations: which axis holds the channels, and whether numbers are brightnesses. Gymnasium only.

Nothing is guessed from sizes alone. Channels are last, as Gymnasium has them, unless the shape can only be the other
way round: 1 to 4 channels first and not last, or a stack of grey frames. Where neither end has so few and the first two
axes differ, the file must say it (`Picture`). Bytes from 0 to 255 in 1 to 4 channels a frame are brightnesses, which
networks see between 0 and 1; smaller ranges, and codes as MiniGrid's grids have them, keep their numbers.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, TransformObservation

__all__ = ["Picture", "holds_codes", "is_picture", "layout", "picture_last", "scale_pictures"]

FEW = (1, 2, 3, 4)  # channels of a picture: grey, with alpha, colours, with alpha
MEND = "say it with a wrapper: {picture: {last: ..., scaled: ...}}"


class Picture(TransformObservation):
    """What the file says of a picture: its channels are moved to the front, and bytes that are no brightnesses float.

    Args:
        env: its observations have two or three axes.
        last: whether the last axis holds the channels.
        scaled: whether bytes from 0 to 255 are brightnesses.
    """

    def __init__(self, env: gymnasium.Env, last: bool, scaled: bool) -> None:
        space = env.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) not in (2, 3):
            raise ValueError(f"it is for observations with 2 or 3 axes, not {space}")
        self.scaled = scaled
        kind = space.dtype if scaled or space.dtype != np.uint8 else np.dtype(np.float32)

        def change(obs: np.ndarray) -> np.ndarray:
            front = obs[None] if obs.ndim == 2 else np.moveaxis(obs, -1, 0) if last else obs
            return front.astype(kind)

        super().__init__(env, change, spaces.Box(change(space.low), change(space.high), dtype=kind.type))


def layout(env: gymnasium.Env) -> tuple[bool, int]:
    """(whether channels come before height and width, how many a frame) of observations with 2, 3 or 4 axes.

    Raises:
        ValueError: the shape does not tell.
    """
    shape = (env.observation_space.shape or ())[-3:]
    if len(shape) == 2:
        return True, 1
    for wrapper in _wrappers(env):
        if isinstance(wrapper, FrameStackObservation) and len(wrapper.env.observation_space.shape or ()) == 2:
            return True, 1
        if isinstance(wrapper, Picture):
            return True, shape[0]
    last = picture_last(shape)
    if last is None:
        raise ValueError(f"observations {list(shape)}: the first or the last axis may hold the channels; {MEND}")
    return not last, shape[-1] if last else shape[0]


def picture_last(shape: tuple[int, ...]) -> bool | None:
    """Whether the last of three axes holds the channels, by Gymnasium's convention; None where it cannot be told."""
    first, second, last = shape
    if last in FEW:
        return True
    if first in FEW:
        return False
    return True if first == second else None


def is_picture(env: gymnasium.Env, channels: int) -> bool:
    """Whether observations are brightnesses from 0 to 255.

    Args:
        env: the environment in its wrappers.
        channels: of one frame.

    Raises:
        ValueError: bytes in more channels than pictures have.
    """
    if not _whole_bytes(env.observation_space):
        return False
    said = [wrapper.scaled for wrapper in _wrappers(env) if isinstance(wrapper, Picture)]
    if said or holds_codes(env):
        return bool(said and said[0])
    if channels not in FEW:
        raise ValueError(
            f"observations of bytes in {channels} channels are brightnesses from 0 to 255 (scaled: true) or codes and"
            f" layers of 0 and 1 (scaled: false); {MEND}"
        )
    return True


def holds_codes(env: gymnasium.Env) -> bool:
    """Whether bytes are codes, although their space says 0 to 255: MiniGrid's grids are, unless drawn in colours."""
    packages = {cls.__module__.partition(".")[0] for cls in type(env.unwrapped).__mro__}
    return "minigrid" in packages and not any(type(wrapper).__name__.startswith("RGBImg") for wrapper in _wrappers(env))


def scale_pictures(env: gymnasium.Env) -> gymnasium.Env:
    """Observations whose pictures, bytes from 0 to 255 with two axes or more, are numbers from 0 to 1.

    Pictures inside names and tuples count as well.
    """
    old = env.observation_space
    new = _scaled_space(old)
    return env if new is old else TransformObservation(env, lambda obs: _scaled(old, obs), new)


def _scaled_space(space: spaces.Space) -> spaces.Space:
    if isinstance(space, spaces.Dict):
        parts = {name: _scaled_space(part) for name, part in space.spaces.items()}
        same = all(parts[name] is part for name, part in space.spaces.items())
        return space if same else spaces.Dict(OrderedDict(parts))
    if isinstance(space, spaces.Tuple):
        row = [_scaled_space(part) for part in space.spaces]
        return space if all(a is b for a, b in zip(row, space.spaces, strict=True)) else spaces.Tuple(row)
    if _whole_bytes(space) and len(space.shape or ()) > 1:
        return spaces.Box(0.0, 1.0, space.shape, np.float32)
    return space


def _scaled(space: spaces.Space, obs: Any) -> Any:
    if isinstance(space, spaces.Dict):
        return {name: _scaled(part, obs[name]) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_scaled(part, one) for part, one in zip(space.spaces, obs, strict=True))
    if _whole_bytes(space) and len(space.shape or ()) > 1:
        return np.asarray(obs, np.float32) / np.float32(255)
    return obs


def _whole_bytes(space: spaces.Space) -> bool:
    """Whether a space is that of bytes over their whole range."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    return bool((space.low == 0).all() and (space.high == 255).all())


def _wrappers(env: gymnasium.Env) -> list[gymnasium.Wrapper]:
    """The wrappers, outermost first."""
    found = []
    while isinstance(env, gymnasium.Wrapper):
        found.append(env)
        env = env.env
    return found
