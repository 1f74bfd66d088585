"""Observations and rewards normalised while agents learn, as stable-baselines3's VecNormalize does.

The moments are part of a trial's state: they are saved, resumed and moved with it, and every lane has its own.
Functions of one trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.learner import Lanes, tree_map
from nets.normalisers import (
    normalise,
    normalise_rewards,
    normaliser_init,
    normaliser_update,
    rewards_init,
    rewards_update,
)

__all__ = ["Normalising"]


class Normalising:
    """Which of the two are normalised.

    Args:
        observations: about mean 0 and variance 1, clipped to 10.
        rewards: divided by the standard deviation of the discounted return, clipped to 10.
        dtype: of normalised observations; None: as they come.
    """

    def __init__(self, observations: bool, rewards: bool, dtype: torch.dtype | None = None) -> None:
        self.observations, self.rewards, self.dtype = observations, rewards, dtype

    def start(self, obs_shape: Sequence[int], n_envs: int, lanes: Lanes) -> dict[str, Any]:
        """The moments of all lanes at progress 0, {} where nothing is normalised."""
        one: dict[str, Any] = {}
        if self.observations:
            one["obs"] = normaliser_init(obs_shape, device=lanes.execution.device)
        if self.rewards:
            one["reward"] = rewards_init(n_envs, device=lanes.execution.device)
        return tree_map(lambda t: t.expand(len(lanes), *t.shape).clone(), one)

    def first(self, norm: Any, obs: Tensor) -> tuple[Any, Tensor]:
        """(moments, what the policy sees) after a reset of all N environments."""
        if not self.observations:
            return norm, obs
        moments = normaliser_update(norm["obs"], obs)
        return {**norm, "obs": moments}, self._seen(moments, obs)

    def step(
        self, norm: Any, obs: Tensor, next_obs: Tensor, reward: Tensor, done: Tensor, gamma: Tensor
    ) -> tuple[Any, Tensor, Tensor, Tensor]:
        """(moments, obs, next_obs, reward) after one step.

        Args:
            norm: the moments before.
            obs: observations after resets [N, ...]; they enter the moments.
            next_obs: observations before resets.
            reward: [N].
            done: bool [N].
            gamma: discount, 0-dim.
        """
        norm = dict(norm)
        if self.observations:
            norm["obs"] = normaliser_update(norm["obs"], obs)
            obs, next_obs = self._seen(norm["obs"], obs), self._seen(norm["obs"], next_obs)
        if self.rewards:
            after = rewards_update(norm["reward"], reward, done, gamma)
            reward = normalise_rewards(after, reward)
            norm["reward"] = after
        return norm, obs, next_obs, reward

    def frozen(self, norm: Any, obs: Tensor) -> Tensor:
        """What the policy sees of observations that leave the moments as they are."""
        return self._seen(norm["obs"], obs) if self.observations else obs

    def _seen(self, moments: Any, obs: Tensor) -> Tensor:
        return normalise(moments, obs, dtype=self.dtype)
