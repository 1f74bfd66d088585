"""Environments for tests that hang, die or lie when they are told to, registered as "tests.agents.broken_env:NAME".

Numbers go up and down; reward 1 for going up. What goes wrong does so for some trials only: the environment knows
its trial by the first seed it was reset with.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

__all__ = ["Broken", "Masked", "Odd"]


class Broken(gymnasium.Env):
    """Counts; ends after 10 steps.

    Args:
        fault: "", "hang", "hang-reset", "die", "exit", "raise", "nan", "inf", "inf-reward", "shape", "kind", "bounds",
            "word", "drift" (steps depend on more than state and action), "hang-constructor".
        seeds: first seeds of the environments that it happens to; None for all.
        at: the step, counted over all episodes, from which on it happens.
        once: a file; the fault happens while it does not exist, and makes it.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}
    drift: ClassVar[int] = 0

    def __init__(self, fault: str = "", seeds: tuple[int, ...] | None = None, at: int = 5, once: str = "") -> None:
        self.observation_space = spaces.Box(-4, 4, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.fault, self.seeds, self.at, self.once = fault, seeds, at, once
        self.first: int | None = None
        self.taken = 0
        if fault == "hang-constructor":
            time.sleep(1000)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.first = seed if self.first is None else self.first
        if self.fault == "hang-reset" and self._due():
            time.sleep(1000)
        self.place, self.left = float(self.np_random.integers(-1, 2)), 10
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.taken += 1
        Broken.drift += 1
        self.left -= 1
        self.place = float(np.clip(self.place + 2 * int(action) - 1, -3, 3))
        obs, reward = self._seen(), float(action)
        if self._due():
            if self.once:
                with open(self.once, "x"):
                    pass
            obs, reward = self._fault(obs, reward)
        return obs, reward, self.left == 0, False, {}

    def _due(self) -> bool:
        chosen = self.seeds is None or self.first in self.seeds
        return chosen and self.taken >= self.at and not (self.once and os.path.exists(self.once))

    def _seen(self) -> np.ndarray:
        return np.array([self.place, self.left / 10], np.float32)

    def _fault(self, obs: Any, reward: Any) -> tuple[Any, Any]:
        if self.fault == "hang":
            time.sleep(1000)
        if self.fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "exit":
            os._exit(3)
        if self.fault == "raise":
            raise RuntimeError("told to")
        lies = {
            "nan": obs * np.nan,
            "inf": obs + np.inf,
            "shape": obs[:1],
            "kind": np.array(["a", "b"]),
            "bounds": obs + 100,
            "drift": obs + 1 / (1 + self.drift),
        }
        rewards = {"inf-reward": np.inf, "word": "much"}
        return lies.get(self.fault, obs), rewards.get(self.fault, reward)


class Told(Broken):
    """Three actions, of which the last is never allowed and the first not below 0: `info` says so; else reward -100."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        obs, _ = super().reset(seed=seed, options=options)
        return obs, {"action_mask": self._allowed().astype(np.int8)}

    def step(self, action: Any) -> Any:
        allowed = self._allowed()[int(action)]
        obs, reward, *rest, _ = super().step(action)
        return obs, reward if allowed else -100.0, *rest, {"action_mask": self._allowed().astype(np.int8)}

    def _allowed(self) -> np.ndarray:
        return np.array([self.place >= 0, True, False])


class Masked(Told):
    """The same, as sb3-contrib has it."""

    def action_masks(self) -> np.ndarray:
        return self._allowed()

    def step(self, action: Any) -> Any:
        return *super().step(action)[:-1], {}


class Odd(gymnasium.Env):
    """Says which action it got; its spaces are as unusual as asked for."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}
    ACTIONS: ClassVar[dict[str, spaces.Space]] = {
        "start": spaces.Discrete(3, start=5),
        "multi": spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [0, 2]]),
        "bits": spaces.MultiBinary([2, 3]),
        "box": spaces.Box(np.array([[0.0], [-2.0]]), np.array([[1.0], [2.0]]), dtype=np.float64),
        "dict": spaces.Dict({"a": spaces.Discrete(2)}),
    }
    SEEN: ClassVar[dict[str, spaces.Space]] = {
        "number": spaces.Discrete(4, start=1),
        "scalar": spaces.Box(-1, 1, (), np.float32),
        "multi": spaces.MultiDiscrete([2, 3]),
        "bits": spaces.MultiBinary(3),
        "dict": spaces.Dict({"a": spaces.Box(-1, 1, (2, 2)), "b": spaces.Discrete(3)}),
        "tuple": spaces.Tuple((spaces.Discrete(2), spaces.Box(-1, 1, (3,)))),
        "picture": spaces.Box(0, 255, (6, 5, 3), np.uint8),
        "grey": spaces.Box(0, 255, (6, 5), np.uint8),
        "graph": spaces.Graph(spaces.Box(-1, 1, (2,)), None),
    }

    def __init__(self, actions: str = "start", seen: str = "scalar") -> None:
        self.action_space, self.observation_space = self.ACTIONS[actions], self.SEEN[seen]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        return self.observation_space.sample(), float(np.sum(action)), False, False, {}


class Rude(Broken):
    """Breaks Gymnasium's rules: it takes no seed."""

    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class Endless(Broken):
    """Ends for action 1 alone; reward 1 for every other step."""

    def step(self, action: Any) -> Any:
        return self._seen(), 1.0 - float(action), bool(action), False, {}


class Terse(Broken):
    """Says how a step ended as many environments do that compute it with numpy, or count.

    Args:
        kind: numpy's "bool_", "array" (of no dimension), or "int".
    """

    def __init__(self, kind: str = "bool_") -> None:
        super().__init__()
        self.kind: Any = {"bool_": np.bool_, "array": np.array, "int": int}[kind]

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, np.float32(reward), self.kind(terminated), self.kind(truncated), info


class Narrow(Broken):
    """Takes seeds of 31 bits, as environments do that are written in C; numpy.random.seed takes 32."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if seed is not None and not 0 <= seed < 2**31:
            raise OverflowError(f"the seed {seed} has more than 31 bits")
        return super().reset(seed=seed, options=options)


for _name in ("Broken", "Masked", "Told", "Odd", "Rude", "Endless", "Terse", "Narrow"):
    gymnasium.register(f"{_name}-v0", f"tests.agents.broken_env:{_name}")
