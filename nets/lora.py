"""LoRA: a trained network learns a new task through small additions to its weights (Hu et al. 2021).

A layer's weight W stays as it is; what is trained is B A, a product of two thin matrices, whose sum with W can be
merged into one ordinary layer at the end:

    names = lora.adapt(net, ["encoder"], rank=4)      # everything but the adapters is frozen
    unfreeze(net, ["head"])                           # nets.transfer
    ...                                               # train as any network, alone or as lanes
    adapters = lora.merge(net)                        # ordinary layers again, with the names they had
    lora.unmerge(net, adapters)                       # and back, bit for bit

Base parameters keep their names, so a checkpoint of the network before `adapt` fits the merged one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nets.regularise import Dropout
from nets.transfer import freeze, matches

__all__ = ["LoRAConv2d", "LoRALinear", "adapt", "adapted", "merge", "merged", "unmerge"]


class LoRALinear(nn.Module):
    """y = W x + b + alpha / rank * B A dropout(x), with A and B trained.

    A is initialised as a linear layer of torch (Kaiming uniform), B with zeros: at first nothing changes.

    Args:
        base: the layer; its parameters are taken over, not copied.
        rank: width of the bottleneck.
        alpha: strength of the addition; the learning rate need not change with the rank.
        dropout: rate of dropping inputs of A.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.lora_a = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.dropout = Dropout(dropout)
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        added = functional.linear(functional.linear(self.dropout(x), self.lora_a), self.lora_b)
        return functional.linear(x, self.weight, self.bias) + self.scale * added

    def plain(self) -> nn.Linear:
        """An ordinary layer with the weight W + alpha / rank * B A, made anew, and the same bias."""
        layer = nn.Linear(self.in_features, self.out_features, device="meta")
        _fill(layer, self, self.lora_b @ self.lora_a)
        return layer


