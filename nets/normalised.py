"""A network together with the normalisation that its training put before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nets.registry import build, register

__all__ = ["Normalised"]


@register("normalised", role="model")
class Normalised(nn.Module):
    """A network that takes raw inputs: inner((x - mean) / std), as `nets.normalisers.normalise` with fixed moments.

    Mean and standard deviation are buffers, 0 and 1 at the start; whoever has trained the inner network sets them.

    Args:
        in_shape: of one raw input, the inner network's own.
        out_features: as the inner network takes it.
        net: the inner network's configuration.
        clip: largest absolute value that the inner network sees; None does not clip.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, in_shape: tuple[int, ...], out_features: Any, net: Mapping[str, Any], clip: float | None = None
    ) -> None:
        super().__init__()
        self.net = build(net, in_shape, out_features)
        self.clip = clip
        self.register_buffer("mean", torch.zeros(in_shape))
        self.register_buffer("std", torch.ones(in_shape))

    def forward(self, x: Tensor, *rest: Any) -> Any:
        """Raw inputs [B, *in_shape], bytes too, to what the inner network gives."""
        z = (x.to(self.mean.dtype) - self.mean) / self.std
        return self.net(z if self.clip is None else z.clamp(-self.clip, self.clip), *rest)
