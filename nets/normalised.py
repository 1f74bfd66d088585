"""Networks whose first layer is what training has learned of its inputs' ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nets.registry import build, register

__all__ = ["Normalised"]


@register("normalised", role="model")
class Normalised(nn.Module):
    """A network behind a fixed normalisation of its inputs: (x - mean) * scale, clipped.

    What an agent saw normalised while it learned (`nets.normalisers`), or as bytes, its exported network takes raw.

    Args:
        in_shape: of one row.
        out_features: as the inner network takes it.
        network: the inner network's configuration.
        clip: largest absolute value of a normalised number.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, in_shape: tuple[int, ...], out_features: Any, network: Mapping[str, Any], clip: float = 10.0
    ) -> None:
        super().__init__()
        self.network = build(network, in_shape, out_features)
        self.register_buffer("mean", torch.zeros(in_shape))
        self.register_buffer("scale", torch.ones(in_shape))
        self.clip = clip

    def forward(self, x: Tensor, *rest: Any) -> Any:
        """Raw rows [B, *in_shape] to the inner network's output."""
        z = (x.to(self.scale.dtype) - self.mean) * self.scale
        return self.network(z.clamp(-self.clip, self.clip), *rest)
