"""Normalisation layers; those with a state replace their buffers, so that `nets.lanes.call` returns the new ones."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["BatchNorm", "NormName", "norm"]

NormName = Literal["none", "batch", "layer", "group", "rms"]


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) for any number of trailing dimensions.

    In training it normalises by the batch's moments and assigns new running ones; torch's own changes them in place,
    which fails under vmap.

    Args:
        in_features: channels, the second axis of the input.
        momentum: weight of the batch in the running moments.
        eps: added to the variance.
    """

    def __init__(self, in_features: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(in_features))
        self.bias = nn.Parameter(torch.zeros(in_features))
        self.register_buffer("running_mean", torch.zeros(in_features))
        self.register_buffer("running_var", torch.ones(in_features))
        self.momentum = momentum
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_features, ...] to the same shape."""
        mean, var = self.running_mean, self.running_var
        if self.training:
            axes = [0, *range(2, x.dim())]
            var, mean = torch.var_mean(x, axes, correction=0)
            count = x.numel() // x.shape[1]
            unbiased = var.detach() * (count / max(count - 1, 1))
            self.running_mean = self.running_mean + self.momentum * (mean.detach() - self.running_mean)
            self.running_var = self.running_var + self.momentum * (unbiased - self.running_var)
        shape = (-1,) + (1,) * (x.dim() - 2)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return x * scale.reshape(shape) + (self.bias - mean * scale).reshape(shape)


def norm(name: NormName, features: int, channels_first: bool = False) -> nn.Module:
    """A norm by name.

    Args:
        name: "none"; "batch"; "layer" (over channels, and over pixels too where they are); "group" (groups of at
            least 8 channels, at most 32 groups); "rms".
        features: channels.
        channels_first: whether the input is [B, features, ...] rather than [..., features].
    """
    if name == "batch":
        return BatchNorm(features)
    if name == "none":
        return nn.Identity()
    if channels_first:
        groups = {"layer": 1, "group": max(1, min(32, features // 8))}
        return nn.GroupNorm(groups[name], features)
    return {"layer": nn.LayerNorm, "rms": nn.RMSNorm}[name](features)
