"""Digits-v0: a contextual bandit of real digits. Say which digit an image shows.

The images are the training rows of the data set that `supervised`'s classifiers learn (harness/data/digits.py), fed as
those are: pixels in [-1, 1], so that an encoder may go from one to the other.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from agents.envs.spaces import discrete
from agents.envs.tables import Table
from agents.envs.transition import Step, TensorEnv
from harness import data

__all__ = ["Digits"]

IMAGES = 16  # of one episode


class Digits(TensorEnv):
    """Reward 1 for the right digit, else 0; an episode is 16 images, each drawn from all training rows.

    The state is {"row": int64 [...] of the training split, "time": [...] images so far}; the observation is the image
    [1, 8, 8].
    """

    obs_shape = (1, *data.digits.SHAPE)
    action = discrete(10)
    reset_shape = step_shape = (1,)
    max_steps = IMAGES
    data_sets = ("digits",)

    def __init__(self) -> None:
        rows = data.load("digits")["train"]
        self.count = len(rows)
        self.images = Table(2 * torch.tensor(rows.x).unsqueeze(1) - 1)
        self.labels = Table(torch.tensor(rows.y))

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        """A first image; noise [..., 1]."""
        self.images.on(noise), self.labels.on(noise)
        return {"row": self._row(noise), "time": torch.zeros_like(noise[..., 0])}

    def observe(self, state: Mapping[str, Tensor]) -> Tensor:
        """Observation [..., 1, 8, 8]."""
        return self.images.on(state["row"])[state["row"]].to(state["time"].dtype)

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step; action 0 to 9 [...], noise [..., 1] for the next image."""
        right = action == self.labels.on(state["row"])[state["row"]]
        after = {"row": self._row(noise), "time": state["time"] + 1}
        terminated = after["time"] >= IMAGES
        reward = right.to(after["time"].dtype)
        return after, Step(self.observe(after), reward, terminated, torch.zeros_like(terminated))

    def _row(self, noise: Tensor) -> Tensor:
        return (noise[..., 0] * self.count).long()
