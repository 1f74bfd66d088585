"""Classification of images, series, tables and points: cross-entropy; K classifiers side by side.

Papers: Szegedy et al. 2016 (label smoothing); Zhang et al. 2018 (mixup). How it learns: `supervised.training`.
Deliberate differences: mixup mixes every row with its neighbour in the (already shuffled) batch, and a batch has one
lambda; generated rows take the place of the last rows of a batch, so that a lane with them sees the same number of rows
and updates as one without.

Legend: K lanes, U updates of a chunk, B rows of a batch, G of them generated, M = U B, N rows of a split, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from harness import data
from harness.learner import Media, Metrics, State, select
from harness.spec import PerLaneFloat, Score, SyntheticConfig, Trial
from nets.regularise import cross_entropy, mixup
from supervised import measures
from supervised.config import SupervisedConfig
from supervised.pictures import pictured
from supervised.training import Supervised, as_networks_see

__all__ = ["Classifier", "ClassifierConfig"]

MISTAKES = 24  # in the picture
TABLE = 20  # classes in the caption's table, at most


class ClassifierConfig(SyntheticConfig, SupervisedConfig):
    """A classifier of rows with labels."""

    kinds: ClassVar = ("images", "series", "table", "points", "video")

    label_smoothing: PerLaneFloat = Field(0.05, ge=0, le=1, description="share of the target spread over all classes")
    mixup: PerLaneFloat = Field(
        0.0, ge=0, description="alpha of the Beta distribution of mixup's lambda, 0.1 to 0.4; 0 mixes nothing"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="weights of the classes in the loss; balanced: inverse to their rows"
    )

    @property
    def out_features(self) -> int:
        """A logit for each class."""
        return max(self.card.classes, 1)

    @property
    def generated(self) -> int:
        """Rows of a batch that are generated where `synthetic_from` names a trial."""
        return max(round(self.synthetic_share * self.batch), 1)

    def check_parent(self, field: str, parent: Trial) -> None:
        """The parent of `synthetic_from` must be a conditional generator of the same data."""
        wanted = {"conditional": True, "data": self.data}
        if field == "synthetic_from" and any(parent.config.get(name) != value for name, value in wanted.items()):
            raise ValueError(
                f"synthetic_from: {parent.label} (trials.{parent.entry}) makes no rows of '{self.data}' for given"
                f" labels; name a generator with data: {self.data} and conditional: true"
            )

    @model_validator(mode="after")
    def _has_labels(self) -> ClassifierConfig:
        if self.card.classes < 2:
            raise ValueError(f"data: '{self.data}' has no labels; the learner `regressor` predicts numbers")
        return self


CLASS_WEIGHTS: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {  # of counts [C]; a mean of 1 over all rows
    "none": lambda counts: None,
    "balanced": lambda counts: counts.sum() / (len(counts) * counts),
}


class Classifier(Supervised):
    """K classifiers of one kind."""

    Config = ClassifierConfig
    score = Score("test_accuracy", "max", worst=0.0, select="val_accuracy")
    version = 3  # augmentation after the rows are drawn
    purpose = "classifier"

    def prepare(self, config: ClassifierConfig) -> None:
        """Rows and labels, weights of the classes, generators."""
        card = config.card
        splits = {**data.load(config.data), "train": data.few(config.data, config.train_rows)}
        self.classes = card.classes
        self.keep_rows(
            {split: as_networks_see(card, rows.x) for split, rows in splits.items()},
            {split: rows.y.copy() for split, rows in splits.items()},
        )
        weights = CLASS_WEIGHTS[config.class_weights](np.bincount(splits["train"].y, minlength=self.classes))
        self.weights = None if weights is None else self.lanes.execution.tensor(weights)
        self.samplers = [self._sampler(net) for net in self.lanes.samplers]
        self.mixes = any(c.mixup for c in self.lanes.configs)

    def rows(self, progress: int) -> tuple[Tensor, Tensor]:
        """Real rows; in lanes with a generator the last G of each batch are its rows, of random classes."""
        x, y = super().rows(progress)
        config, tensor = self.lanes.config, self.lanes.execution.tensor
        shape = (config.updates_of_a_chunk, config.generated)
        rngs = self.lanes.generators("classifier/generated", progress)
        for k, (sampler, rng) in enumerate(zip(self.samplers, rngs, strict=False)):
            if sampler is not None:
                labels = tensor(rng.integers(self.classes, size=shape))
                noise = tensor(rng.standard_normal((labels.numel(), *sampler.recipe["input_shape"])))
                with torch.no_grad():
                    made = sampler(noise, labels.flatten())
                batches = (config.updates_of_a_chunk, config.batch)
                x[k].unflatten(0, batches)[:, -config.generated :] = made.unflatten(0, shape)
                y[k].unflatten(0, batches)[:, -config.generated :] = labels
        return x, y

    def batches(self, progress: int) -> tuple[Tensor, Tensor]:
        """Rows [K, U, B, *row] and shares of the classes [K, U, B, C]; mixed where a lane asks for it."""
        x, y = super().batches(progress)
        shares = (y.unsqueeze(-1) == torch.arange(self.classes, device=y.device)).to(x.dtype)
        if self.mixes:
            x, shares = self._mixed(x, shares, progress)
        return x, shares

    def loss(self, output: Tensor, target: Tensor, hp: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of logits [B, C] and shares [B, C]; accuracy."""
        right = (output.argmax(-1) == target.argmax(-1)).to(output.dtype)
        return cross_entropy(output, target, hp["label_smoothing"], self.weights), {"accuracy": right.mean()}

    def evaluate(self, state: State) -> Metrics:
        """Scores on the three splits, [K]; `gap` is how much larger the loss is on test rows than on training rows."""
        logits = {split: self.outputs(state, x) for split, (x, _) in self.held.items()}
        scores: dict[str, Tensor] = {}
        for split, name in (("validation", "val"), ("test", "test"), ("train", "train")):
            y = self.held[split][1]
            scores[f"{name}_accuracy"] = measures.accuracy(logits[split], y)
            scores[f"{name}_loss"] = measures.negative_log_likelihood(logits[split], y)
        test, y = logits["test"], self.held["test"][1]
        return scores | {
            "gap": scores["test_loss"] - scores["train_loss"],
            "test_f1": measures.macro_f1(measures.confusion(test.argmax(-1), y, self.classes)),
            "test_auroc": measures.auroc(test, y),
            "test_calibration_error": measures.calibration_error(test, y),
        }

    def media(self, state: State, lane: int) -> dict[str, Media]:
        """The confusion matrix of the test rows, with a table of the classes; the worst mistakes as a picture."""
        x, y = self.held["test"]
        logits = self.outputs(select(state, [lane]), x)[0]
        counts = measures.confusion(logits.argmax(-1), y, self.classes)
        table = "; ".join(
            f"{c}: {100 * p:.0f} {100 * r:.0f} {100 * f:.0f}"
            for c, (p, r, f, _) in enumerate(measures.per_class(counts)[:TABLE].tolist())
        )
        found = {
            "confusion": Media(
                kind="matrix",
                data=counts.long().cpu().numpy(),
                labels=tuple(str(c) for c in range(self.classes)),
                caption=f"{len(y)} held-out rows: rows are the truth, columns the prediction. Precision, recall and F1"
                f" of each class in percent: {table}",
            )
        }
        worst = measures.worst(logits, y, MISTAKES)
        picture = pictured(x[worst].cpu().numpy(), self.lanes.config.card.kind)
        if picture is not None:
            names = ", ".join(f"{a} for {b}" for a, b in zip(logits[worst].argmax(-1), y[worst], strict=True))
            found["mistakes"] = Media(kind="image", data=picture, caption=f"The worst mistakes, row by row: {names}")
        return found

    def _mixed(self, x: Tensor, shares: Tensor, progress: int) -> tuple[Tensor, Tensor]:
        """mixup of each batch with itself, moved by one row; lambda is 1 where a lane's alpha is 0."""
        rngs = self.lanes.generators("classifier/mixup", progress)
        count = x.shape[1]
        drawn = [
            rng.beta(c.mixup, c.mixup, count) if c.mixup else np.ones(count)
            for rng, c in zip(rngs, self.lanes.configs, strict=True)
        ]
        lam = self.lanes.execution.tensor(np.stack(drawn)).flatten().repeat_interleave(x.shape[2])
        order = torch.arange(len(lam), device=lam.device).reshape(-1, x.shape[2]).roll(1, 1).flatten()
        mixed = mixup(x.flatten(0, 2), shares.flatten(0, 2), lam, order)
        return mixed[0].reshape(x.shape), mixed[1].reshape(shares.shape)

    def _sampler(self, net: nn.Module | None) -> Any:
        """A lane's generator where its rows are needed.

        Raises:
            ValueError: it is no conditional generator of rows like these.
        """
        if net is None:
            return None
        recipe: Any = net.recipe
        wanted = {"rows of shape": list(self.lanes.config.card.shape), "classes:": self.classes}
        found = {"rows of shape": recipe["output"], "classes:": recipe["config"].get("classes", 0)}
        if found != wanted:
            raise ValueError(f"synthetic_from: its network makes {found}; a generator with {wanted} is needed")
        return net.to(self.lanes.execution.device, self.lanes.execution.dtype)
