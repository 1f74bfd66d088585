"""Classification accuracy score: a classifier is trained on generated rows and tested on real ones.

Paper: Ravuri & Vinyals 2019. What the samples lack (modes, detail, right labels) the classifier does not learn, so the
gap to the same classifier trained on real rows is what the generator has lost.
Deliberate difference: a small residual network and a fixed number of updates, the same for samples and for real rows.

Legend: N rows, B rows of a batch, H x W pixels, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness import data
from harness.randomness import generator, torch_seed
from nets.registry import build
from nets.regularise import cross_entropy

__all__ = ["RESNET", "accuracy", "accuracy_score", "fit_classifier", "tensors"]

RESNET: dict[str, Any] = {"kind": "resnet", "hidden_features": [8, 16, 32, 64], "depth": 1}
BATCH = 128
WEIGHT_DECAY, SMOOTHING, WARM_UP = 1e-2, 0.05, 0.2  # of AdamW, of the labels, the share of updates


def fit_classifier(
    x: Tensor,
    y: Tensor,
    classes: int,
    updates: int,
    net: Mapping[str, Any] = RESNET,
    lr: float = 1e-2,
    shift: int = 1,
    flip: bool = False,
    seed: int = 0,
) -> nn.Module:
    """A classifier of images trained with AdamW; the learning rate rises and falls in two lines (Smith 2018).

    Args:
        x: [N, H, W] or [N, C, H, W], pixels in [0, 1].
        y: int64 [N].
        classes: how many there are.
        updates: on BATCH rows each; every pass over the rows has an order of its own.
        net: an encoder's configuration.
        lr: the highest learning rate.
        shift: pixels that images move at most, each way.
        flip: whether half of the images are mirrored.
        seed: of weights, order and moves.

    Returns:
        The network of `nets.registry.build` in evaluation mode: images in [-1, 1] to logits [B, C].
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "fit/init"))
        model = build(net, tuple(x.shape[1:]), classes).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=WEIGHT_DECAY)
    batch = min(BATCH, len(x))
    per_epoch = len(x) // batch
    for update in range(updates):
        epoch, place = divmod(update, per_epoch)
        if place == 0:
            order = torch.as_tensor(generator(seed, "fit/rows", epoch).permutation(len(x)))
        rows = order[place * batch : (place + 1) * batch]
        done = (update + 1) / updates
        optimiser.param_groups[0]["lr"] = lr * min(done / WARM_UP, (1 - done) / (1 - WARM_UP))
        images = _moved(x[rows], generator(seed, "fit/moves", update), shift, flip)
        loss = cross_entropy(model(2 * images - 1), y[rows], SMOOTHING)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of images [N, ...] in [0, 1] that a classifier of images in [-1, 1] names rightly."""
    right = [(model(2 * a - 1).argmax(-1) == b).sum() for a, b in zip(x.split(500), y.split(500), strict=True)]
    return float(torch.stack(right).sum() / len(y))


def accuracy_score(
    samples: Tensor, labels: Tensor, card: data.Card, updates: int = 1500, seed: int = 0, **fit: Any
) -> dict[str, float]:
    """The accuracy on real test rows after training on samples, beside that after training on real rows.

    Args:
        samples: [N, *card.shape], pixels in [0, 1].
        labels: int64 [N], those the samples were asked for.
        card: the data set's.
        updates: of either classifier.
        seed: of both; for an interval, call it with several, and with samples of several generators.
        fit: further arguments of `fit_classifier`.

    Returns:
        "accuracy_score", "real_accuracy" and their difference "accuracy_gap", in [0, 1].

    Raises:
        ValueError: the samples have not the data's shape, or are no images.
    """
    if card.kind != "images" or tuple(samples.shape[1:]) != card.shape:
        raise ValueError(
            f"the accuracy score of {card.name} ({card.kind} of {card.shape}) cannot take rows of shape "
            f"{tuple(samples.shape[1:])}: pass images [N, *card.shape]"
        )
    train, test = (tensors(data.load(card.name)[split]) for split in ("train", "test"))
    scores = {}
    for name, (x, y) in (("accuracy_score", (samples.float(), labels)), ("real_accuracy", train)):
        scores[name] = accuracy(fit_classifier(x, y, card.classes, updates, seed=seed, **fit), *test)
    return scores | {"accuracy_gap": scores["real_accuracy"] - scores["accuracy_score"]}


def tensors(rows: data.Rows) -> tuple[Tensor, Tensor]:
    """Rows and labels of a split as tensors of their own."""
    return torch.tensor(rows.x), torch.tensor(rows.y)


def _moved(images: Tensor, rng: np.random.Generator, shift: int, flip: bool) -> Tensor:
    """Every image moved by up to `shift` pixels along each axis, edges 0, and mirrored or not."""
    count, (height, width) = len(images), images.shape[-2:]
    if flip:
        mirrored = torch.as_tensor(rng.random(count) < 0.5).reshape(-1, *(1,) * (images.dim() - 1))
        images = torch.where(mirrored, images.flip(-1), images)
    padded = nn.functional.pad(images, (shift,) * 4)
    views = padded.unfold(-2, height, 1).unfold(-2, width, 1).movedim((-4, -3), (1, 2))  # [B, moves, moves, (C,) H, W]
    down, right = torch.as_tensor(rng.integers(0, 2 * shift + 1, (2, count)))
    return views[torch.arange(count), down, right]
