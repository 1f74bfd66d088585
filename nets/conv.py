"""A small convolutional encoder."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from nets.activations import activation as activation_named

__all__ = ["ConvBlock", "ConvEncoder"]


class ConvBlock(nn.Module):
    """A 3x3 convolution that keeps the size, a norm, an activation, and a halving of height and width.

    Args:
        in_features: channels of the input.
        out_features: channels of the output.
        activation: a name in `nets.activations`.
        norm: "none", or "layer" (over channels and pixels together: a group norm with one group).
        halve: whether 2x2 means halve height and width (odd ones round down).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str = "relu",
        norm: str = "none",
        halve: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_features, out_features, 3, padding=1)
        self.norm = nn.GroupNorm(1, out_features) if norm == "layer" else nn.Identity()
        self.activation = activation_named(activation)
        self.halve = halve

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_features, H, W] to [B, out_features, H / 2, W / 2]."""
        x = self.activation(self.norm(self.conv(x)))
        return functional.avg_pool2d(x, 2) if self.halve else x


class ConvEncoder(nn.Module):
    """Convolutional blocks of growing width, flattened.

    The first block keeps the image's size, the others halve it and double the channels.

    Args:
        in_features: channels of the image.
        image: (height, width).
        hidden_features: channels of the first block.
        depth: how many blocks; height and width must survive depth - 1 halvings.
        activation: a name in `nets.activations`.
        norm: "none" or "layer".

    Raises:
        ValueError: the image is too small for that depth.
    """

    def __init__(
        self,
        in_features: int,
        image: tuple[int, int],
        hidden_features: int,
        depth: int,
        activation: str = "relu",
        norm: str = "none",
    ) -> None:
        super().__init__()
        height, width = (side >> (depth - 1) for side in image)
        if min(height, width) < 1:
            raise ValueError(f"depth {depth} halves an image of {image[0]} x {image[1]} to nothing")
        widths = [in_features, *(hidden_features << i for i in range(depth))]
        self.blocks = nn.Sequential(
            *(ConvBlock(widths[i], widths[i + 1], activation, norm, halve=i > 0) for i in range(depth))
        )
        self.out_features = widths[-1] * height * width

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, out_features]."""
        return self.blocks(x).flatten(1)
