"""Networks of stable-baselines3: our encoders inside its policies, and a policy as one ordinary module."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecTransposeImage, is_vecenv_wrapped, unwrap_vec_normalize
from torch import Tensor, nn

from nets.registry import build

__all__ = ["EncoderExtractor", "PolicyNetwork", "policy_network"]


class EncoderExtractor(BaseFeaturesExtractor):
    """One of our encoders as the features extractor of a policy.

    Args:
        observation_space: of one observation.
        encoder: {"kind": ..., and that encoder's fields}.
    """

    def __init__(self, observation_space: spaces.Box, encoder: Mapping[str, Any]) -> None:
        assert observation_space.shape is not None
        net: Any = build(encoder, observation_space.shape)
        super().__init__(observation_space, net.out_features)
        self.encoder = net

    def forward(self, observations: Tensor) -> Tensor:
        """Features [B, F] of observations [B, ...]."""
        return self.encoder(observations)


class PolicyNetwork(nn.Module):
    """A policy that takes observations as the environment gives them: normalised and turned as in training.

    A tensor that the policy holds under several names (a shared features extractor) is saved once.

    Args:
        policy: of stable-baselines3.
        mean: of observations, None where they are not normalised.
        std: of observations.
        clip: largest normalised observation.
        images_last: whether observations are images with the channels last, which the policy takes first.
        parts: widths of observations by name, which come side by side as one vector.
    """

    def __init__(
        self,
        policy: BasePolicy,
        mean: Tensor | None,
        std: Tensor | None,
        clip: float,
        images_last: bool,
        parts: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.policy = policy
        self.mean: Tensor | None
        self.std: Tensor | None
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.clip, self.images_last, self.parts = clip, images_last, dict(parts or {})
        first: dict[int, str] = {}
        tensors = (self.named_parameters(remove_duplicate=False), self.named_buffers(remove_duplicate=False))
        names = [(name, first.setdefault(id(t), name)) for name, t in itertools.chain(*tensors)]
        self.aliases = {name: kept for name, kept in names if name != kept}
        self.register_state_dict_post_hook(_drop_aliases)
        self.register_load_state_dict_pre_hook(_fill_aliases)

    def forward(self, obs: Tensor) -> Tensor:
        """Deterministic actions, as the environment takes them, of raw observations [B, ...].

        A recurrent policy acts as at an episode's first step.
        """
        if self.mean is not None and self.std is not None:
            obs = ((obs.double() - self.mean) / self.std).clamp(-self.clip, self.clip).float()
        if self.images_last:
            obs = obs.movedim(-1, -3)
        policy: Any = self.policy
        if self.parts:
            named = dict(zip(self.parts, obs.float().split(list(self.parts.values()), -1), strict=True))
            return self._fitted(policy._predict(named, deterministic=True))
        if hasattr(policy, "lstm_actor"):
            starts = torch.ones(len(obs), device=obs.device)
            lstm = policy.lstm_actor
            memory = torch.zeros(lstm.num_layers, len(obs), lstm.hidden_size, device=obs.device)
            action, _ = policy._predict(obs, (memory, memory), starts, deterministic=True)
        else:
            action = policy._predict(obs, deterministic=True)
        return self._fitted(action)

    def _fitted(self, action: Tensor) -> Tensor:
        """Actions within a box's bounds: scaled from [-1, 1] or clipped, as `BasePolicy.predict` does."""
        space = self.policy.action_space
        if not isinstance(space, spaces.Box):
            return action
        action = action.reshape(-1, *space.shape)
        low, high = (torch.as_tensor(bound, device=action.device) for bound in (space.low, space.high))
        if self.policy.squash_output:
            return low + 0.5 * (action + 1) * (high - low)
        return torch.minimum(torch.maximum(action, low), high)


def policy_network(model: BaseAlgorithm) -> PolicyNetwork:
    """The policy of an agent, a copy on the CPU."""
    policy = _blank(model)
    policy.load_state_dict(model.policy.state_dict())
    assert model.env is not None
    moments = unwrap_vec_normalize(model.env)
    images_last = is_vecenv_wrapped(model.env, VecTransposeImage)
    seen = model.observation_space
    named = seen.spaces if isinstance(seen, spaces.Dict) else {}
    parts = {name: part.shape[0] for name, part in named.items() if part.shape}
    if moments is None or not moments.norm_obs:
        return PolicyNetwork(policy.eval(), None, None, 0.0, images_last, parts)
    rms: Any = moments.obs_rms
    each = [rms[name] for name in parts] if parts else [rms]
    means, variances = ([np.array(getattr(one, of)) for one in each] for of in ("mean", "var"))
    mean, var = (np.concatenate(arrays) if parts else arrays[0] for arrays in (means, variances))
    std = torch.as_tensor(np.sqrt(var + moments.epsilon))
    return PolicyNetwork(policy.eval(), torch.as_tensor(mean), std, moments.clip_obs, images_last, parts)


def _blank(model: BaseAlgorithm) -> BasePolicy:
    """A policy built as the algorithm builds its own (some of them cannot tell their constructor's arguments)."""
    known = inspect.signature(model.policy_class).parameters
    given: dict[str, Any] = {"lr_schedule": model.lr_schedule, "use_sde": model.use_sde}
    given = {name: value for name, value in given.items() if name in known} | model.policy_kwargs
    with torch.random.fork_rng(devices=[]):
        return model.policy_class(model.observation_space, model.action_space, **given)


def _drop_aliases(net: Any, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name in net.aliases:
        state.pop(prefix + name, None)


def _fill_aliases(net: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, kept in net.aliases.items():
        if prefix + kept in state:
            state[prefix + name] = state[prefix + kept]
