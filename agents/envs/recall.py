"""Recall-v0: a cue, a delay, a question. Only a policy with memory does better than one answer in four.

The shortest form of the delayed-recall tasks of Hochreiter & Schmidhuber (1997) and of bsuite's memory length.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from agents.envs.spaces import discrete
from agents.envs.tables import one_hot
from agents.envs.transition import Step, TensorEnv

__all__ = ["Recall"]

CUES = 4
DELAY = 6  # blank observations between cue and question


class Recall(TensorEnv):
    """See one of 4 cues, then nothing six times, then a question: reward 1 for the cue, else 0.

    The state is {"cue": [...], "time": [...] steps so far}; the observation is the cue one-hot at the first step, then
    whether this is the question. Only the last action, the answer, counts. An episode always ends by itself, after 8
    steps.
    """

    obs_shape = (CUES + 1,)
    action = discrete(CUES)
    reset_shape = (1,)
    max_steps = DELAY + 2

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        """A cue; noise [..., 1]."""
        return {"cue": torch.floor(noise[..., 0] * CUES), "time": torch.zeros_like(noise[..., 0])}

    def observe(self, state: Mapping[str, Tensor]) -> Tensor:
        """Observation [..., 5]."""
        cue, time = state["cue"], state["time"].unsqueeze(-1)
        shown = one_hot(cue, CUES) & (time == 0)
        return torch.cat((shown, time == DELAY + 1), -1).to(cue.dtype)

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step; action 0 to 3 [...], noise unused [..., 0]."""
        after = {"cue": state["cue"], "time": state["time"] + 1}
        terminated = after["time"] >= self.max_steps
        reward = (terminated & (action == state["cue"])).to(after["time"].dtype)
        return after, Step(self.observe(after), reward, terminated, torch.zeros_like(terminated))
