"""Distributions over raw tensors: what a head's output means, as pure functions of tensors.

Nothing here draws random numbers: `sample` takes uniform numbers and inverts the distribution function, or standard
normal ones and shifts and scales them, so that samples have gradients where the distribution is continuous. One
sample's components (the last axis of Bernoulli, Gaussian and multi-categorical actions) are independent, and their
log-probabilities are summed. Raw values of any finite size give finite values and finite gradients.

Legend: [...] is any number of leading axes, A actions, N components.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = [
    "LOG_STD_MAX",
    "LOG_STD_MIN",
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "MultiCategorical",
    "SquashedGaussian",
]

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0  # the range of soft actor-critic's code (Haarnoja et al. 2018)
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Categorical:
    """One of A actions with probabilities softmax(raw).

    Args:
        raw: logits [..., A].
        allowed: bool, broadcast to [..., A]: actions that may be taken; the others get probability 0 and no gradient
            (Huang & Ontanon 2022). Where none is allowed, all are equally likely.
    """

    def __init__(self, raw: Tensor, allowed: Tensor | None = None) -> None:
        logits = _wide(raw)
        if allowed is not None:  # a finite lowest value: 0 * -inf would make the entropy NaN
            logits = torch.where(allowed, logits, torch.finfo(logits.dtype).min / 4)
        self.log_probs = torch.log_softmax(logits, -1)

    @property
    def probs(self) -> Tensor:
        """[..., A]."""
        return self.log_probs.exp()

    def sample(self, u: Tensor) -> Tensor:
        """Actions int64 [...] from uniform numbers u [...] in [0, 1); one of probability 0 is never drawn."""
        bounds = self.probs.cumsum(-1)
        total = bounds[..., -1:]  # 1 but for rounding
        return ((bounds <= u.unsqueeze(-1) * total) & (bounds < total)).sum(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """[...] of actions int64 [...]; that of a forbidden action is finite and very low."""
        return torch.gather(self.log_probs, -1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """[...], in nats."""
        return -(self.probs * self.log_probs).sum(-1)

    def mode(self) -> Tensor:
        """The likeliest action, int64 [...]; the first of several."""
        return self.log_probs.argmax(-1)

    def kl(self, other: Categorical) -> Tensor:
        """KL(self, other) [...]; huge but finite where `other` forbids what self allows."""
        return (self.probs * (self.log_probs - other.log_probs)).sum(-1)


class MultiCategorical:
    """Several independent categorical choices, as Gymnasium's MultiDiscrete.

    Args:
        raw: logits [..., sum(counts)].
        counts: how many actions each choice has.
        allowed: bool [..., sum(counts)], see `Categorical`.
    """

    def __init__(self, raw: Tensor, counts: Sequence[int], allowed: Tensor | None = None) -> None:
        logits = raw.split(list(counts), -1)
        masks = [None] * len(counts) if allowed is None else allowed.split(list(counts), -1)
        self.choices = [Categorical(part, mask) for part, mask in zip(logits, masks, strict=True)]

    def sample(self, u: Tensor) -> Tensor:
        """Actions int64 [..., choices] from uniform numbers [..., choices] in [0, 1)."""
        return torch.stack([c.sample(part) for c, part in zip(self.choices, u.unbind(-1), strict=True)], -1)

    def log_prob(self, action: Tensor) -> Tensor:
        """[...] of actions int64 [..., choices]."""
        parts = zip(self.choices, action.unbind(-1), strict=True)
        return torch.stack([c.log_prob(part) for c, part in parts], -1).sum(-1)

    def entropy(self) -> Tensor:
        """[...], in nats."""
        return torch.stack([c.entropy() for c in self.choices], -1).sum(-1)

    def mode(self) -> Tensor:
        """The likeliest action of every choice, int64 [..., choices]."""
        return torch.stack([c.mode() for c in self.choices], -1)

    def kl(self, other: MultiCategorical) -> Tensor:
        """KL(self, other) [...]."""
        pairs = zip(self.choices, other.choices, strict=True)
        return torch.stack([mine.kl(theirs) for mine, theirs in pairs], -1).sum(-1)


class Bernoulli:
    """N independent coins with probabilities sigmoid(raw) of a 1.

    Args:
        raw: logits [..., N].
    """

    def __init__(self, raw: Tensor) -> None:
        logits = _wide(raw)
        self.log_one, self.log_zero = logsigmoid(logits), logsigmoid(-logits)
        self.probs = torch.sigmoid(logits)

    def sample(self, u: Tensor) -> Tensor:
        """0 or 1, [..., N] of the dtype of u, from uniform numbers [..., N] in [0, 1)."""
        return (u < self.probs).to(u.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """[...] of values [..., N] in {0, 1}, of any dtype."""
        return torch.where(value > 0.5, self.log_one, self.log_zero).sum(-1)

    def entropy(self) -> Tensor:
        """[...], in nats."""
        return -(self.probs * self.log_one + (1 - self.probs) * self.log_zero).sum(-1)

    def mode(self) -> Tensor:
        """0 or 1, [..., N]; 0 at a probability of one half."""
        return (self.probs > 0.5).to(self.probs.dtype)

    def kl(self, other: Bernoulli) -> Tensor:
        """KL(self, other) [...]."""
        ones = self.probs * (self.log_one - other.log_one)
        return (ones + (1 - self.probs) * (self.log_zero - other.log_zero)).sum(-1)


class Gaussian:
    """N independent normal numbers.

    Args:
        raw: [..., 2 N], the means and then the logarithms of the standard deviations; the latter are clamped to
            [-20, 2], and have no gradient outside.
    """

    def __init__(self, raw: Tensor) -> None:
        self.mean, log_std = _wide(raw).chunk(2, -1)
        self.log_std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def sample(self, noise: Tensor) -> Tensor:
        """[..., N] from standard normal numbers [..., N]; has gradients (Kingma & Welling 2014)."""
        return self.mean + self.log_std.exp() * noise

    def log_prob(self, value: Tensor) -> Tensor:
        """[...] of values [..., N]."""
        return self._log_density((value - self.mean) * (-self.log_std).exp())

    def entropy(self) -> Tensor:
        """[...], in nats."""
        return (self.log_std + 0.5 + HALF_LOG_TWO_PI).sum(-1)

    def mode(self) -> Tensor:
        """The means [..., N]."""
        return self.mean

    def kl(self, other: Gaussian) -> Tensor:
        """KL(self, other) [...]."""
        log_ratio = self.log_std - other.log_std
        distance = (self.mean - other.mean) * (-other.log_std).exp()
        return (0.5 * ((2 * log_ratio).exp() + distance.square() - 1) - log_ratio).sum(-1)

    def _log_density(self, z: Tensor) -> Tensor:
        """Of the value mean + std z."""
        return (-0.5 * z.square() - self.log_std - HALF_LOG_TWO_PI).sum(-1)


class SquashedGaussian:
    """tanh of N independent normal numbers: actions in (-1, 1) (Haarnoja et al. 2018, appendix C).

    The logarithm of tanh's derivative is log 4 - softplus(2 x) - softplus(-2 x), which never takes the logarithm of
    a difference. The entropy has no closed form: take `-log_prob` of samples.

    Args:
        raw: [..., 2 N], as `Gaussian`.
    """

    def __init__(self, raw: Tensor) -> None:
        self.base = Gaussian(raw)

    def sample(self, noise: Tensor) -> Tensor:
        """Actions [..., N] from standard normal numbers [..., N]; has gradients."""
        return torch.tanh(self.base.sample(noise))

    def sample_with_log_prob(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(`sample(noise)`, its log-probability [...]): exact where `log_prob(action)` cannot be, near -1 and 1."""
        before = self.base.sample(noise)
        return torch.tanh(before), self.base._log_density(noise) - _log_slope_of_tanh(before).sum(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """[...] of actions [..., N]; those at -1 and 1 count as the next numbers inside."""
        limit = 1 - torch.finfo(action.dtype).eps
        before = torch.atanh(action.clamp(-limit, limit))
        return self.base.log_prob(before) - _log_slope_of_tanh(before).sum(-1)

    def mode(self) -> Tensor:
        """tanh of the means [..., N]: the deterministic action (not the density's maximum)."""
        return torch.tanh(self.base.mean)

    def kl(self, other: SquashedGaussian) -> Tensor:
        """KL(self, other) [...]: that of the normal numbers, for tanh is invertible."""
        return self.base.kl(other.base)


def _log_slope_of_tanh(x: Tensor) -> Tensor:
    """log(1 - tanh(x)^2), as 1 - tanh(x)^2 = 4 sigmoid(2 x) sigmoid(-2 x)."""
    return math.log(4) + logsigmoid(2 * x) + logsigmoid(-2 * x)


def _wide(raw: Tensor) -> Tensor:
    """At least float32: probabilities of 16 bits do not sum to 1."""
    return raw.float() if raw.dtype in (torch.float16, torch.bfloat16) else raw
