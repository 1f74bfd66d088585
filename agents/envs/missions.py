"""MiniGrid's observations as one vector: numbers, and the mission letter by letter. Gymnasium only.

Different from MiniGrid's own FlatObsWrapper: the direction stays, the room for the mission is that of the longest one
(BabyAI's have up to 309 letters), and letters that it does not know share a column.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

__all__ = ["FlatMission", "has_mission"]

LETTERS = "abcdefghijklmnopqrstuvwxyz ,"  # and one column for all others
LEAST = 96  # letters, as FlatObsWrapper
BABYAI = 320  # "A and B, then C and D", of which each puts one thing next to another and says where both are


def has_mission(space: spaces.Space) -> bool:
    """Whether observations have names, one of which is MiniGrid's mission."""
    return isinstance(space, spaces.Dict) and hasattr(space.spaces.get("mission"), "mission_func")


class FlatMission(gymnasium.ObservationWrapper):
    """All but the mission as Gymnasium flattens it, by name, then the mission: one-hot, one letter after another.

    Args:
        env: its observations have a mission.
        letters: room for the mission; 0 for the longest that the environment may give.

    Raises:
        ValueError: at a reset, a mission that is longer.
    """

    def __init__(self, env: gymnasium.Env, letters: int = 0) -> None:
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, spaces.Dict)
        self.letters = letters or _longest(env, space["mission"])
        self.rest = spaces.Dict({name: part for name, part in space.spaces.items() if name != "mission"})
        flat = spaces.utils.flatten_space(self.rest)
        assert isinstance(flat, spaces.Box)
        text = np.zeros(self.letters * (len(LETTERS) + 1), np.float32)
        low, high = (np.concatenate([b.astype(np.float32), t]) for b, t in ((flat.low, text), (flat.high, text + 1)))
        self.observation_space = spaces.Box(low, high, dtype=np.float32)
        self.mission: tuple[str, np.ndarray] = ("", self._encoded(""))

    def observation(self, obs: dict[str, Any]) -> np.ndarray:
        """One vector."""
        if obs["mission"] != self.mission[0]:
            self.mission = (obs["mission"], self._encoded(obs["mission"]))
        numbers = spaces.utils.flatten(self.rest, {name: obs[name] for name in self.rest.spaces})
        return np.concatenate([np.asarray(numbers, np.float32), self.mission[1]])

    def _encoded(self, mission: str) -> np.ndarray:
        if len(mission) > self.letters:
            mend = f"{{flatten: {{letters: {len(mission)}}}}}"
            raise ValueError(f"a mission of {len(mission)} letters, room for {self.letters}; write {mend}")
        text = np.zeros((self.letters, len(LETTERS) + 1), np.float32)
        places = [LETTERS.find(letter) for letter in mission.lower()]  # -1, the last column, for all others
        text[np.arange(len(places)), places] = 1
        return text.reshape(-1)


def _longest(env: gymnasium.Env, space: Any) -> int:
    """Letters of the longest mission."""
    if any("minigrid.envs.babyai" in cls.__module__ for cls in type(env.unwrapped).__mro__):
        return BABYAI
    words = [max(choices, key=len) for choices in space.ordered_placeholders or ()]
    return max(LEAST, len(space.mission_func(*words)))
