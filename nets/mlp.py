"""Perceptrons, plain and residual, and embeddings of tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from nets.activations import activation as activation_named
from nets.norms import NormName
from nets.norms import norm as norm_named
from nets.registry import register
from nets.regularise import Dropout

__all__ = ["MLP", "Embedding", "Init", "MLPEncoder", "ResidualMLP", "init_linear"]

Init = Literal["torch", "orthogonal", "kaiming", "zero"]
L = TypeVar("L", bound=nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d)


def init_linear(layer: L, init: Init, gain: float = math.sqrt(2)) -> L:
    """Initialises a linear layer or a convolution in place and returns it.

    Args:
        layer: the layer.
        init: "torch" leaves PyTorch's default (uniform within 1 / sqrt(inputs of a unit)), "orthogonal" (Saxe et al.
            2014) uses `gain` and bias 0, "kaiming" is He et al.'s normal with bias 0, "zero" is all zeros.
        gain: of "orthogonal".
    """
    if init == "orthogonal":
        nn.init.orthogonal_(layer.weight, gain)
    elif init == "kaiming":
        nn.init.kaiming_normal_(layer.weight)
    elif init == "zero":
        nn.init.zeros_(layer.weight)
    if init != "torch" and layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class MLP(nn.Module):
    """Linear layers with an activation between them and none after the last.

    Args:
        in_features: width of the input.
        hidden_features: widths of the hidden layers; empty gives one linear layer.
        out_features: width of the output.
        activation: a name in `nets.activations`.
        init: see `init_linear`; hidden layers use gain sqrt(2).
        out_gain: gain of an orthogonal last layer.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: Sequence[int],
        out_features: int,
        activation: str = "relu",
        init: Init = "torch",
        out_gain: float = 1.0,
    ) -> None:
        super().__init__()
        widths = [in_features, *hidden_features]
        layers = _hidden_layers(widths, activation, "none", 0.0, init)
        layers.append(init_linear(nn.Linear(widths[-1], out_features), init, out_gain))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        return self.layers(x)


@register("mlp", role="encoder")
class MLPEncoder(nn.Module):
    """Hidden layers over a flattened input: linear, norm, activation, dropout.

    With a linear head it is `MLP`, number for number: under one seed both draw the same weights.

    Args:
        in_shape: of one row; flattened.
        hidden_features: width of the layers, or the width of each.
        depth: how many layers, where `hidden_features` is one number.
        activation: a name in `nets.activations`.
        norm: a name in `nets.norms`; with "batch" the input has exactly one leading axis.
        dropout: the probability of zeroing a feature.
        init: "torch", "orthogonal" (gain sqrt(2)), "kaiming" or "zero"; see `init_linear`.

    Raises:
        ValueError: there is no layer.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        hidden_features: int | tuple[int, ...] = 64,
        depth: int = 2,
        activation: str = "relu",
        norm: NormName = "none",
        dropout: float = 0.0,
        init: Init = "torch",
    ) -> None:
        super().__init__()
        widths = (hidden_features,) * depth if isinstance(hidden_features, int) else hidden_features
        if not widths:
            raise ValueError("an 'mlp' encoder needs a layer: depth is 0 or hidden_features is empty")
        self.axes = len(in_shape)
        self.layers = nn.Sequential(*_hidden_layers([math.prod(in_shape), *widths], activation, norm, dropout, init))
        self.out_features = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        """[..., *in_shape] to [..., out_features]."""
        return self.layers(x.flatten(-self.axes))


class ResidualLayer(nn.Module):
    """x + W2 activation(W1 norm(x)), the second layer wider by a factor (He et al. 2016, identity mappings).

    Args:
        features: width of input and output.
        expansion: width of the layer between, over `features`.
        activation: a name in `nets.activations`.
        norm: a name in `nets.norms`.
        dropout: the probability of zeroing a number of the sum's second part.
    """

    def __init__(self, features: int, expansion: int, activation: str, norm: NormName, dropout: float) -> None:
        super().__init__()
        self.norm = norm_named(norm, features)
        self.linear1 = init_linear(nn.Linear(features, expansion * features), "kaiming")
        self.activation = activation_named(activation)
        self.linear2 = init_linear(nn.Linear(expansion * features, features), "kaiming")
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[..., features] to the same shape."""
        return x + self.dropout(self.linear2(self.activation(self.linear1(self.norm(x)))))


@register("residual-mlp", role="encoder")
class ResidualMLP(nn.Module):
    """A perceptron of residual layers, norm first and a norm at the end (SimBa, Lee et al. 2025).

    The input's linear layer is orthogonal with gain 1, the others He et al.'s normal, biases 0.

    Args:
        in_shape: of one row; flattened.
        hidden_features: width of the encoder.
        depth: how many residual layers of two linear layers each.
        expansion: the width inside a residual layer, over `hidden_features`.
        activation: a name in `nets.activations`.
        norm: a name in `nets.norms`; with "batch" the input has exactly one leading axis.
        dropout: the probability of zeroing a number that a residual layer adds.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        hidden_features: int = 128,
        depth: int = 2,
        expansion: int = 4,
        activation: str = "relu",
        norm: NormName = "layer",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.axes = len(in_shape)
        self.embed = init_linear(nn.Linear(math.prod(in_shape), hidden_features), "orthogonal", 1.0)
        self.blocks = nn.Sequential(
            *(ResidualLayer(hidden_features, expansion, activation, norm, dropout) for _ in range(depth))
        )
        self.norm = norm_named(norm, hidden_features)
        self.out_features = hidden_features

    def forward(self, x: Tensor) -> Tensor:
        """[..., *in_shape] to [..., out_features]."""
        return self.norm(self.blocks(self.embed(x.flatten(-self.axes))))


@register("embedding", role="layer")
class Embedding(nn.Module):
    """A learned vector for each token, from N(0, std^2).

    Args:
        vocabulary: how many tokens there are.
        out_features: width of a vector.
        std: standard deviation at the start; 0.02 is GPT-2's (Radford et al. 2019).
    """

    def __init__(self, vocabulary: int, out_features: int, std: float = 0.02) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(vocabulary, out_features), std=std))

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [...] in [0, vocabulary) to [..., out_features]."""
        return functional.embedding(tokens, self.weight)


def _hidden_layers(
    widths: Sequence[int], activation: str, norm: NormName, dropout: float, init: Init
) -> list[nn.Module]:
    """Linear, norm, activation and dropout from each width to the next; without what is "none" or 0."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        # batch norm takes the mean away, a bias would learn nothing
        layers.append(init_linear(nn.Linear(before, after, bias=norm != "batch"), init))
        layers += [norm_named(norm, after)] if norm != "none" else []
        layers.append(activation_named(activation))
        layers += [Dropout(dropout)] if dropout else []
    return layers
