"""One small task in four forms: a number or a picture of it is seen, from tensors or from Gymnasium.

A mark stands at one of six places and moves one place an action, down or up; reward 1 where it stands in the upper
half; an episode has 7 steps, then its time is up.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from agents.envs.spaces import box, discrete
from agents.envs.transition import Step, TensorEnv

__all__ = ["PLACES", "STEPS", "Halves", "Square", "SquareTensors"]

PLACES, STEPS = 6, 7


class Square(gymnasium.Env):
    """The task from Gymnasium; pictures are bytes, height x width x channels, the rows up to the mark white.

    Args:
        seen: "vector" or "image".
        actions: "discrete" or "box".
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, seen: str = "vector", actions: str = "discrete") -> None:
        self.seen = seen
        self.observation_space = (
            spaces.Box(-1, 1, (2,), np.float32)
            if seen == "vector"
            else spaces.Box(0, 255, (PLACES, PLACES + 1, 2), np.uint8)
        )
        self.action_space = spaces.Discrete(2) if actions == "discrete" else spaces.Box(-2, 2, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.place, self.time = int(self.np_random.integers(PLACES)), 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        up = action > 0.5 if isinstance(self.action_space, spaces.Discrete) else action[0] > 0
        self.place, self.time = min(max(self.place + (1 if up else -1), 0), PLACES - 1), self.time + 1
        return self._observation(), float(self.place >= PLACES // 2), False, self.time >= STEPS, {}

    def _observation(self) -> np.ndarray:
        if self.seen == "vector":
            return np.array([2 * self.place / (PLACES - 1) - 1, self.time / STEPS], np.float32)
        picture = np.zeros((PLACES, PLACES + 1, 2), np.uint8)
        picture[: self.place + 1, :, 0] = 255
        picture[:, : self.time, 1] = 255
        return picture


class Halves(gymnasium.Env):
    """A picture whose left or right half is white; reward 1 for the action that names the half, eight times."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}
    observation_space = spaces.Box(0, 255, (PLACES, PLACES, 1), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self._picture(), {}

    def step(self, action: Any) -> Any:
        right, self.time = int(action) == self.half, self.time + 1
        return self._picture(), float(right), self.time == 8, False, {}

    def _picture(self) -> np.ndarray:
        self.half = int(self.np_random.integers(2))
        picture = np.zeros((PLACES, PLACES, 1), np.uint8)
        picture[:, self.half * PLACES // 2 : (self.half + 1) * PLACES // 2] = 255
        return picture


class SquareTensors(TensorEnv):
    """The task as tensors: {"place": [...], "time": [...]}; arguments as of `Square`."""

    reset_shape = (1,)
    max_steps = STEPS

    def __init__(self, seen: str = "vector", actions: str = "discrete") -> None:
        self.seen = seen
        self.obs_shape = (2,) if seen == "vector" else (2, PLACES, PLACES + 1)
        self.action = discrete(2) if actions == "discrete" else box((-2.0,), (2.0,))

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        place = torch.floor(noise[..., 0] * PLACES)
        return {"place": place, "time": torch.zeros_like(place)}

    def observe(self, state: Any) -> Tensor:
        place, time = state["place"], state["time"]
        if self.seen == "vector":
            return torch.stack([2 * place / (PLACES - 1) - 1, time / STEPS], -1)
        rows = torch.arange(PLACES) <= place.unsqueeze(-1)
        columns = torch.arange(PLACES + 1) < time.unsqueeze(-1)
        both = torch.broadcast_tensors(rows.unsqueeze(-1), columns.unsqueeze(-2))
        return torch.stack(both, -3).to(place.dtype)

    def step(self, state: Any, action: Tensor, noise: Tensor) -> tuple[dict[str, Tensor], Step]:
        up = action > 0.5 if self.action.kind == "discrete" else action[..., 0] > 0
        place = (state["place"] + torch.where(up, 1.0, -1.0).to(state["place"].dtype)).clamp(0, PLACES - 1)
        after = {"place": place, "time": state["time"] + 1}
        reward = (place >= PLACES // 2).to(place.dtype)
        over = after["time"] >= STEPS
        return after, Step(self.observe(after), reward, torch.zeros_like(over), over)
