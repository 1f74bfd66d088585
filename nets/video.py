"""Convolutions over space and time, and a video encoder made of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from nets.activations import activation as activation_named
from nets.conv import GlobalPool
from nets.mlp import init_linear
from nets.norms import NormName
from nets.norms import norm as norm_named
from nets.registry import register

__all__ = ["Conv3dBlock", "VideoCNN"]


@register("conv3d-block", role="layer")
class Conv3dBlock(nn.Module):
    """A 3-D convolution over time, height and width, a norm and an activation (C3D, Tran et al. 2015).

    Factorised, it is "(2+1)D" (Tran et al. 2018): a convolution over space, norm and activation, one over time. The
    channels between the two are chosen so that there are as many weights as in the 3-D convolution (equation in their
    section 3.5). Weights are He et al.'s normal, biases 0.

    Args:
        in_features: channels of the input.
        out_features: channels of the output.
        kernel_size: side of the filter in all three directions, odd.
        stride: over height and width; 2 halves them (odd ones round up).
        time_stride: over time.
        factorised: space and time one after the other.
        norm: a name in `nets.norms`.
        activation: a name in `nets.activations`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int = 3,
        stride: int = 1,
        time_stride: int = 1,
        factorised: bool = False,
        norm: NormName = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        k = kernel_size
        # as (filter, stride) over (time, height, width), from width to width
        steps = [((k, k, k), (time_stride, stride, stride))]
        widths = [in_features, out_features]
        if factorised:
            steps = [((1, k, k), (1, stride, stride)), ((k, 1, 1), (time_stride, 1, 1))]
            between = k**3 * in_features * out_features // (k**2 * in_features + k * out_features)
            widths = [in_features, between, out_features]
        layers: list[nn.Module] = []
        for (before, after), (kernel, strides) in zip(pairwise(widths), steps, strict=True):
            padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
            # batch norm takes the mean away, a bias would learn nothing
            conv = nn.Conv3d(before, after, kernel, strides, padding, bias=norm != "batch")
            layers += [
                init_linear(conv, "kaiming"),
                norm_named(norm, after, channels_first=True),
                activation_named(activation),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_features, T, H, W] to [B, out_features, T / time_stride, H / stride, W / stride]."""
        return self.layers(x)


@register("video-cnn", role="encoder")
class VideoCNN(nn.Module):
    """Blocks of convolutions over space and time, averaged over all positions (Tran et al. 2015 and 2018).

    Each block but the first doubles the channels and halves height, width and time, odd ones rounding up, so that any
    length will do. Pixels about 0, such as [-1, 1], train best.

    Args:
        in_shape: (T, C, H, W).
        hidden_features: channels of the first block.
        depth: how many blocks.
        factorised: space and time one after the other, "(2+1)D"; see `Conv3dBlock`.
        norm: a name in `nets.norms`.
        activation: a name in `nets.activations`.
        first_stride: of the first block, over time, height and width: 1 keeps the video's size.
        pool: "average" over all positions, or "none": every position's channels are features.

    Raises:
        ValueError: no video.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        hidden_features: int = 16,
        depth: int = 3,
        factorised: bool = True,
        norm: NormName = "batch",
        activation: str = "relu",
        first_stride: int = 1,
        pool: Literal["average", "none"] = "average",
    ) -> None:
        super().__init__()
        if len(in_shape) != 4:
            raise ValueError(f"encoder 'video-cnn' takes videos (time, channels, height, width), not {in_shape}")
        widths = [in_shape[1], *(hidden_features << i for i in range(depth))]
        blocks = []
        for i, (before, after) in enumerate(pairwise(widths)):
            stride = 2 if i else first_stride
            blocks.append(
                Conv3dBlock(
                    before,
                    after,
                    stride=stride,
                    time_stride=stride,
                    factorised=factorised,
                    norm=norm,
                    activation=activation,
                )
            )
        self.layers = nn.Sequential(*blocks, GlobalPool("average") if pool == "average" else nn.Flatten())
        positions = 1
        for side in (in_shape[0], *in_shape[2:]):
            for stride in (first_stride, *[2] * (depth - 1)):
                side = -(-side // stride)
            positions *= side
        self.out_features = widths[-1] * (1 if pool == "average" else positions)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C, H, W] to [B, out_features]."""
        return self.layers(x.transpose(1, 2))
