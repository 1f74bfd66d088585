"""Environments with three actions that say which are allowed, each in its own way, also where there is nothing to say.

Episodes have 4 to 6 steps. A number goes one up or down, or stays; down is forbidden below 0, up above 0; a forbidden
action raises. What is said behind an end is no mask. Registered as "tests.agents.masked_env:NAME".
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

__all__ = ["Late", "Observed", "Pairs", "Said"]

ACTIONS, STEPS = 3, 6


class Said(gymnasium.Env):
    """Says it beside observations, or by `action_masks()`.

    Args:
        behind: what is said behind an end: "nothing", "zeros", "short", or "raises" where `action_masks()` is asked.
        how: episodes end "terminated" or "truncated".
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}

    def __init__(self, behind: str = "zeros", how: str = "terminated", render_mode: str | None = None) -> None:
        self.observation_space: Any = spaces.Box(-9, 9, (2,), np.float32)
        self.action_space = spaces.Discrete(ACTIONS)
        self.behind, self.how, self.render_mode = behind, how, render_mode
        if behind == "raises":
            self.action_masks = self._asked

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.place, self.time = int(self.np_random.integers(-2, 3)), 0
        self.length = STEPS - int(self.np_random.integers(3))
        return self._seen(), self._info()

    def step(self, action: Any) -> Any:
        if not self._allowed()[int(action)]:
            raise RuntimeError(f"action {int(action)} is forbidden at {self.place}")
        self.place, self.time = self.place + int(action) - 1, self.time + 1
        over = self.time == self.length
        ends = {"terminated": (over, False), "truncated": (False, over)}
        return self._seen(), float(self.place == 0), *ends[self.how], self._info()

    def render(self) -> Any:
        return np.zeros((2, 2, 3), np.uint8)

    def _seen(self) -> Any:
        return np.array([self.place, self.time], np.float32)

    def _allowed(self) -> np.ndarray:
        return np.array([self.place >= 0, True, self.place <= 0], np.int8)

    def _mask(self) -> np.ndarray:
        said = {"zeros": np.zeros(ACTIONS, np.int8), "short": np.ones(1, np.int8)}
        return said[self.behind] if self.time == self.length and self.behind in said else self._allowed()

    def _info(self) -> dict[str, Any]:
        if self.behind == "raises" or (self.behind == "nothing" and self.time == self.length):
            return {}
        return {"action_mask": self._mask()}

    def _asked(self) -> np.ndarray:
        if self.time == self.length:
            raise RuntimeError("the game is over")
        return self._allowed()


class Observed(Said):
    """Says it among its observations, as PettingZoo's environments do.

    Args:
        behind: as of `Said`.
        how: as of `Said`.
        more: whether there is more than one other part.
        width: entries of the mask.
    """

    def __init__(
        self,
        behind: str = "zeros",
        how: str = "terminated",
        more: bool = False,
        width: int = ACTIONS,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(behind, how, render_mode)
        self.more = more
        self.observation_space = spaces.Dict(
            {
                "observation": self.observation_space,
                "action_mask": spaces.Box(0, 1, (width,), np.int8),
                **({"more": spaces.Discrete(2)} if more else {}),
            }
        )

    def _seen(self) -> Any:
        more = {"more": self.time % 2} if self.more else {}
        return {"observation": super()._seen(), "action_mask": self._mask(), **more}

    def _info(self) -> dict[str, Any]:
        return {}


class Pairs(Said):
    """Two choices, of 2 and of 3 actions; only the last action of each is allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.MultiDiscrete([2, 3])

    def step(self, action: Any) -> Any:
        assert list(action) == [1, 2], f"{action} is forbidden"
        return super().step(1)

    def _info(self) -> dict[str, Any]:
        return {"action_mask": np.array([0, 1, 0, 0, 1], np.int8)}


class Late(gymnasium.ObservationWrapper):
    """A user's own wrapper that takes the whole of what `Observed` shows."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        assert isinstance(env.observation_space, spaces.Dict)
        self.observation_space = env.observation_space

    def observation(self, observation: Any) -> Any:
        return {**observation, "observation": observation["observation"] * np.float32(0.5)}


for _name in ("Said", "Observed", "Pairs"):
    gymnasium.register(f"{_name}-v0", f"tests.agents.masked_env:{_name}")
