"""Published convolutional encoders: LeNet, Nature-CNN, IMPALA's residual network, the network for 10x10 grids."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from nets.activations import activation as activation_named
from nets.conv import Pool, image_shape
from nets.mlp import Init, init_linear
from nets.registry import register

__all__ = ["GridCNN", "Impala", "LeNet", "NatureCNN"]


@register("lenet", role="encoder")
class LeNet(nn.Module):
    """LeNet-5 (LeCun et al. 1998) without its last layer: 28x28 pixels to 84 features.

    Convolution of 6 filters, halving, 16 filters, halving, dense layers of 120 and 84. The padding of 2 that turns
    28x28 into the paper's 32x32 is built in. torch's default initialisation. Deliberate differences, as usual today:
    pooling has no weights, the second convolution sees all channels, tanh is unscaled. Pixels in [-1, 1] or [0, 1].

    Args:
        in_shape: (C, H, W) or (H, W), 12x12 or more.
        activation: a name in `nets.activations`.
        pool: "average" as in the paper, or "max".
        init: "torch", "orthogonal", "kaiming" or "zero"; see `nets.mlp.init_linear`.

    Raises:
        ValueError: no image, or too small.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        activation: str = "tanh",
        pool: Literal["average", "max"] = "average",
        init: Init = "torch",
    ) -> None:
        super().__init__()
        self.image = image_shape("lenet", in_shape, smallest=12)
        channels, *sides = self.image
        height, width = ((side // 2 - 4) // 2 for side in sides)
        self.layers = nn.Sequential(
            init_linear(nn.Conv2d(channels, 6, 5, padding=2), init),
            activation_named(activation),
            Pool(pool),
            init_linear(nn.Conv2d(6, 16, 5), init),
            activation_named(activation),
            Pool(pool),
            nn.Flatten(),
            init_linear(nn.Linear(16 * height * width, 120), init),
            activation_named(activation),
            init_linear(nn.Linear(120, 84), init),
            activation_named(activation),
        )
        self.out_features = 84

    def forward(self, x: Tensor) -> Tensor:
        """[B, *in_shape] to [B, 84]."""
        return self.layers(x.reshape(x.shape[0], *self.image))


@register("nature-cnn", role="encoder")
class NatureCNN(nn.Module):
    """The Atari network of Mnih et al. 2015: 84x84 pixels of 4 frames to 512 features.

    Convolutions of 8x8 with stride 4, 4x4 with stride 2 and 3x3, and a dense layer. torch's default initialisation
    is the paper's; policy gradients usually take "orthogonal". Pixels in [0, 1].

    Args:
        in_shape: (C, H, W) or (H, W), 36x36 or more.
        hidden_features: width of the dense layer.
        channels: of the three convolutions.
        activation: a name in `nets.activations`.
        init: "torch", "orthogonal" (gain sqrt(2)), "kaiming" or "zero"; see `nets.mlp.init_linear`.

    Raises:
        ValueError: no image, or too small.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        hidden_features: int = 512,
        channels: tuple[int, int, int] = (32, 64, 64),
        activation: str = "relu",
        init: Init = "torch",
    ) -> None:
        super().__init__()
        self.image = image_shape("nature-cnn", in_shape, smallest=36)
        height, width = (((side - 8) // 4 + 1 - 4) // 2 + 1 - 2 for side in self.image[1:])
        layers: list[nn.Module] = []
        widths = pairwise((self.image[0], *channels))
        for (before, after), kernel_size, stride in zip(widths, (8, 4, 3), (4, 2, 1), strict=True):
            layers += [
                init_linear(nn.Conv2d(before, after, kernel_size, stride), init),
                activation_named(activation),
            ]
        dense = init_linear(nn.Linear(channels[-1] * height * width, hidden_features), init)
        self.layers = nn.Sequential(*layers, nn.Flatten(), dense, activation_named(activation))
        self.out_features = hidden_features

    def forward(self, x: Tensor) -> Tensor:
        """[B, *in_shape] to [B, out_features]."""
        return self.layers(x.reshape(x.shape[0], *self.image))


class ImpalaBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))) with 3x3 convolutions and no norm.

    Args:
        features: channels of input and output.
        activation: a name in `nets.activations`.
        init: see `nets.mlp.init_linear`.
    """

    def __init__(self, features: int, activation: str, init: Init) -> None:
        super().__init__()
        self.activation = activation_named(activation)
        self.conv1 = init_linear(nn.Conv2d(features, features, 3, padding=1), init)
        self.conv2 = init_linear(nn.Conv2d(features, features, 3, padding=1), init)

    def forward(self, x: Tensor) -> Tensor:
        """[B, features, H, W] to the same shape."""
        return x + self.conv2(self.activation(self.conv1(self.activation(x))))


@register("impala", role="encoder")
class Impala(nn.Module):
    """The residual network of 15 convolutions of IMPALA (Espeholt et al. 2018, figure 3 right), without its LSTM.

    Each section: a 3x3 convolution, a maximum over 3x3 with stride 2, residual blocks; a dense layer ends it. torch's
    default initialisation. Pixels in [0, 1].

    Args:
        in_shape: (C, H, W) or (H, W).
        hidden_features: width of the dense layer.
        channels: of each section.
        depth: residual blocks a section.
        activation: a name in `nets.activations`.
        init: "torch", "orthogonal" (gain sqrt(2)), "kaiming" or "zero"; see `nets.mlp.init_linear`.

    Raises:
        ValueError: no image.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        hidden_features: int = 256,
        channels: tuple[int, ...] = (16, 32, 32),
        depth: int = 2,
        activation: str = "relu",
        init: Init = "torch",
    ) -> None:
        super().__init__()
        self.image = image_shape("impala", in_shape)
        height, width = self.image[1:]
        layers: list[nn.Module] = []
        for before, after in pairwise((self.image[0], *channels)):
            layers += [
                init_linear(nn.Conv2d(before, after, 3, padding=1), init),
                Pool("max", 3, stride=2, padding=1),
                *(ImpalaBlock(after, activation, init) for _ in range(depth)),
            ]
            height, width = (height + 1) // 2, (width + 1) // 2
        layers += [activation_named(activation), nn.Flatten()]
        dense = init_linear(nn.Linear(channels[-1] * height * width, hidden_features), init)
        self.layers = nn.Sequential(*layers, dense, activation_named(activation))
        self.out_features = hidden_features

    def forward(self, x: Tensor) -> Tensor:
        """[B, *in_shape] to [B, out_features]."""
        return self.layers(x.reshape(x.shape[0], *self.image))


@register("grid-cnn", role="encoder")
class GridCNN(nn.Module):
    """The network for the 10x10 grids of MinAtar (Young & Tian 2019): one 3x3 convolution and a dense layer.

    torch's default initialisation, as there. Cells are 0 or 1, a channel for each kind of object.

    Args:
        in_shape: (C, H, W) or (H, W), 3x3 or more.
        hidden_features: width of the dense layer.
        channels: of the convolution.
        activation: a name in `nets.activations`.
        init: "torch", "orthogonal" (gain sqrt(2)), "kaiming" or "zero"; see `nets.mlp.init_linear`.

    Raises:
        ValueError: no grid, or too small.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        hidden_features: int = 128,
        channels: int = 16,
        activation: str = "relu",
        init: Init = "torch",
    ) -> None:
        super().__init__()
        self.image = image_shape("grid-cnn", in_shape, smallest=3)
        before, height, width = self.image
        self.conv = init_linear(nn.Conv2d(before, channels, 3), init)
        self.dense = init_linear(nn.Linear(channels * (height - 2) * (width - 2), hidden_features), init)
        self.activation = activation_named(activation)
        self.out_features = hidden_features

    def forward(self, x: Tensor) -> Tensor:
        """[B, *in_shape] to [B, out_features]."""
        x = self.activation(self.conv(x.reshape(x.shape[0], *self.image)))
        return self.activation(self.dense(x.flatten(1)))
