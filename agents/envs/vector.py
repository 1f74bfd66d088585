"""Many Gymnasium environments stepped together: in this process, or in worker processes; their numbers are checked.

Rows are environments; lane k has the rows k P ... k P + P - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from agents.envs.making import make_gym
from agents.envs.processes import Death
from agents.envs.stepping import DOING, MAKING, RESETTING, Arrays, Layout, Slot, arrays_in, size_of
from harness.learner import LaneError

__all__ = ["Engine", "InProcess", "Stepped", "Vector"]

MOST = np.finfo(np.float32).max


class Engine(Protocol):
    """Where the environments are."""

    arrays: Arrays

    def run(self, what: str, rows: Sequence[int]) -> tuple[dict[int, str], list[Death]]:
        """Resets or steps some of them: (row -> what is wrong with it, processes that died)."""
        ...

    def steps(self, row: int) -> int:
        """Steps of an environment since it was last reset from a seed."""
        ...

    def close(self) -> None:
        """Ends them."""
        ...


class InProcess:
    """Environments in this process: the quickest where a step is short; one that hangs hangs this process."""

    def __init__(self, layout: Layout, evaluating: set[int], of: tuple[str, dict[str, Any], Sequence[Any]]) -> None:
        self.arrays = arrays_in(bytearray(size_of(layout)), layout)
        self._slots = [
            Slot(partial(make_gym, *of, evaluating=last), self.arrays, row, autoreset=not last, watched=False)
            for row, last in enumerate(row in evaluating for row in range(layout.rows))
        ]

    def run(self, what: str, rows: Sequence[int]) -> tuple[dict[int, str], list[Death]]:
        """Resets or steps some of them."""
        found = ((row, self._slots[row].run(what)) for row in rows)
        return {row: text for row, text in found if text is not None}, []

    def steps(self, row: int) -> int:
        """Steps of an environment since it was last reset from a seed."""
        return self._slots[row].steps

    def close(self) -> None:
        """Closes them."""
        for slot in self._slots:
            slot.close()


class Stepped(NamedTuple):
    """One step of B environments, as arrays that nobody else writes.

    Attributes:
        obs: after any reset, [B, ...].
        next_obs: before it; the same array as `obs` where no episode ended.
        mask, next_mask: bool [B, A].
        reward: [B].
        terminated, truncated: bool [B].
        replaced: bool [B], environments that were lost in this step and begun anew.
    """

    obs: np.ndarray
    next_obs: np.ndarray
    mask: np.ndarray
    next_mask: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    replaced: np.ndarray


class Vector:
    """R environments behind one engine.

    Args:
        engine: where they are.
        per_lane: P, rows of one lane.
        bounds: lowest and highest value of an observation, broadcast to it.
        name: what a row is called in sentences.
        lost: told of every process that died: (lane, sentence); raises LaneError where that was once too often.
        lied: told once, the first time that an observation leaves the bounds: (row, where and by how much).
    """

    def __init__(
        self,
        engine: Engine,
        per_lane: int,
        bounds: tuple[np.ndarray, np.ndarray],
        name: Callable[[int], str],
        lost: Callable[[int, str], None],
        lied: Callable[[int, str], None],
    ) -> None:
        self.engine, self.arrays, self.per_lane, self.name, self.lost = engine, engine.arrays, per_lane, name, lost
        self.bounds, self.lied = bounds, lied
        self.low, self.high = _let_pass(*bounds)
        self._gone: set[int] = set()
        self._told = False

    def reset(self, rows: np.ndarray, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Resets some environments from seeds: (observations [B, ...], masks [B, A]).

        Raises:
            LaneError: an environment failed.
        """
        self.arrays.seed[rows] = seeds
        left = rows.tolist()
        while left:
            self._gone.difference_update(left)
            self._run("reset", left)
            left = [row for row in left if row in self._gone]
        obs = self.arrays.obs[rows]
        self._check_observation(rows, obs)
        return obs, self.arrays.mask[rows]

    def step(self, rows: np.ndarray, action: np.ndarray) -> Stepped:
        """One step of some environments; finished episodes are begun anew at once.

        The episode of an environment that is lost ends truncated, without a reward, at what was seen last.

        Args:
            rows: [B].
            action: as the environments take them, [B, ...].

        Raises:
            LaneError: an environment failed.
        """
        a = self.arrays
        a.action[rows] = action
        there = [row for row in rows.tolist() if row not in self._gone] if self._gone else rows.tolist()
        if there:
            self._run("step", there)
        replaced = np.zeros(len(rows), bool)
        if self._gone:
            replaced = np.isin(rows, list(self._gone))
            self._begin_anew(rows[replaced])
        terminated, truncated = a.terminated[rows], a.truncated[rows]
        done = terminated | truncated
        obs, mask, reward = a.obs[rows], a.mask[rows], a.reward[rows]
        self._check_observation(rows, obs)
        self._check(rows, "reward", reward, np.isfinite(reward))
        next_obs, next_mask = obs, mask
        if done.any():
            next_obs, next_mask = obs.copy(), mask.copy()
            next_obs[done], next_mask[done] = a.next_obs[rows[done]], a.next_mask[rows[done]]
            self._check_observation(rows, next_obs)
        return Stepped(obs, next_obs, mask, next_mask, reward, terminated, truncated, replaced)

    def close(self) -> None:
        """Ends all environments."""
        self.engine.close()

    def _run(self, what: str, rows: list[int]) -> None:
        wrong, deaths = self.engine.run(what, rows)
        self._fail(wrong)
        for death in deaths:
            self._gone.update(death.rows)
            self.lost(death.row // self.per_lane, f"{self.name(death.row)} {death.what}")

    def _begin_anew(self, rows: np.ndarray) -> None:
        """Environments that were lost, as if their episodes had been cut off before this step."""
        a = self.arrays
        a.next_obs[rows], a.next_mask[rows] = a.obs[rows], a.mask[rows]
        self.reset(rows, a.seed[rows] ^ 1)
        a.reward[rows], a.terminated[rows], a.truncated[rows] = 0.0, False, True

    def _fail(self, wrong: dict[int, str]) -> None:
        """Ends the lanes whose environments are wrong; a lane's sentence is of its first one."""
        if not wrong:
            return
        reasons: dict[int, str] = {}
        for row, text in sorted(wrong.items()):
            reasons.setdefault(row // self.per_lane, f"{self.name(row)} {text}{self._when(row)}")
        raise LaneError(list(reasons), "; ".join(reasons.values()), reasons)

    def _when(self, row: int) -> str:
        doing = int(self.arrays.doing[row])
        return f" in {DOING[doing]}" if doing in (MAKING, RESETTING) else f" at step {self.engine.steps(row)}"

    def _check_observation(self, rows: np.ndarray, obs: np.ndarray) -> None:
        """Fails lanes whose observations are not finite; tells of the first that leaves its space."""
        if obs.dtype == np.uint8:
            return
        inside = (obs >= self.low) & (obs <= self.high)  # False for NaN
        if inside.all():
            return
        self._check(rows, "observation", obs, np.abs(obs) <= MOST)  # as tensors, which are of float32
        if not self._told:
            self._told = True
            self._tell(rows, obs, inside)

    def _tell(self, rows: np.ndarray, obs: np.ndarray, inside: np.ndarray) -> None:
        """The space is wrong, not the episode: LunarLander and BipedalWalker leave theirs in ordinary ones."""
        i, *place = np.argwhere(~inside)[0].tolist()
        low, high = (np.broadcast_to(bound, obs.shape[1:])[*place] for bound in self.bounds)
        where = place[0] if len(place) == 1 else place
        found = f"gave {obs[i, *place]:g} in dimension {where} of its observation, outside [{low:g}, {high:g}]"
        self.lied(int(rows[i]), found)

    def _check(self, rows: np.ndarray, name: str, values: np.ndarray, finite: np.ndarray) -> None:
        """Fails lanes whose values are not finite."""
        if finite.all():
            return
        wrong = {}
        for i in np.flatnonzero(~finite.reshape(len(rows), -1).all(1)):
            wrong[int(rows[i])] = f"gave the {name} {values[i][~finite[i]].flat[0]:g}"
        self._fail(wrong)


def _let_pass(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds outside which an observation has left its box by more than rounding, always finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        slack = 1e-4 * (high - low)
        return np.maximum(low - slack, -MOST), np.minimum(high + slack, MOST)
