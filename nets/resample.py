"""Images made smaller and larger without aliasing, and the two learned ways of making them larger."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from nets.activations import activation as activation_named
from nets.norms import NormName
from nets.norms import norm as norm_named
from nets.registry import register

__all__ = ["Downsample", "ResizeConv", "TransposedConv", "Upsample", "binomial_filter"]


def binomial_filter(taps: int) -> Tensor:
    """The square low-pass filter from a row of Pascal's triangle, [1, 2, 1] or [1, 3, 3, 1], of sum 1.

    Args:
        taps: its side.

    Returns:
        [taps, taps].

    Raises:
        ValueError: fewer than 2 taps.
    """
    if taps < 2:
        raise ValueError(f"a low-pass filter has 2 taps or more, not {taps}")
    row = torch.ones(1)
    for _ in range(taps - 1):
        row = torch.cat([row, row.new_zeros(1)]) + torch.cat([row.new_zeros(1), row])
    row = row / row.sum()
    return torch.outer(row, row)


@register("blur-pool", role="layer")
class Downsample(nn.Module):
    """Halves height and width behind a low-pass filter (Zhang 2019).

    The border is repeated outwards, so a constant image stays that constant (R3GAN, Huang et al. 2024, pads with
    zeros). The filter is a buffer that nothing trains.

    Args:
        in_features: channels.
        taps: the filter's side: 4 is [1, 3, 3, 1], odd sides are rounded down; 3 is [1, 2, 1], rounded up.
    """

    filter: Tensor

    def __init__(self, in_features: int, taps: Literal[3, 4] = 4) -> None:
        super().__init__()
        self.register_buffer("filter", binomial_filter(taps).repeat(in_features, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_features, H, W] to [B, in_features, H / 2, W / 2]."""
        padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
        return functional.conv2d(padded, self.filter, stride=2, groups=x.shape[1])


@register("blur-upsample", role="layer")
class Upsample(nn.Module):
    """Doubles height and width and interpolates with the filter [1, 3, 3, 1] (bilinear; Karras et al. 2019, R3GAN).

    The border is repeated outwards, so a constant image stays that constant. The filter is a buffer that nothing
    trains.

    Args:
        in_features: channels.
    """

    filter: Tensor

    def __init__(self, in_features: int) -> None:
        super().__init__()
        # a quarter of the filter's taps meet each new pixel: 4 keeps the brightness
        self.register_buffer("filter", 4 * binomial_filter(4).repeat(in_features, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_features, H, W] to [B, in_features, 2 H, 2 W]."""
        padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
        return functional.conv_transpose2d(padded, self.filter, stride=2, padding=3, groups=x.shape[1])


@register("resize-conv", role="layer")
class ResizeConv(nn.Module):
    """Doubles height and width by repeating pixels, then convolves (Odena et al. 2016): no checkerboard.

    Convolution of torch's default initialisation, a norm, an activation.

    Args:
        in_features: channels of the input.
        out_features: channels of the output.
        kernel_size: side of the filter, odd.
        norm: a name in `nets.norms`.
        activation: a name in `nets.activations`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int = 3,
        norm: NormName = "none",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_features, out_features, kernel_size, padding=kernel_size // 2, bias=norm != "batch")
        self.norm = norm_named(norm, out_features, channels_first=True)
        self.activation = activation_named(activation)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_features, H, W] to [B, out_features, 2 H, 2 W]."""
        x = functional.interpolate(x, scale_factor=2, mode="nearest")
        return self.activation(self.norm(self.conv(x)))


@register("transposed-conv", role="layer")
class TransposedConv(nn.Module):
    """Doubles height and width by a transposed convolution of size 4 and stride 2 (DCGAN, Radford et al. 2015).

    Weights from N(0, 0.02^2) and biases 0 as there, a norm, an activation.

    Args:
        in_features: channels of the input.
        out_features: channels of the output.
        norm: a name in `nets.norms`.
        activation: a name in `nets.activations`.
    """

    def __init__(self, in_features: int, out_features: int, norm: NormName = "batch", activation: str = "relu") -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_features, out_features, 4, 2, padding=1, bias=norm != "batch")
        nn.init.normal_(self.conv.weight, std=0.02)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)
        self.norm = norm_named(norm, out_features, channels_first=True)
        self.activation = activation_named(activation)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_features, H, W] to [B, out_features, 2 H, 2 W]."""
        return self.activation(self.norm(self.conv(x)))
