"""DCGAN: a generator of transposed convolutions and an encoder of strided ones.

Paper: Radford, Metz & Chintala 2016, "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks". From it: no pooling and no dense hidden layers, batch norm everywhere but in the generator's
last and the encoder's first layer, ReLU and tanh in the generator, leaky ReLU (0.2) in the encoder, weights from
N(0, 0.02^2).
Deliberate differences:
- filters of 4 x 4 instead of 5 x 5: with stride 2 every pixel is met by equally many, which leaves no checkerboard;
- any size that doubling reaches from 4 to 7 pixels (28 = 7 * 2 * 2), and 64 channels beside the image, not 128;
- the encoder's norm can be chosen: gradient penalties (R1, R2, WGAN-GP) need rows that do not influence each other,
  so "layer" or "none" there instead of "batch";
- labels, where there are any, enter with the noise.
"""

from __future__ import annotations

from torch import Tensor, nn

from nets.conv import image_shape
from nets.generators import LabelledNoise, doublings, halvings
from nets.norms import NormName
from nets.norms import norm as norm_named
from nets.registry import register
from nets.resample import TransposedConv

__all__ = ["DCGANEncoder", "DCGANGenerator"]

STD = 0.02  # of the weights at the start


@register("dcgan-generator", role="generator")
class DCGANGenerator(nn.Module):
    """DCGAN's generator (Radford et al. 2016): channels halve wherever height and width double.

    Weights from N(0, 0.02^2), biases 0.

    Args:
        in_features: Z, width of the noise.
        out_shape: (C, H, W) or (H, W); sides such as 8, 28, 32, 64.
        hidden_features: channels before the last layer.
        norm: a name in `nets.norms`.
        classes: of labels; 0 for none.

    Raises:
        ValueError: the image's size is not reached by doubling.
    """

    def __init__(
        self,
        in_features: int,
        out_shape: tuple[int, ...],
        hidden_features: int = 64,
        norm: NormName = "batch",
        classes: int = 0,
    ) -> None:
        super().__init__()
        times, (channels, height, width) = doublings("dcgan-generator", out_shape)
        widths = [hidden_features << i for i in reversed(range(times))]
        self.base = (widths[0], height >> times, width >> times)
        self.noise = LabelledNoise(in_features, classes)
        self.project = nn.ConvTranspose2d(self.noise.out_features, widths[0], self.base[1:], bias=norm != "batch")
        nn.init.normal_(self.project.weight, std=STD)
        if self.project.bias is not None:
            nn.init.zeros_(self.project.bias)
        self.norm = norm_named(norm, widths[0], channels_first=True)
        self.layers = nn.Sequential(
            nn.ReLU(),
            *(TransposedConv(widths[i], widths[i + 1], norm, "relu") for i in range(times - 1)),
            TransposedConv(widths[-1], channels, "none", "tanh"),
        )
        self.out_shape = tuple(out_shape)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """[B, Z] (and int64 [B]) to [B, *out_shape], pixels in [-1, 1]."""
        pixel = self.noise(z, labels)[:, :, None, None]  # the noise is an image of one pixel
        return self.layers(self.norm(self.project(pixel))).reshape(-1, *self.out_shape)


@register("dcgan", role="encoder")
class DCGANEncoder(nn.Module):
    """DCGAN's discriminator without its last layer (Radford et al. 2016).

    Convolutions of 4 x 4 with stride 2 until the shorter side has 4 to 7 pixels, each with twice the channels; odd
    sides are rounded down. Weights from N(0, 0.02^2), biases 0.

    Args:
        in_shape: (C, H, W) or (H, W), 8 x 8 or more.
        hidden_features: channels of the first convolution.
        norm: a name in `nets.norms`, behind all convolutions but the first; not "batch" under a gradient penalty.

    Raises:
        ValueError: no image, or too small.
    """

    def __init__(self, in_shape: tuple[int, ...], hidden_features: int = 64, norm: NormName = "batch") -> None:
        super().__init__()
        self.image = image_shape("dcgan", in_shape, smallest=8)
        before, height, width = self.image
        times = halvings(height, width)
        layers: list[nn.Module] = []
        for i in range(times):
            name: NormName = norm if i else "none"
            conv = nn.Conv2d(before, hidden_features << i, 4, stride=2, padding=1, bias=name != "batch")
            nn.init.normal_(conv.weight, std=STD)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            before = conv.out_channels
            layers += [conv, norm_named(name, before, channels_first=True), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.out_features = before * (height >> times) * (width >> times)

    def forward(self, x: Tensor) -> Tensor:
        """[B, *in_shape] to [B, out_features]."""
        return self.layers(x.reshape(x.shape[0], *self.image))
