"""Normalisation layers.

A layer that has a state assigns new tensors to its buffers while it trains, so that `nets.lanes.call` returns them;
torch's own change theirs in place, which fails under vmap.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from nets.attend import transformed
from nets.registry import register

__all__ = [
    "BatchNorm",
    "ConditionalBatchNorm",
    "GroupNorm",
    "LayerNorm",
    "NormName",
    "RMSNorm",
    "SpectralConv2d",
    "SpectralLinear",
    "norm",
    "power_iteration",
]

NormName = Literal["none", "batch", "layer", "group", "rms"]


def norm(name: NormName, features: int, channels_first: bool = False) -> nn.Module:
    """A norm by name.

    Args:
        name: "none"; "batch"; "layer" (over channels, and over pixels too where they are); "group" (groups of at
            least 8 channels, at most 32 groups); "rms" (over channels, at each pixel).
        features: channels.
        channels_first: whether the input is [B, features, ...] rather than [..., features].

    Raises:
        ValueError: no norm has that name.
    """
    if name == "none":
        return nn.Identity()
    if name == "batch":
        return BatchNorm(features, channels_first=channels_first)
    if name == "layer":
        return nn.GroupNorm(1, features) if channels_first else LayerNorm(features)
    if name == "group":
        groups = max(n for n in range(1, 33) if features % n == 0 and (n == 1 or features // n >= 8))
        return GroupNorm(features, groups, channels_first)
    if name == "rms":
        return RMSNorm(features, channels_first=channels_first)
    raise ValueError(f"unknown norm '{name}'; known: none, batch, layer, group, rms")


@register("layer-norm", role="layer")
class LayerNorm(nn.LayerNorm):
    """Layer normalisation (Ba et al. 2016) over the last axis: torch's own; scale 1 and shift 0 at the start.

    Args:
        in_features: width of the last axis.
        eps: added to the variance.
    """

    def __init__(self, in_features: int, eps: float = 1e-5) -> None:
        super().__init__(in_features, eps)


@register("group-norm", role="layer")
class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu & He 2018): mean and variance over a group of channels and all their pixels.

    Scale 1 and shift 0 at the start. One group is the layer norm of images.

    Args:
        in_features: channels.
        groups: how many; they must divide the channels.
        channels_first: whether the input is [B, in_features, ...] rather than [..., in_features], where each row of
            the last axis is normalised by itself.
        eps: added to the variance.
    """

    def __init__(self, in_features: int, groups: int, channels_first: bool = True, eps: float = 1e-5) -> None:
        super().__init__(groups, in_features, eps)
        self.channels_first = channels_first

    def forward(self, x: Tensor) -> Tensor:
        """Either layout to the same shape."""
        if self.channels_first:
            return super().forward(x)
        return super().forward(x.reshape(-1, self.num_channels)).reshape(x.shape)


@register("rms-norm", role="layer")
class RMSNorm(nn.RMSNorm):
    """Root mean square normalisation (Zhang & Sennrich 2019): x / sqrt(mean x^2 + eps), times a scale of 1 at first.

    Over the channels; of an image at each pixel (the pixel norm of Karras et al. 2018, with a scale).

    Args:
        in_features: channels.
        channels_first: whether the input is [B, in_features, ...] rather than [..., in_features].
        eps: added to the mean square.
    """

    def __init__(self, in_features: int, channels_first: bool = False, eps: float = 1e-6) -> None:
        super().__init__(in_features, eps)
        self.channels_first = channels_first

    def forward(self, x: Tensor) -> Tensor:
        """Either layout to the same shape."""
        if self.channels_first:
            return super().forward(x.movedim(1, -1)).movedim(-1, 1)
        return super().forward(x)


