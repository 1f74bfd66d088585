"""How good a classifier is: pure functions of predictions and true labels; any number of lanes at once.

Sources: Guo et al. 2017 (calibration error), Hand & Till 2001 (area under the ROC of several classes), Hyndman &
Koehler 2006 (scaled error of forecasts). All are tested against scikit-learn or their definition.

Legend: N rows, C classes; `...` lanes, or nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "accuracy",
    "auroc",
    "calibration_error",
    "confusion",
    "macro_f1",
    "mase",
    "negative_log_likelihood",
    "per_class",
    "r2",
    "worst",
]

BINS = 15  # of the calibration error, as in the paper


def accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """The share of rows whose largest logit is the label's, [...]; logits [..., N, C], y int64 [N]."""
    return (logits.argmax(-1) == y).double().mean(-1)


def negative_log_likelihood(logits: Tensor, y: Tensor) -> Tensor:
    """The mean cross-entropy, [...]; logits [..., N, C], y int64 [N]."""
    return _losses(logits, y).mean(-1)


def confusion(guess: Tensor, y: Tensor, classes: int) -> Tensor:
    """How often a class was taken for which, float64 [..., C, C]: rows are the truth. guess int64 [..., N], y [N]."""
    return _one_hot(y, classes).T @ _one_hot(guess, classes)


def per_class(matrix: Tensor) -> Tensor:
    """Precision, recall, F1 and number of rows of each class, [..., C, 4]; 0 where a share is of nothing.

    Args:
        matrix: of `confusion`, [..., C, C].
    """
    right, truth, guessed = matrix.diagonal(dim1=-2, dim2=-1), matrix.sum(-1), matrix.sum(-2)
    shares = [right / guessed, right / truth, 2 * right / (truth + guessed)]
    return torch.stack([*(share.nan_to_num(0.0) for share in shares), truth], -1)


def macro_f1(matrix: Tensor) -> Tensor:
    """The mean F1 over the classes that occur, among labels or among predictions, [...]; as scikit-learn's.

    Args:
        matrix: of `confusion`, [..., C, C].
    """
    occurs = matrix.sum(-1) + matrix.sum(-2) > 0
    return (per_class(matrix)[..., 2] * occurs).sum(-1) / occurs.sum(-1)


def auroc(logits: Tensor, y: Tensor) -> Tensor:
    """The area under the ROC of each class against the rest, by its probability, averaged over the classes, [...].

    The area is the probability that a row of the class is ranked above another row, ties counting half (Mann &
    Whitney 1947): (sum of the ranks of the P rows - P (P + 1) / 2) / (P (N - P)). Classes without rows, or with all
    of them, have none; NaN where no class has one.

    Args:
        logits: [..., N, C].
        y: int64 [N].
    """
    scores = logits.double().softmax(-1).transpose(-1, -2).contiguous()  # [..., C, N]
    ordered = scores.sort(-1).values
    below, upto = (torch.searchsorted(ordered, scores, right=right) for right in (False, True))
    ranks = (below + upto + 1).double() / 2  # from 1, ties share their mean
    its = _one_hot(y, logits.shape[-1]).T  # [C, N]
    count = its.sum(-1)
    area = ((ranks * its).sum(-1) - count * (count + 1) / 2) / (count * (len(y) - count))
    return area.nanmean(-1)


def calibration_error(logits: Tensor, y: Tensor, bins: int = BINS) -> Tensor:
    """The expected calibration error, [...]: how far confidence is from accuracy, in bins of confidence (equation 3).

    Args:
        logits: [..., N, C].
        y: int64 [N].
        bins: of equal width.
    """
    confidence, guess = logits.double().softmax(-1).max(-1)
    apart = confidence - (guess == y).double()  # [..., N]
    inside = _one_hot((confidence * bins).ceil().long().clamp(1, bins) - 1, bins)  # [..., N, bins], each (low, high]
    return (apart.unsqueeze(-1) * inside).sum(-2).abs().sum(-1) / len(y)


def worst(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """The wrongly named rows of one trial with the largest losses, int64 [at most count]; logits [N, C], y [N]."""
    losses = _losses(logits, y).masked_fill(logits.argmax(-1) == y, -1.0)
    found = losses.argsort(descending=True, stable=True)[:count]
    return found[losses[found] >= 0]


def r2(prediction: Tensor, target: Tensor) -> Tensor:
    """The coefficient of determination, [...], the mean over targets: 1 - squared errors / those of the mean.

    Args:
        prediction: [..., N, T].
        target: [N, T]; a constant one gives NaN or -infinity.
    """
    errors = (prediction - target).square().sum(-2)
    return (1 - errors / (target - target.mean(0)).square().sum(0)).mean(-1)


def mase(prediction: Tensor, target: Tensor, history: Tensor) -> Tensor:
    """The mean absolute scaled error of forecasts, [...]: below 1 is better than a step's naive forecast in training.

    Args:
        prediction: [..., N, T].
        target: [N, T].
        history: training series [M, S, F], whose steps differ by the error of the naive forecast.
    """
    naive = (history[:, 1:] - history[:, :-1]).abs().mean()
    return (prediction - target).abs().mean((-2, -1)) / naive


def _one_hot(y: Tensor, classes: int) -> Tensor:
    """int64 [...] to float64 [..., classes]."""
    return (y.unsqueeze(-1) == torch.arange(classes, device=y.device)).double()


def _losses(logits: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy of every row, [..., N]."""
    return -logits.log_softmax(-1)[..., torch.arange(len(y), device=y.device), y]
