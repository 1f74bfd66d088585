"""Regularisation: dropout and its relatives, penalties, softened targets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nets.noise import active_noise
from nets.registry import register

__all__ = ["Dropout"]


@register("dropout", role="layer")
class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) whose noise is passed in: see `nets.noise`.

    In training every number is zeroed with a probability and the rest scaled up. Outside of `nets.lanes.call` with
    noise it draws from torch's own generator, as `nn.Dropout`.

    Args:
        rate: the probability of zeroing, in [0, 1).
    """

    def __init__(self, rate: float = 0.1) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        if not self.training or self.rate == 0:
            return x
        noise = active_noise()
        u = torch.rand_like(x) if noise is None else noise.uniform(x.shape, x)
        return torch.where(u < self.rate, 0.0, x / (1 - self.rate))
