"""Networks of agents as others use them: exported, served, explained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from agents.envs.spaces import EnvSpec
from nets.normalisers import normaliser_variance
from nets.registry import build

__all__ = ["deployed"]

CLIP, EPS = 10.0, 1e-8  # of `nets.normalisers.normalise`


def deployed(net: nn.Module, spec: EnvSpec, norm: Mapping[str, Any], lane: int) -> nn.Module:
    """A lane's network as one that takes what the environment gives; itself where training changed nothing of that.

    Args:
        net: of `nets.lanes.module_of`, built by `nets.registry.build`.
        spec: the environment's; bytes are scaled as `agents.envs.spaces.see` does.
        norm: the environments' moments, `state["envs"]["norm"]`, which normalise observations where they have "obs".
        lane: whose moments.
    """
    if "obs" in norm:
        moments: dict[str, Tensor] = {name: t[lane].detach().cpu() for name, t in norm["obs"].items()}
        return _behind(net, moments["mean"], (normaliser_variance(moments) + EPS).sqrt(), CLIP)
    if spec.pixels:
        return _behind(net, torch.zeros(spec.obs_shape), torch.full(spec.obs_shape, 255.0), None)
    return net


def _behind(net: Any, mean: Tensor, std: Tensor, clip: float | None) -> nn.Module:
    """The network behind (x - mean) / std."""
    recipe = net.recipe
    config = {"kind": "normalised", "net": recipe["config"], "clip": clip}
    with torch.random.fork_rng(devices=[]):  # initialising must not move the caller's generator
        whole: Any = build(config, recipe["input_shape"], recipe["output"])
    whole.net.load_state_dict(net.state_dict())
    whole.mean.copy_(mean)
    whole.std.copy_(std)
    return whole
