"""Convolutions over time: an encoder of sequences.

Source: Greydanus & Kobak 2024, whose network for MNIST-1D is `{kind: cnn-1d, hidden_features: 25}`.
"""

from __future__ import annotations

from torch import Tensor, nn

from nets.activations import activation as activation_named
from nets.mlp import Init, init_linear
from nets.norms import NormName
from nets.norms import norm as norm_named
from nets.registry import register
from nets.regularise import Dropout

__all__ = ["CNN1d"]


@register("cnn-1d", role="encoder")
class CNN1d(nn.Module):
    """Convolutions over the steps of a sequence, each of stride 2, flattened.

    Args:
        in_shape: (steps, features) of a sequence, or (steps,).
        hidden_features: channels of every convolution.
        depth: how many convolutions; the steps are halved (rounded up) so often.
        kernel_size: steps that the first convolution sees, odd; the others see 3.
        activation: a name in `nets.activations`.
        norm: a name in `nets.norms`; "layer" is over channels and steps together.
        dropout: the probability of zeroing a number after each activation.
        init: "torch", "orthogonal", "kaiming" or "zero"; see `nets.mlp.init_linear`.

    Raises:
        ValueError: no sequence, or no convolution.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        hidden_features: int = 32,
        depth: int = 3,
        kernel_size: int = 5,
        activation: str = "relu",
        norm: NormName = "none",
        dropout: float = 0.0,
        init: Init = "torch",
    ) -> None:
        super().__init__()
        if len(in_shape) not in (1, 2):
            raise ValueError(f"encoder 'cnn-1d' takes sequences (steps, features) or (steps,), not {in_shape}")
        if depth < 1 or kernel_size % 2 == 0:
            raise ValueError(f"encoder 'cnn-1d' needs a depth of 1 and an odd kernel, not {depth} and {kernel_size}")
        self.steps, self.features = (*in_shape, 1)[:2]
        layers: list[nn.Module] = []
        steps = self.steps
        for i in range(depth):
            before, kernel = (hidden_features, 3) if i else (self.features, kernel_size)
            conv = nn.Conv1d(before, hidden_features, kernel, stride=2, padding=kernel // 2)
            layers += [
                init_linear(conv, init),
                norm_named(norm, hidden_features, channels_first=True),
                activation_named(activation),
                Dropout(dropout),
            ]
            steps = (steps + 1) // 2
        self.layers = nn.Sequential(*layers)
        self.out_features = hidden_features * steps

    def forward(self, x: Tensor) -> Tensor:
        """[B, *in_shape] to [B, out_features]."""
        return self.layers(x.reshape(x.shape[0], self.steps, self.features).transpose(1, 2)).flatten(1)
