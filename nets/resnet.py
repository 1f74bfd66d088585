"""Residual blocks of convolutions and a small residual encoder (He et al. 2015)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from nets.activations import activation as activation_named
from nets.conv import GlobalPool, channels_last, image_shape
from nets.mlp import init_linear
from nets.norms import NormName
from nets.norms import norm as norm_named
from nets.registry import register

__all__ = ["BasicBlock", "Bottleneck", "ResNet"]


class NormedConv(nn.Sequential):
    """A convolution that keeps the size and a norm; He et al.'s normal weights, no bias before batch norm.

    Args:
        in_features: channels of the input.
        out_features: channels of the output.
        kernel_size: side of the filter, odd.
        norm: a name in `nets.norms`.
        stride: of the convolution.
        groups: of channels that are convolved apart.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        norm: NormName,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        conv = nn.Conv2d(
            in_features,
            out_features,
            kernel_size,
            stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=norm != "batch",
        )
        super().__init__(init_linear(conv, "kaiming"), norm_named(norm, out_features, channels_first=True))

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_features, H, W] to [B, out_features, H / stride, W / stride]."""
        conv, norm = self
        return norm(channels_last(conv(x)))


def shortcut(in_features: int, out_features: int, stride: int, norm: NormName) -> nn.Module:
    """What a residual block adds to: its input, projected by a 1x1 convolution only where the shape changes."""
    if stride == 1 and in_features == out_features:
        return nn.Identity()
    return NormedConv(in_features, out_features, 1, norm, stride)


@register("basic-block", role="layer")
class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: activation(shortcut(x) + norm(conv(activation(norm(conv(x)))))).

    He et al. 2015, figure 5 left. Weights are He et al.'s normal.

    Args:
        in_features: channels of the input.
        out_features: channels of the output.
        stride: of the first convolution and the shortcut; 2 halves height and width (odd ones round up).
        groups: of channels that are convolved apart; divides both numbers of channels.
        norm: a name in `nets.norms`.
        activation: a name in `nets.activations`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        stride: int = 1,
        groups: int = 1,
        norm: NormName = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.conv1 = NormedConv(in_features, out_features, 3, norm, stride, groups)
        self.conv2 = NormedConv(out_features, out_features, 3, norm, groups=groups)
        self.shortcut = shortcut(in_features, out_features, stride, norm)
        self.activation = activation_named(activation)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_features, H, W] to [B, out_features, H / stride, W / stride]."""
        y = self.conv2(self.activation(self.conv1(x)))
        return self.activation(self.shortcut(x) + y)


@register("bottleneck", role="layer")
class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution, narrow in the middle, and a shortcut.

    He et al. 2015, figure 5 right; the stride is the 3x3 convolution's, as in torchvision. With `groups` above 1 and
    `expansion` 2 it is ResNeXt's block (Xie et al. 2016). Weights are He et al.'s normal.

    Args:
        in_features: channels of the input.
        out_features: channels of the output; a multiple of `expansion`.
        stride: 2 halves height and width (odd ones round up).
        groups: of the 3x3 convolution's channels; divides out_features / expansion.
        expansion: out_features over the channels in the middle.
        norm: a name in `nets.norms`.
        activation: a name in `nets.activations`.

    Raises:
        ValueError: `expansion` does not divide the width.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        stride: int = 1,
        groups: int = 1,
        expansion: int = 4,
        norm: NormName = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if out_features % expansion:
            raise ValueError(f"an expansion of {expansion} does not divide {out_features} channels")
        middle = out_features // expansion
        self.conv1 = NormedConv(in_features, middle, 1, norm)
        self.conv2 = NormedConv(middle, middle, 3, norm, stride, groups)
        self.conv3 = NormedConv(middle, out_features, 1, norm)
        self.shortcut = shortcut(in_features, out_features, stride, norm)
        self.activation = activation_named(activation)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_features, H, W] to [B, out_features, H / stride, W / stride]."""
        y = self.activation(self.conv2(self.activation(self.conv1(x))))
        return self.activation(self.shortcut(x) + self.conv3(y))


@register("resnet", role="encoder")
class ResNet(nn.Module):
    """The small residual network for 28x28 to 64x64 images (He et al. 2015, section 4.2), averaged over all positions.

    A 3x3 convolution, then stages of residual blocks, each stage but the first halving height and width. The
    defaults are ResNet-20; `hidden_features` (64, 128, 256) with bottlenecks has the widths of He et al. 2016.
    Weights are He et al.'s normal. A deliberate difference: where the shape changes the shortcut is a 1x1
    convolution and a norm, not zero-padding (He's option B, as in torchvision). Pixels about 0 train best.

    Args:
        in_shape: (C, H, W) or (H, W).
        hidden_features: channels of each stage's output.
        depth: residual blocks a stage; with three stages of basic blocks there are 6 depth + 2 layers, head included.
        block: "basic" or "bottleneck".
        groups: of channels that are convolved apart within blocks.
        norm: a name in `nets.norms`.
        activation: a name in `nets.activations`.

    Raises:
        ValueError: no image.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        hidden_features: tuple[int, ...] = (16, 32, 64),
        depth: int = 3,
        block: Literal["basic", "bottleneck"] = "basic",
        groups: int = 1,
        norm: NormName = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.image = image_shape("resnet", in_shape)
        width = hidden_features[0] if block == "basic" else hidden_features[0] // 4
        make = {"basic": BasicBlock, "bottleneck": Bottleneck}[block]
        layers: list[nn.Module] = [NormedConv(self.image[0], width, 3, norm), activation_named(activation)]
        for stage, features in enumerate(hidden_features):
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(make(width, features, stride=stride, groups=groups, norm=norm, activation=activation))
                width = features
        self.layers = nn.Sequential(*layers, GlobalPool("average"))
        self.out_features = width

    def forward(self, x: Tensor) -> Tensor:
        """[B, *in_shape] to [B, out_features]."""
        return self.layers(x.reshape(x.shape[0], *self.image))
