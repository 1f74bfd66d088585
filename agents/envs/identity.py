"""Identity environments: do what you see. One for every action space, and one with forbidden actions.

The rules are those of the environments that stable-baselines3 tests its algorithms with: 100 steps, reward 1 for the
wanted action, learned at 90. Observations are encoded as its policies encode them: choices one-hot, bits and numbers as
they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from agents.envs.spaces import ActionSpace, discrete
from agents.envs.tables import one_hot
from agents.envs.transition import Step, TensorEnv

__all__ = ["REWARD_THRESHOLD", "Identity", "MaskedIdentity"]

EPS = 0.5  # a number is right within this
TIME_LIMIT = 100
REWARD_THRESHOLD = 90.0  # a mean return that counts as learned


class Identity(TensorEnv):
    """Reward 1 for the action that is shown, else 0.

    The state is {"wanted": an action [..., D] (D = 1 for discrete ones), floating-point, "time": [...] steps so far}.

    Args:
        action: the action space; a box must be bounded.
    """

    max_steps = TIME_LIMIT

    def __init__(self, action: ActionSpace) -> None:
        self.action = action
        width = len(action.counts or action.low)
        self.obs_shape = (sum(action.counts) if action.mask_width else width,)
        self.reset_shape = self.step_shape = (width,)

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        """A first wanted action; noise [..., D]."""
        return {"wanted": self._wanted(noise), "time": torch.zeros_like(noise[..., 0])}

    def observe(self, state: Mapping[str, Tensor]) -> Tensor:
        """Observation [..., *obs_shape]."""
        wanted = state["wanted"]
        if not self.action.mask_width:
            return wanted
        parts = [one_hot(w, n) for w, n in zip(wanted.unbind(-1), self.action.counts, strict=True)]
        return torch.cat(parts, -1).to(wanted.dtype)

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step; action [..., *action.shape], noise [..., D] for the next wanted action."""
        wanted = state["wanted"]
        apart = (action.to(wanted.dtype).reshape(wanted.shape) - wanted).abs()
        right = (apart <= (EPS if self.action.kind == "box" else 0)).all(-1)
        after = {"wanted": self._wanted(noise), "time": state["time"] + 1}
        truncated = after["time"] >= TIME_LIMIT
        return after, Step(self.observe(after), right.to(wanted.dtype), torch.zeros_like(truncated), truncated)

    def _wanted(self, noise: Tensor) -> Tensor:
        """An action [..., D], uniform."""
        if self.action.kind == "box":
            low, high = noise.new_tensor(self.action.low), noise.new_tensor(self.action.high)
            return low + noise * (high - low)
        return torch.floor(noise * noise.new_tensor(self.action.counts))


class MaskedIdentity(TensorEnv):
    """Identity with 8 actions, of which a random half, never the wanted one, is forbidden at each step and costs 1.

    The state is {"wanted": [...], "allowed": bool [..., 8], "time": [...] steps so far}; the observation is the wanted
    action, one-hot.
    """

    ACTIONS = 8
    obs_shape = (ACTIONS,)
    action = discrete(ACTIONS)
    reset_shape = step_shape = (1 + ACTIONS,)
    max_steps = TIME_LIMIT
    masked = True

    def reset(self, noise: Tensor) -> dict[str, Tensor]:
        """A first wanted action and what is allowed; noise [..., 9]."""
        return {**self._wanted(noise), "time": torch.zeros_like(noise[..., 0])}

    def observe(self, state: Mapping[str, Tensor]) -> Tensor:
        """Observation [..., 8]."""
        return one_hot(state["wanted"], self.ACTIONS).to(state["wanted"].dtype)

    def mask(self, state: Mapping[str, Tensor]) -> Tensor:
        """Which actions are allowed, bool [..., 8]."""
        return state["allowed"]

    def step(
        self, state: Mapping[str, Tensor], action: Tensor, noise: Tensor
    ) -> tuple[dict[str, Tensor], Step]:
        """One step; action 0 to 7 [...], noise [..., 9] for what is wanted next."""
        dtype = state["wanted"].dtype
        allowed = state["allowed"].gather(-1, action.unsqueeze(-1)).squeeze(-1)
        reward = (action == state["wanted"]).to(dtype) - (~allowed).to(dtype)
        after = {**self._wanted(noise), "time": state["time"] + 1}
        truncated = after["time"] >= TIME_LIMIT
        return after, Step(self.observe(after), reward, torch.zeros_like(truncated), truncated)

    def _wanted(self, noise: Tensor) -> dict[str, Tensor]:
        """A wanted action, and it with the half of lowest draws as those allowed."""
        wanted = torch.floor(noise[..., 0] * self.ACTIONS)
        draws = torch.where(one_hot(wanted, self.ACTIONS), -1.0, noise[..., 1:])
        rank = draws.sort(-1).indices.sort(-1).indices  # a stable argsort has no batching rule
        return {"wanted": wanted, "allowed": rank < self.ACTIONS // 2}
