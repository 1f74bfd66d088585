"""Agents' networks as ordinary ones: what a lane has learned, for raw observations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from agents.envs.spaces import EnvSpec
from nets.lanes import module_of
from nets.normalisers import normaliser_variance
from nets.registry import build

__all__ = ["exported"]

EPS = 1e-8  # of nets.normalisers.normalise


def exported(
    config: Mapping[str, Any], spec: EnvSpec, output: Any, params: Mapping[str, Tensor], norm: Any, lane: int
) -> nn.Module:
    """One lane's network on the CPU; what normalises its observations, or scales bytes, is its first layer.

    Args:
        config: of the network, as `nets.registry.build` takes it.
        spec: the environment.
        output: as `build` takes it.
        params: of all lanes, [K, ...].
        norm: the environments' `norm`, of all lanes: {"obs": moments} where observations are normalised.
        lane: which.
    """
    if "obs" not in norm and not spec.pixels:
        return module_of(lambda: build(config, spec.obs_shape, output), params, {}, lane)
    inner = {f"network.{name}": p[lane : lane + 1] for name, p in params.items()}
    weight = next(iter(params.values()))
    if "obs" in norm:
        moments = {name: t[lane] for name, t in norm["obs"].items()}
        mean, scale = moments["mean"], torch.rsqrt(normaliser_variance(moments) + EPS)
    else:
        mean, scale = weight.new_zeros(spec.obs_shape), weight.new_full(spec.obs_shape, 1 / 255)
    first = {"mean": mean[None].to(weight.dtype), "scale": scale[None].to(weight.dtype)}
    outer = {"kind": "normalised", "network": dict(config)}
    return module_of(lambda: build(outer, spec.obs_shape, output), inner, first, 0)
