"""Backpropagation you can see: per-layer statistics that a learner logs every now and then.

    (y, buffers), seen = activation_statistics(net, params, buffers, x)    # in the place of `nets.lanes.call`
    metrics = layer_statistics(params, grads, after, seen)                 # {"layers/encoder.0/grad_norm": ...}

Everything is of one trial, every statistic a 0-dim tensor without gradient, so all of it runs under lanes; a learner
keeps a second update function with statistics, `execution.each(..., rare=True)`, and calls it at an interval. A
layer is the module that owns a parameter, or an activation's module, by its path. At most 24 of either kind are told
apart: in a deeper network neighbours are joined, and the name says from where to where ("blocks.0.fc..blocks.1.fc").

What to look for: gradient norms that shrink or grow from layer to layer; an update ratio far from about 1e-3 (too
fast above, too slow below); units that are dead or saturated for every row, which learn nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nets.activations import FastTanh
from nets.lanes import call
from nets.optim import global_norm

__all__ = ["activation_statistics", "grouped", "layer_statistics"]

MOST_LAYERS = 24
ROOT = "network"  # the path of a parameter that no submodule owns
SATURATED = 0.97
# below or at zero for every row: dead (ReLU), or without a use of its positive side (the others)
RECTIFIERS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU)
TANHS = (nn.Tanh, FastTanh)
ACTIVATIONS = (*RECTIFIERS, *TANHS, nn.Sigmoid, nn.Softplus)

Statistics = dict[str, dict[str, Tensor]]  # layer -> statistic -> value


def layer_statistics(
    params: Mapping[str, Tensor],
    grads: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    activations: Statistics | None = None,
    most: int = MOST_LAYERS,
) -> dict[str, Tensor]:
    """The metrics of one update: "layers/PATH/STATISTIC" to a 0-dim tensor.

    Args:
        params: of one trial, before the update.
        grads: as the optimiser got them (after clipping, if there was any).
        after: the parameters after it.
        activations: what `activation_statistics` returned.
        most: how many layers are told apart.

    Returns:
        For every layer with parameters "grad_norm", "weight_norm" and "update_ratio" (the norm of the change over
        that of the weights before; 0 where those are 0), and what `activations` holds. NaN gives NaN.
    """
    metrics = {}
    for layer, names in grouped(params, most).items():
        weight = global_norm({name: params[name] for name in names})
        update = global_norm({name: after[name] - params[name] for name in names})
        tiny = torch.finfo(weight.dtype).tiny
        metrics[f"layers/{layer}/grad_norm"] = global_norm({name: grads[name] for name in names})
        metrics[f"layers/{layer}/weight_norm"] = weight
        metrics[f"layers/{layer}/update_ratio"] = torch.where(weight == 0, 0.0, update / weight.clamp(min=tiny))
    for layer, values in (activations or {}).items():
        metrics.update({f"layers/{layer}/{statistic}": value for statistic, value in values.items()})
    return {name: value.detach() for name, value in metrics.items()}


def activation_statistics(
    net: nn.Module,
    params: Any,
    buffers: Any,
    *inputs: Any,
    noise: Tensor | None = None,
    training: bool | None = None,
    most: int = MOST_LAYERS,
) -> tuple[tuple[Any, Any], Statistics]:
    """`nets.lanes.call`, with statistics of what the network's activation modules gave; a network without any
    (its activations are functions) is watched at its layers with weights.

    Args:
        net: see `call`, also for the next five.
        params: of one trial.
        buffers: of one trial.
        inputs: of the network.
        noise: 0-dim key or None.
        training: as in `call`.
        most: how many layers are told apart.

    Returns:
        ((output, new buffers), {layer: statistics}): "activation_mean" and "activation_std" over everything;
        "dead_share", of a rectifier's units those that are <= 0 for every row; "saturated_share", of a tanh's or
        sigmoid's outputs those in the outer 1.5 % of their range at either end. A unit is a channel of images
        [B, C, H, W] and video, else one of the last axis. Several calls of one module (time steps) are averaged.
    """
    watched = _watched(net)
    seen: dict[str, list[dict[str, Tensor]]] = {name: [] for name in watched}
    handles = [module.register_forward_hook(_recorder(seen[name])) for name, module in watched.items()]
    try:
        result = call(net, params, buffers, *inputs, noise=noise, training=training)
    finally:
        for handle in handles:
            handle.remove()
    return result, _merged({name: calls for name, calls in seen.items() if calls}, most)


def grouped(names: Iterable[str], most: int = MOST_LAYERS) -> dict[str, list[str]]:
    """Parameters by layer: {path of the module: names}, in order; neighbours are joined if there are too many."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layers.setdefault(name.rpartition(".")[0] or ROOT, []).append(name)
    return {title: [name for path in paths for name in layers[path]] for title, paths in _joined(layers, most)}


def _joined(paths: Iterable[str], most: int) -> list[tuple[str, list[str]]]:
    """(title, neighbouring paths), at most `most` of them."""
    paths = list(paths)
    size = max(1, math.ceil(len(paths) / most))
    runs = [paths[i : i + size] for i in range(0, len(paths), size)]
    return [(run[0] if len(run) == 1 else f"{run[0]}..{run[-1]}", run) for run in runs]


def _watched(net: nn.Module) -> dict[str, nn.Module]:
    """The modules whose outputs are looked at, by path."""
    modules = {name or ROOT: module for name, module in net.named_modules()}
    found: dict[str, nn.Module] = {n: m for n, m in modules.items() if isinstance(m, ACTIVATIONS)}
    if found:
        return found
    return {n: m for n, m in modules.items() if next(m.parameters(recurse=False), None) is not None}


def _recorder(calls: list[dict[str, Tensor]]) -> Any:
    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            calls.append(_statistics(module, output.detach()))

    return record


def _statistics(module: nn.Module, y: Tensor) -> dict[str, Tensor]:
    """Of one call's output."""
    wide = y.float() if y.dtype in (torch.float16, torch.bfloat16) else y
    std, mean = torch.std_mean(wide, correction=0)
    found = {"activation_mean": mean, "activation_std": std}
    if isinstance(module, RECTIFIERS):
        units_last = wide.movedim(1, -1) if y.dim() >= 4 else wide
        highest = units_last.reshape(-1, units_last.shape[-1]).amax(0)
        found["dead_share"] = (highest <= 0).to(wide.dtype).mean()
    elif isinstance(module, (*TANHS, nn.Sigmoid)):
        centred = 2 * wide - 1 if isinstance(module, nn.Sigmoid) else wide
        found["saturated_share"] = (centred.abs() > SATURATED).to(wide.dtype).mean()
    return found


def _merged(seen: Mapping[str, list[dict[str, Tensor]]], most: int) -> Statistics:
    """Means over the calls of one module and over the modules that are taken together."""
    merged: Statistics = {}
    for title, paths in _joined(seen, most):
        values: dict[str, list[Tensor]] = {}
        for path in paths:
            for one in seen[path]:
                for statistic, value in one.items():
                    values.setdefault(statistic, []).append(value)
        merged[title] = {statistic: torch.stack(found).mean() for statistic, found in values.items()}
    return merged
