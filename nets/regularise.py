"""Regularisation: dropout and drop path, penalties on weights, softened targets, mixed rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from nets.noise import active_noise
from nets.registry import register

__all__ = [
    "Chosen",
    "DropPath",
    "Dropout",
    "cross_entropy",
    "l1_penalty",
    "l2_penalty",
    "mixup",
    "smoothed_targets",
]

Chosen = Callable[[str, Tensor], bool] | Sequence[str]  # a rule on name and tensor, or patterns such as "head.*"


@register("dropout", role="layer")
class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) whose noise is passed in: see `nets.noise`.

    In training every number is zeroed with a probability and the rest scaled up. Outside of `nets.lanes.call` with
    noise it draws from torch's own generator, as `nn.Dropout`.

    Args:
        rate: the probability of zeroing, in [0, 1).
    """

    def __init__(self, rate: float = 0.1) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        if not self.training or self.rate == 0:
            return x
        return _dropped(x, x.shape, self.rate)


@register("drop-path", role="layer")
class DropPath(nn.Module):
    """Drop path, or stochastic depth (Huang et al. 2016): whole rows are zeroed; for the branch of a residual block.

    In training a row's branch is dropped with a probability and the others are scaled up, so that the mean stays
    (Huang et al. scale down in evaluation instead). Noise as in `Dropout`.

    Args:
        rate: the probability of dropping, in [0, 1).
    """

    def __init__(self, rate: float = 0.1) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] to the same shape."""
        if not self.training or self.rate == 0:
            return x
        return _dropped(x, (x.shape[0],) + (1,) * (x.dim() - 1), self.rate)


def _dropped(x: Tensor, shape: Sequence[int], rate: float) -> Tensor:
    noise = active_noise()
    u = torch.rand(*shape, dtype=x.dtype, device=x.device) if noise is None else noise.uniform(shape, x)
    return torch.where(u < rate, 0.0, x / (1 - rate))


# Penalties on chosen parameters


def l1_penalty(params: Mapping[str, Tensor], only: Chosen | None = None) -> Tensor:
    """Sum of absolute values (Tibshirani 1996), 0-dim; arguments as for `l2_penalty`."""
    return torch.stack([p.abs().sum() for p in _chosen(params, only)]).sum()


def l2_penalty(params: Mapping[str, Tensor], only: Chosen | None = None) -> Tensor:
    """Sum of squares (Hoerl & Kennard 1970), 0-dim; its gradient is 2 p.

    Args:
        params: of one trial, by name.
        only: which: a rule of name and tensor, or patterns of names ("encoder.*", "*.weight"). None: those of two
            dimensions and more, that is no biases and no scales of norms.

    Raises:
        ValueError: no parameter is chosen.
    """
    return torch.stack([p.square().sum() for p in _chosen(params, only)]).sum()


def _chosen(params: Mapping[str, Tensor], only: Chosen | None) -> list[Tensor]:
    if only is None:
        found = [p for p in params.values() if p.dim() >= 2]
    elif callable(only):
        found = [p for name, p in params.items() if only(name, p)]
    else:
        found = [p for name, p in params.items() if any(fnmatchcase(name, pattern) for pattern in only)]
    if not found:
        raise ValueError(f"only={only!r} chooses none of the parameters {', '.join(params)}")
    return found


# Targets


def smoothed_targets(y: Tensor, classes: int, smoothing: float | Tensor = 0.0) -> Tensor:
    """Label smoothing (Szegedy et al. 2016): (1 - smoothing) one-hot + smoothing / classes.

    Args:
        y: int64 [...].
        classes: how many.
        smoothing: in [0, 1]; 0 gives one-hot targets.

    Returns:
        [..., classes], torch's default type of floats.
    """
    one_hot = (y.unsqueeze(-1) == torch.arange(classes, device=y.device)).to(torch.get_default_dtype())
    return one_hot * (1 - smoothing) + smoothing / classes


def cross_entropy(logits: Tensor, y: Tensor, smoothing: float | Tensor = 0.0, weight: Tensor | None = None) -> Tensor:
    """Mean cross-entropy, 0-dim; torch's, but smoothing and weights may be a lane's own tensors.

    Args:
        logits: [..., classes].
        y: int64 [...], or shares of classes [..., classes] (of `mixup`).
        smoothing: see `smoothed_targets`.
        weight: of each class [classes]; the mean over labels is a weighted one, that over shares is not, as torch's.
    """
    classes = logits.shape[-1]
    shares = y if y.is_floating_point() else smoothed_targets(y, classes)
    targets = shares.to(logits.dtype) * (1 - smoothing) + smoothing / classes
    losses = -targets * torch.log_softmax(logits, -1)
    if weight is None:
        return losses.sum(-1).mean()
    total = (losses * weight).sum()
    return total / (losses[..., 0].numel() if y.is_floating_point() else (shares.to(logits.dtype) @ weight).sum())


def mixup(x: Tensor, shares: Tensor, lam: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """mixup (Zhang et al. 2018): rows and targets lam * row + (1 - lam) * another row.

    The noise is passed in. Zhang et al. draw lam from Beta(alpha, alpha), alpha 0.1 to 0.4, one for a batch: on the
    host, `rng.beta(alpha, alpha)`; torch's Beta does not vmap. For alpha = 1 it is a uniform number.

    Args:
        x: [B, ...].
        shares: targets [B, classes], for instance of `smoothed_targets`.
        lam: 0-dim or [B], in [0, 1].
        order: int64 [B], a permutation: row i is mixed with row order[i].

    Returns:
        (x, shares), mixed.
    """

    def mixed(t: Tensor) -> Tensor:
        part = lam.to(t.dtype).reshape(lam.shape + (1,) * (t.dim() - 1 if lam.dim() else 0))
        return part * t + (1 - part) * t[order]

    return mixed(x), mixed(shares)
