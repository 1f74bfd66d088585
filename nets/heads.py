"""Heads: from an encoder's features to the one raw tensor that a loss or a distribution takes.

    raw = head(features)                                   # under lanes: nets.lanes.call
    head.distribution(raw).log_prob(action)                # a pure function of raw

Heads of policies start near indifference: orthogonal weights with a gain of 0.01, biases of 0 (Andrychowicz et al.
2021, section 3.2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nets.activations import activation as activation_named
from nets.distributions import Bernoulli, Categorical, Gaussian, MultiCategorical, SquashedGaussian
from nets.mlp import Init, init_linear
from nets.registry import register

__all__ = [
    "BernoulliHead",
    "CategoricalHead",
    "ClassificationHead",
    "DuelingHead",
    "GaussianHead",
    "Linear",
    "MultiCategoricalHead",
    "RegressionHead",
    "SquashedGaussianHead",
    "TokenHead",
]


@register("linear", role="head")
class Linear(nn.Module):
    """A linear layer: the plainest head.

    Args:
        in_features: width of the features.
        out_features: width of the output.
        init: see `nets.mlp.init_linear`.
        gain: of an orthogonal initialisation.
        bias: whether a bias is added.
    """

    def __init__(
        self, in_features: int, out_features: int, init: Init = "torch", gain: float = 1.0, bias: bool = True
    ) -> None:
        super().__init__()
        self.linear = init_linear(nn.Linear(in_features, out_features, bias=bias), init, gain)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        return self.linear(x)


@register("categorical", role="head")
class CategoricalHead(Linear):
    """Logits of one choice among out_features actions.

    Args:
        in_features: width of the features.
        out_features: number of actions.
        init: see `nets.mlp.init_linear`.
        gain: of an orthogonal initialisation.
    """

    def __init__(self, in_features: int, out_features: int, init: Init = "orthogonal", gain: float = 0.01) -> None:
        super().__init__(in_features, out_features, init, gain)

    def distribution(self, raw: Tensor, allowed: Tensor | None = None) -> Categorical:
        """Of the logits [..., actions]; `allowed` is a bool mask of the actions that may be taken."""
        return Categorical(raw, allowed)


@register("multi-categorical", role="head")
class MultiCategoricalHead(Linear):
    """Logits of several independent choices.

    Args:
        in_features: width of the features.
        out_features: number of actions of each choice, a tuple.
        init: see `nets.mlp.init_linear`.
        gain: of an orthogonal initialisation.
    """

    def __init__(
        self, in_features: int, out_features: tuple[int, ...], init: Init = "orthogonal", gain: float = 0.01
    ) -> None:
        super().__init__(in_features, sum(out_features), init, gain)
        self.counts = tuple(out_features)

    def distribution(self, raw: Tensor, allowed: Tensor | None = None) -> MultiCategorical:
        """Of the logits [..., sum(out_features)]; `allowed` is a bool mask of that shape."""
        return MultiCategorical(raw, self.counts, allowed)


@register("bernoulli", role="head")
class BernoulliHead(Linear):
    """Logits of out_features coins: several binary actions, or several labels of one image.

    Args:
        in_features: width of the features.
        out_features: number of coins.
        init: see `nets.mlp.init_linear`.
        gain: of an orthogonal initialisation.
    """

    def __init__(self, in_features: int, out_features: int, init: Init = "orthogonal", gain: float = 0.01) -> None:
        super().__init__(in_features, out_features, init, gain)

    def distribution(self, raw: Tensor) -> Bernoulli:
        """Of the logits [..., coins]."""
        return Bernoulli(raw)


@register("gaussian", role="head")
class GaussianHead(nn.Module):
    """Means and log standard deviations of out_features continuous actions, [..., 2 out_features].

    Args:
        in_features: width of the features.
        out_features: number of actions.
        state_dependent: whether the standard deviations depend on the features; else they are parameters of their
            own, as in Schulman et al. 2015.
        log_std: the logarithm of the standard deviations at the start.
        init: see `nets.mlp.init_linear`.
        gain: of an orthogonal initialisation.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        state_dependent: bool = False,
        log_std: float = 0.0,
        init: Init = "orthogonal",
        gain: float = 0.01,
    ) -> None:
        super().__init__()
        self.mean = init_linear(nn.Linear(in_features, out_features), init, gain)
        if state_dependent:
            self.spread: nn.Linear | None = init_linear(nn.Linear(in_features, out_features), init, gain)
            nn.init.constant_(self.spread.bias, log_std)
        else:
            self.spread = None
            self.log_std = nn.Parameter(torch.full((out_features,), float(log_std)))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to [..., 2 out_features]: the means, then the log standard deviations."""
        mean = self.mean(x)
        log_std = self.log_std.expand_as(mean) if self.spread is None else self.spread(x)
        return torch.cat([mean, log_std.to(mean.dtype)], -1)

    def distribution(self, raw: Tensor) -> Gaussian | SquashedGaussian:
        """Of the forward's output."""
        return Gaussian(raw)