@register("batch-norm", role="layer")
class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) for any number of dimensions; scale 1 and shift 0 at the start.

    In training it normalises by the batch's moments and moves the running ones towards them; otherwise by the running
    ones. Equal to torch's.

    Args:
        in_features: channels.
        momentum: weight of the batch in the running moments.
        eps: added to the variance.
        channels_first: whether the input is [B, in_features, ...] rather than [..., in_features].
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, in_features: int, momentum: float = 0.1, eps: float = 1e-5, channels_first: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(in_features))
        self.bias = nn.Parameter(torch.zeros(in_features))
        self.register_buffer("running_mean", torch.zeros(in_features))
        self.register_buffer("running_var", torch.ones(in_features))
        self.momentum = momentum
        self.eps = eps
        self.channels_first = channels_first

    def forward(self, x: Tensor) -> Tensor:
        """Either layout to the same shape."""
        if self.channels_first and not transformed(x, self.weight) and not (self.training and _single(x)):
            return self._by_torch(x)
        mean, var = self.moments(x)
        shape = (-1,) + (1,) * (x.dim() - 2 if self.channels_first else 0)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return x * scale.reshape(shape) + (self.bias - mean * scale).reshape(shape)

    def _by_torch(self, x: Tensor) -> Tensor:
        """The same to rounding in an ordinary call: torch's kernels, in a third of the passes over `x`."""
        moments = self.running_mean, self.running_var
        if self.training:
            self.running_mean, self.running_var = moments = moments[0].clone(), moments[1].clone()  # new, as above
        return functional.batch_norm(x, *moments, self.weight, self.bias, self.training, self.momentum, self.eps)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance [in_features] to normalise by; in training they also enter the running ones."""
        if not self.training:
            return self.running_mean, self.running_var
        channel = 1 if self.channels_first else x.dim() - 1
        var, mean = torch.var_mean(x, [axis for axis in range(x.dim()) if axis != channel], correction=0)
        count = x.numel() // x.shape[channel]
        unbiased = var.detach() * (count / max(count - 1, 1))
        self.running_mean = self.running_mean + self.momentum * (mean.detach() - self.running_mean)
        self.running_var = self.running_var + self.momentum * (unbiased - self.running_var)
        return mean, var


@register("conditional-batch-norm", role="layer")
class ConditionalBatchNorm(BatchNorm):
    """Batch normalisation with a scale and a shift for every class (Dumoulin et al. 2017, de Vries et al. 2017).

    The moments are those of the whole batch. Scales 1 and shifts 0 at the start.

    Args:
        in_features: channels.
        classes: how many.
        momentum: weight of the batch in the running moments.
        eps: added to the variance.
    """

    def __init__(self, in_features: int, classes: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__(in_features, momentum, eps)
        self.weight = nn.Parameter(torch.ones(classes, in_features))
        self.bias = nn.Parameter(torch.zeros(classes, in_features))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        """[B, in_features, ...] and int64 [B] to the first one's shape."""
        mean, var = self.moments(x)
        shape = x.shape[:2] + (1,) * (x.dim() - 2)
        scale = functional.embedding(labels, self.weight) * torch.rsqrt(var + self.eps)
        shift = functional.embedding(labels, self.bias) - mean * scale
        return x * scale.reshape(shape) + shift.reshape(shape)


def _single(x: Tensor) -> bool:
    """Whether a channel of [B, C, ...] has one number only; torch refuses to normalise that."""
    return x.numel() == x.shape[1]


# Spectral normalisation (Miyato et al. 2018): weight / sigma(weight), sigma the largest singular value


def power_iteration(matrix: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """One step towards the first singular vectors (algorithm 1 of Miyato et al. 2018).

    Args:
        matrix: [O, I].
        u: [O], the left one so far.

    Returns:
        (u [O], v [I]), of length 1.
    """
    v = functional.normalize(matrix.T @ u, dim=0)
    return functional.normalize(matrix @ v, dim=0), v


class _Spectral(nn.Module):
    """What the spectral layers share: the buffer u, and the weight over its largest singular value."""

    weight: Tensor
    u: Tensor

    def settle(self, steps: int = 15) -> None:
        """Starts u anew for the weight as it is; needed after an initialisation from outside."""
        with torch.no_grad():
            u = functional.normalize(torch.randn(len(self.weight)).to(self.weight), dim=0)
            for _ in range(steps):
                u, _ = power_iteration(self.weight.flatten(1), u)
        self.register_buffer("u", u)

    def normalised_weight(self) -> Tensor:
        """weight / sigma with sigma = u' W v; the gradient goes through W, not through u and v."""
        matrix = self.weight.flatten(1)
        u, v = power_iteration(matrix.detach(), self.u)
        if self.training:
            self.u = u
        return self.weight / (u @ matrix @ v)


@register("spectral-linear", role="layer")
class SpectralLinear(_Spectral, nn.Linear):
    """A linear layer whose weight has the largest singular value 1 (Miyato et al. 2018).

    In training each call takes one step of the power iteration; its vector u is a buffer. Starts as `nn.Linear`.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        bias: whether to add one.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self.settle()

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        return functional.linear(x, self.normalised_weight(), self.bias)


@register("spectral-conv", role="layer")
class SpectralConv2d(_Spectral, nn.Conv2d):
    """A convolution whose kernel, as a matrix [out, in * height * width], has the largest singular value 1.

    That is Miyato et al.'s (2018) norm; the convolution's own may be larger. State as in `SpectralLinear`, start as
    `nn.Conv2d`.

    Args:
        in_features: channels of the input.
        out_features: channels of the output.
        kernel_size: odd; with a stride of 1 height and width stay.
        stride: of the kernel.
        bias: whether to add one.
    """

    def __init__(
        self, in_features: int, out_features: int, kernel_size: int = 3, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__(in_features, out_features, kernel_size, stride, kernel_size // 2, bias=bias)
        self.settle()

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_features, H, W] to [B, out_features, H / stride, W / stride]."""
        return functional.conv2d(x, self.normalised_weight(), self.bias, self.stride, self.padding)