class LoRAConv2d(nn.Module):
    """A convolution plus alpha / rank times a thin one: A of the same shape of kernel with `rank` channels (in each
    group), then B, a 1x1 convolution, with A and B trained.

    A is initialised as a convolution of torch (Kaiming uniform), B with zeros: at first nothing changes.

    Args:
        base: the layer; its parameters are taken over, not copied.
        rank: channels of the bottleneck in each group.
        alpha: strength of the addition.
        dropout: rate of dropping inputs of A.
    """

    def __init__(self, base: nn.Conv2d, rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.in_features, self.out_features = base.in_channels, base.out_channels
        self.groups = base.groups
        self.how: dict[str, Any] = {"stride": base.stride, "padding": base.padding, "dilation": base.dilation}
        self.weight, self.bias = base.weight, base.bias
        self.lora_a = nn.Parameter(base.weight.new_empty(rank * base.groups, *base.weight.shape[1:]))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_channels, rank, 1, 1))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.dropout = Dropout(dropout)
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_features, H, W] to [B, out_features, H', W']."""
        thin = functional.conv2d(self.dropout(x), self.lora_a, groups=self.groups, **self.how)
        added = functional.conv2d(thin, self.lora_b, groups=self.groups)
        return functional.conv2d(x, self.weight, self.bias, groups=self.groups, **self.how) + self.scale * added

    def plain(self) -> nn.Conv2d:
        """An ordinary layer with the sum of both kernels, made anew, and the same bias."""
        how: dict[str, Any] = {**self.how, "kernel_size": tuple(self.weight.shape[2:]), "groups": self.groups}
        layer = nn.Conv2d(self.in_features, self.out_features, **how, device="meta")
        a = self.lora_a.reshape(self.groups, -1, *self.lora_a.shape[1:])  # [G, rank, in / G, h, w]
        b = self.lora_b.reshape(self.groups, -1, a.shape[1])  # [G, out / G, rank]
        _fill(layer, self, torch.einsum("gor,grihw->goihw", b, a).reshape(self.weight.shape))
        return layer


ADAPTERS: dict[type[nn.Module], Any] = {nn.Linear: LoRALinear, nn.Conv2d: LoRAConv2d}


def adapt(
    net: nn.Module,
    patterns: Sequence[str] = ("*",),
    rank: int = 4,
    alpha: float | None = None,
    dropout: float = 0.0,
) -> list[str]:
    """Puts adapters around linear layers and convolutions, those inside attention too, and freezes all the rest.

    Args:
        net: the network, changed in place.
        patterns: of the layers' paths, as in `nets.transfer.freeze`: "encoder" is all within it, "*.attention.*".
        rank: width of the adapters.
        alpha: strength; None: as the rank, so that the addition is B A itself.
        dropout: rate of dropping the adapters' inputs in training.

    Returns:
        Paths of the layers that have an adapter now.

    Raises:
        ValueError: a pattern selects no nn.Linear or nn.Conv2d; a selected layer shares its weight with another (a
            tied one), pads in another way than with zeros, or is adapted already.
    """
    if rank < 1:
        raise ValueError(f"rank must be at least 1, not {rank}")
    modules = dict(net.named_modules())
    chosen: dict[str, nn.Module] = {}
    for pattern in patterns:
        met = {path: m for path, m in modules.items() if path and matches(path, pattern)}
        found = {path: m for path, m in met.items() if type(m) in ADAPTERS}
        if not found:
            others = sorted({type(m).__name__ for m in met.values() if list(m.parameters(recurse=False))})
            raise ValueError(
                f"'{pattern}' selects no nn.Linear or nn.Conv2d, which alone can be adapted; "
                f"with parameters it selects {', '.join(others) or 'nothing'}"
            )
        chosen |= found
    _check(net, chosen)
    freeze(net, ["*"])
    for path, layer in chosen.items():
        adapter = ADAPTERS[type(layer)](layer, rank, rank if alpha is None else alpha, dropout)
        net.set_submodule(path, adapter.train(layer.training))
    return list(chosen)


def merge(net: nn.Module) -> dict[str, nn.Module]:
    """Makes adapted layers ordinary ones again, in place: as fast as before, names and shapes as before.

    Returns:
        The adapted layers by path, for `unmerge`.

    Raises:
        ValueError: the network has no adapters.
    """
    layers = adapted(net)
    if not layers:
        raise ValueError("the network has no adapters to merge")
    for path, layer in layers.items():
        net.set_submodule(path, layer.plain())
    return dict(layers)


def unmerge(net: nn.Module, adapters: Mapping[str, nn.Module]) -> None:
    """Puts the adapted layers that `merge` returned in their places again; base and adapters are what they were."""
    for path, layer in adapters.items():
        net.set_submodule(path, layer)


def merged(net: nn.Module) -> nn.Module:
    """A copy of the network with its adapters, if it has any, merged."""
    other = copy.deepcopy(net)
    if adapted(other):
        merge(other)
    return other


def adapted(net: nn.Module) -> dict[str, LoRALinear | LoRAConv2d]:
    """The adapted layers by path."""
    return {path: m for path, m in net.named_modules() if isinstance(m, LoRALinear | LoRAConv2d)}


def _fill(layer: nn.Linear | nn.Conv2d, adapter: LoRALinear | LoRAConv2d, delta: Tensor) -> None:
    base = adapter.weight
    layer.weight = nn.Parameter((base + adapter.scale * delta).detach(), requires_grad=base.requires_grad)
    layer.bias = adapter.bias
    layer.train(adapter.training)


def _check(net: nn.Module, chosen: Mapping[str, nn.Module]) -> None:
    owners: dict[int, list[str]] = {}
    for name, parameter in net.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for path, layer in chosen.items():
        shared = owners[id(layer.weight)]
        if len(shared) > 1:
            raise ValueError(f"{path} cannot be adapted: one weight is shared by {' and '.join(shared)}")
        if getattr(layer, "padding_mode", "zeros") != "zeros":
            raise ValueError(f"{path} cannot be adapted: it pads with '{layer.padding_mode}', not with zeros")