@register("squashed-gaussian", role="head")
class SquashedGaussianHead(GaussianHead):
    """A Gaussian head whose samples pass through tanh: actions in (-1, 1), as in soft actor-critic.

    Args:
        in_features: width of the features.
        out_features: number of actions.
        state_dependent: whether the standard deviations depend on the features.
        log_std: the logarithm of the standard deviations at the start.
        init: see `nets.mlp.init_linear`.
        gain: of an orthogonal initialisation.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        state_dependent: bool = True,
        log_std: float = 0.0,
        init: Init = "orthogonal",
        gain: float = 0.01,
    ) -> None:
        super().__init__(in_features, out_features, state_dependent, log_std, init, gain)

    def distribution(self, raw: Tensor) -> SquashedGaussian:
        """Of the forward's output."""
        return SquashedGaussian(raw)


@register("dueling", role="head")
class DuelingHead(nn.Module):
    """Values of out_features actions as a state's value and the actions' advantages (Wang et al. 2016).

    Q = V + A - mean(A), equation 9: the mean over actions of Q is V.

    Args:
        in_features: width of the features.
        out_features: number of actions.
        hidden_features: width of a hidden layer in each of the two streams; 0 for none.
        activation: after the hidden layers, a name in `nets.activations`.
        init: see `nets.mlp.init_linear`; hidden layers use gain sqrt(2).
        gain: of orthogonal last layers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_features: int = 0,
        activation: str = "relu",
        init: Init = "torch",
        gain: float = 1.0,
    ) -> None:
        super().__init__()

        def stream(out: int) -> nn.Module:
            if not hidden_features:
                return init_linear(nn.Linear(in_features, out), init, gain)
            hidden = init_linear(nn.Linear(in_features, hidden_features), init)
            last = init_linear(nn.Linear(hidden_features, out), init, gain)
            return nn.Sequential(hidden, activation_named(activation), last)

        self.value = stream(1)
        self.advantage = stream(out_features)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to action values [..., out_features]."""
        advantage = self.advantage(x)
        return self.value(x) + (advantage - advantage.mean(-1, keepdim=True))


@register("classification", role="head")
class ClassificationHead(Linear):
    """Logits of out_features classes, with their loss.

    Args:
        in_features: width of the features.
        out_features: number of classes.
        init: see `nets.mlp.init_linear`.
        gain: of an orthogonal initialisation.
        bias: whether a bias is added.
    """

    def distribution(self, raw: Tensor) -> Categorical:
        """Over the classes, of the logits [..., classes]."""
        return Categorical(raw)

    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy, 0-dim.

        Args:
            raw: logits [..., classes].
            target: classes int64 [...], or probabilities [..., classes] (smoothed or mixed labels).
        """
        log_probs = self.distribution(raw).log_probs
        if target.is_floating_point():
            return -(target * log_probs).sum(-1).mean()
        return -torch.gather(log_probs, -1, target.unsqueeze(-1)).mean()


@register("regression", role="head")
class RegressionHead(nn.Module):
    """Predicted numbers, or with `variance` their means and log standard deviations (Nix & Weigend 1994).

    Args:
        in_features: width of the features.
        out_features: how many numbers are predicted.
        variance: whether the standard deviations are predicted too; they start at 1.
        init: see `nets.mlp.init_linear`.
        gain: of an orthogonal initialisation.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        variance: bool = False,
        init: Init = "torch",
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.mean = init_linear(nn.Linear(in_features, out_features), init, gain)
        self.spread = init_linear(nn.Linear(in_features, out_features), "zero") if variance else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features], or with `variance` to [..., 2 out_features]."""
        mean = self.mean(x)
        return mean if self.spread is None else torch.cat([mean, self.spread(x)], -1)

    def distribution(self, raw: Tensor) -> Gaussian:
        """Of the numbers; its `mode()` is the prediction. Without `variance` the standard deviation is 1."""
        return Gaussian(torch.cat([raw, torch.zeros_like(raw)], -1) if self.spread is None else raw)

    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """Mean squared error, or with `variance` the mean negative log-likelihood of a row, 0-dim.

        Args:
            raw: the forward's output.
            target: [..., out_features].
        """
        return (
            (raw - target).square().mean() if self.spread is None else -self.distribution(raw).log_prob(target).mean()
        )


@register("token", role="head")
class TokenHead(nn.Module):
    """Logits of the next token, with their loss.

    No bias and weights from N(0, 0.02^2), as GPT-2 (Radford et al. 2019).

    Args:
        in_features: width of the features.
        out_features: size of the vocabulary.
        soft_cap: bounds logits smoothly by cap tanh(logits / cap), as Gemma 2; 0 for none.
        std: standard deviation of the weights at the start.
    """

    def __init__(self, in_features: int, out_features: int, soft_cap: float = 0.0, std: float = 0.02) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=False)
        nn.init.normal_(self.linear.weight, std=std)
        self.soft_cap = soft_cap

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to logits [..., out_features]."""
        logits = self.linear(x)
        return self.soft_cap * torch.tanh(logits / self.soft_cap) if self.soft_cap else logits

    def distribution(self, raw: Tensor, allowed: Tensor | None = None) -> Categorical:
        """Over the vocabulary, of the logits [..., vocabulary]."""
        return Categorical(raw, allowed)

    def loss(self, raw: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
        """Mean cross-entropy of the tokens that count, 0-dim; 0 where none does.

        Args:
            raw: logits [..., vocabulary].
            target: tokens int64 [...].
            counts: bool [...]: False for padding; None: all count.
        """
        losses = -self.distribution(raw).log_prob(target)
        if counts is None:
            return losses.mean()
        return torch.where(counts, losses, 0.0).sum() / counts.sum().clamp(min=1)
