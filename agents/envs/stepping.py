"""Many environments over shared arrays, one row each: what the adapter reads and what worker processes write.

numpy and Gymnasium only: worker processes import this.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from agents.envs.masks import allowed

__all__ = ["DOING", "IDLE", "MAKING", "RESETTING", "STEPPING", "Arrays", "Layout", "Slot", "arrays_in", "size_of"]

IDLE, MAKING, RESETTING, STEPPING = range(4)
DOING = ("its process", "its constructor", "its reset", "its step")  # for sentences
ALIGN = 64


class Layout(NamedTuple):
    """Shapes of the arrays: R rows, one an environment; plain values, as worker processes get it as JSON."""

    rows: int
    obs_shape: tuple[int, ...]
    obs_dtype: str
    action_shape: tuple[int, ...]
    action_dtype: str
    mask_width: int

    @classmethod
    def from_json(cls, value: list[Any]) -> Layout:
        """What JSON made of a layout: its tuples are lists there."""
        return cls._make(tuple(v) if isinstance(v, list) else v for v in value)


class Arrays(NamedTuple):
    """What goes to and comes from R environments.

    Attributes:
        seed: int64 [R], for the next reset.
        action: [R, *action_shape].
        obs: [R, *obs_shape], after any reset.
        next_obs: observation before the reset; only where an episode ended.
        mask, next_mask: bool [R, mask_width], as `obs` and `next_obs`.
        reward: float64 [R].
        terminated, truncated: bool [R].
        steps: int64 [R], steps since the last reset from a seed.
        doing: uint8 [R], index in `DOING`.
        since: float64 [R], when that began (`time.monotonic`, the same clock in all processes).
    """

    seed: np.ndarray
    action: np.ndarray
    obs: np.ndarray
    next_obs: np.ndarray
    mask: np.ndarray
    next_mask: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    steps: np.ndarray
    doing: np.ndarray
    since: np.ndarray


def _forms(layout: Layout) -> list[tuple[tuple[int, ...], np.dtype]]:
    """(shape, dtype) of every array."""
    rows, obs, mask = layout.rows, layout.obs_shape, (layout.mask_width,)
    forms = [((), "int64"), (layout.action_shape, layout.action_dtype)]
    forms += [(obs, layout.obs_dtype)] * 2 + [(mask, "bool")] * 2
    forms += [((), "float64"), ((), "bool"), ((), "bool"), ((), "int64"), ((), "uint8"), ((), "float64")]
    return [((rows, *shape), np.dtype(dtype)) for shape, dtype in forms]


def _bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return -(-math.prod(shape) * dtype.itemsize // ALIGN) * ALIGN


def size_of(layout: Layout) -> int:
    """Bytes of all arrays."""
    return sum(_bytes(*form) for form in _forms(layout))


def arrays_in(buffer: Any, layout: Layout) -> Arrays:
    """The arrays as views of a buffer of `size_of` bytes."""
    views, offset = [], 0
    for shape, dtype in _forms(layout):
        count = math.prod(shape)
        views.append(np.frombuffer(buffer, dtype, count, offset).reshape(shape))
        offset += _bytes(shape, dtype)
    return Arrays(*views)


class Slot:
    """One environment and its row: it is made at its first reset.

    Args:
        make: gives the environment.
        arrays: of all rows.
        row: its own.
        autoreset: whether a finished episode is followed by the next one in the same step.
        watched: whether another process looks at what this one does, all the time.
    """

    def __init__(
        self, make: Callable[[], gymnasium.Env], arrays: Arrays, row: int, autoreset: bool, watched: bool
    ) -> None:
        self.make, self.arrays, self.row, self.autoreset, self.watched = make, arrays, row, autoreset, watched
        self.env: gymnasium.Env | None = None
        self.form, self.dtype = arrays.obs.shape[1:], arrays.obs.dtype
        self.masked = arrays.mask.shape[1] > 0
        self.doing, self.steps = IDLE, 0

    def run(self, what: str) -> str | None:
        """Does "reset" or "step"; returns what is wrong as the end of a sentence about the environment, or None."""
        try:
            if what == "reset":
                self._reset()
            else:
                self._step()
        except Exception as error:  # the environment's own: it may raise anything
            self.arrays.doing[self.row], self.arrays.steps[self.row] = self.doing, self.steps
            return str(error) if isinstance(error, _Broken) else f"raised {type(error).__name__}: {error}"
        if self.watched:
            self.arrays.doing[self.row] = IDLE
        return None

    def close(self) -> None:
        """Closes the environment if it was made."""
        if self.env is not None:
            self.env.close()

    def _reset(self) -> None:
        a, row = self.arrays, self.row
        if self.env is None:
            self._now(MAKING)
            self.env = self.make()
        self.steps = 0
        self._now(RESETTING)
        obs, info = self.env.reset(seed=int(a.seed[row]))
        self._write(a.obs, a.mask, obs, info)

    def _step(self) -> None:
        a, row, env = self.arrays, self.row, self.env
        assert env is not None
        self.steps += 1
        self._now(STEPPING)
        action = a.action[row]
        obs, reward, terminated, truncated, info = env.step(action.copy() if action.ndim else int(action))
        a.reward[row] = _number(reward)
        a.terminated[row] = terminated
        a.truncated[row] = truncated
        over = bool(terminated or truncated)
        if over:
            self._write(a.next_obs, a.next_mask, obs, info, over)
            if self.autoreset:
                self._now(RESETTING)
                obs, info = env.reset()
        self._write(a.obs, a.mask, obs, info, over and not self.autoreset)

    def _now(self, doing: int) -> None:
        self.doing = doing
        if self.watched:
            a, row = self.arrays, self.row
            a.doing[row], a.since[row], a.steps[row] = doing, time.monotonic(), self.steps

    def _write(
        self, obs_rows: np.ndarray, mask_rows: np.ndarray, obs: Any, info: dict[str, Any], over: bool = False
    ) -> None:
        """Writes an observation (and its mask) that has the form of its space; `over`: it stands behind an end."""
        obs = np.asarray(obs)
        if obs.shape != self.form:
            raise _Broken(f"gave an observation of shape {list(obs.shape)}; its space says {list(self.form)}")
        if obs.dtype != self.dtype and not np.can_cast(obs.dtype, self.dtype, "same_kind"):
            raise _Broken(f"gave an observation of type {obs.dtype}; its space says {self.dtype}")
        obs_rows[self.row] = obs
        if self.masked:
            mask_rows[self.row] = self._mask(info, mask_rows.shape[1], over)

    def _mask(self, info: dict[str, Any], count: int, over: bool) -> Any:
        """Allowed actions; behind an end there is no rule to keep, so that whatever is no mask there allows all."""
        assert self.env is not None
        try:
            found = allowed(self.env, info, count)
        except Exception:
            if over:
                return True
            raise
        if isinstance(found, str):
            if over:
                return True
            raise _Broken(found)
        return found


class _Broken(Exception):
    """What an environment did against its own space, as the end of a sentence about it."""


def _number(reward: Any) -> float:
    try:
        return float(reward)
    except (TypeError, ValueError):
        raise _Broken(f"gave a reward that is not a number: {reward!r}") from None
