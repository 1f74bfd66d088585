"""Image classifiers by name: an encoder of one kind and a linear head.

All take images [B, H, W] with pixels in [0, 1].
"""

from __future__ import annotations

from torch import Tensor, nn

from nets.attention import TransformerEncoder
from nets.conv import ConvEncoder
from nets.mlp import MLP
from nets.recurrent import GRU

__all__ = [
    "KINDS",
    "CNNClassifier",
    "GRUClassifier",
    "MLPClassifier",
    "TransformerClassifier",
    "image_classifier",
]


def _centred(x: Tensor) -> Tensor:
    return 2 * x - 1  # pixels in [-1, 1]


class MLPClassifier(nn.Module):
    """Pixels in any order. See `image_classifier`."""

    def __init__(
        self, image: tuple[int, int], hidden_features: int, depth: int, out_features: int, **options
    ) -> None:
        super().__init__()
        self.net = MLP(image[0] * image[1], [hidden_features] * depth, out_features, options["activation"])

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W] to logits [B, out_features]."""
        return self.net(_centred(x).flatten(1))


class CNNClassifier(nn.Module):
    """Convolutions over the image. See `image_classifier`."""

    def __init__(
        self, image: tuple[int, int], hidden_features: int, depth: int, out_features: int, **options
    ) -> None:
        super().__init__()
        self.encoder = ConvEncoder(1, image, hidden_features, depth, options["activation"], options["norm"])
        self.head = nn.Linear(self.encoder.out_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W] to logits [B, out_features]."""
        return self.head(self.encoder(_centred(x).unsqueeze(1)))


class GRUClassifier(nn.Module):
    """The rows of the image as a sequence, read from top to bottom. See `image_classifier`."""

    def __init__(
        self, image: tuple[int, int], hidden_features: int, depth: int, out_features: int, **options
    ) -> None:
        super().__init__()
        self.encoder = GRU(image[1], hidden_features, depth)
        self.head = nn.Linear(hidden_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W] to logits [B, out_features]."""
        outputs, _ = self.encoder(_centred(x))
        return self.head(outputs[:, -1])


class TransformerClassifier(nn.Module):
    """The rows of the image as tokens, their mean classified. See `image_classifier`."""

    def __init__(
        self, image: tuple[int, int], hidden_features: int, depth: int, out_features: int, **options
    ) -> None:
        super().__init__()
        self.encoder = TransformerEncoder(
            image[1], hidden_features, depth, image[0], options["heads"], options["activation"]
        )
        self.head = nn.Linear(hidden_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W] to logits [B, out_features]."""
        return self.head(self.encoder(_centred(x)).mean(1))


KINDS: dict[str, type[nn.Module]] = {
    "mlp": MLPClassifier,
    "cnn": CNNClassifier,
    "gru": GRUClassifier,
    "transformer": TransformerClassifier,
}


def image_classifier(
    kind: str,
    image: tuple[int, int],
    hidden_features: int,
    depth: int,
    out_features: int,
    activation: str = "relu",
    norm: str = "none",
    heads: int = 4,
) -> nn.Module:
    """A classifier of images [B, H, W].

    Args:
        kind: a key of `KINDS`.
        image: (height, width).
        hidden_features: width of the layers; channels of the first block for "cnn".
        depth: how many layers or blocks.
        out_features: how many classes.
        activation: a name in `nets.activations`; "gru" has its own gates and takes none.
        norm: "none" or "layer", for "cnn"; "transformer" always has layer norms.
        heads: of "transformer".

    Raises:
        KeyError: no kind has that name.
    """
    return KINDS[kind](
        image, hidden_features, depth, out_features, activation=activation, norm=norm, heads=heads
    )
