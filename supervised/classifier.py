"""Image classification: cross-entropy, AdamW, cosine decay; K classifiers side by side.

Paper: Loshchilov & Hutter 2019 (AdamW); Szegedy et al. 2016 (label smoothing).
Deliberate differences: no warm-up and no clipping; small images move by at most a pixel.

Legend: K lanes, U updates of a chunk, B rows of a batch, N rows of a split, H x W pixels, C classes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from harness import data
from harness.blocks import check_builds, encoder_config
from harness.learner import Lanes, Learner, Media, Metrics, State, select
from harness.spec import LearnerConfig, PerLaneFloat, Score
from nets.lanes import Work, call, grad_and_value, keep, module_of
from nets.looking import activation_statistics, layer_statistics
from nets.optim import adam, adam_init
from nets.registry import build
from nets.regularise import cross_entropy

__all__ = ["Classifier", "ClassifierConfig", "shifted"]

UPDATES = 8  # of one chunk
DEFAULTS: dict[str, dict[str, Any]] = {  # where they differ from the encoder's own
    "mlp": {"hidden_features": 128, "depth": 2},
    "cnn": {"hidden_features": 16, "depth": 2},
    "gru": {"hidden_features": 64, "depth": 1},
    "transformer": {"hidden_features": 32, "depth": 2, "activation": "relu", "expansion": 2},
}
SECONDS = {"mlp": 2e-5, "cnn": 6e-5, "gru": 4e-5, "transformer": 8e-5}  # a row, on one core of a 2-core machine


if TYPE_CHECKING:
    Net = Any
else:
    Net = encoder_config("mlp", DEFAULTS)


class ClassifierConfig(LearnerConfig):
    """A classifier of small images."""

    data: Literal["digits"] = Field("digits", description="data set")
    net: Net = Field(
        default_factory=dict, validate_default=True, description="the network: an encoder's kind and its fields"
    )
    epochs: int = Field(40, ge=1, description="passes over the training rows (rounded up to whole chunks)")
    batch: int = Field(64, ge=1, description="rows of one update")
    lr: PerLaneFloat = Field(
        6e-3, ge=0, description="learning rate at the start; it falls to 0 along a cosine"
    )
    weight_decay: PerLaneFloat = Field(1e-2, ge=0, description="decoupled weight decay (AdamW)")
    label_smoothing: PerLaneFloat = Field(
        0.05, ge=0, le=1, description="share of the target spread over all classes"
    )
    shift: bool = Field(True, description="whether training images move by up to one pixel each way")
    patience: int = Field(
        0, ge=0, description="evaluations without a better score that end a trial; 0 never ends one"
    )

    layers_every: int = Field(
        0, ge=0, description="updates between two looks at every layer's gradients and activations; 0 never looks"
    )

    @property
    def chunk(self) -> int:
        """Rows of one chunk."""
        return UPDATES * self.batch

    @property
    def budget(self) -> int:
        """Rows to train on, whole chunks."""
        return math.ceil(self.epochs * data.card(self.data).rows["train"] / self.chunk) * self.chunk

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The data set."""
        return (self.data,)

    @property
    def seconds_per_progress(self) -> float:
        """Measured for default sizes; a first guess for other encoders."""
        return SECONDS.get(self.net.kind, 2e-4)

    @model_validator(mode="after")
    def _fits_the_data(self) -> ClassifierConfig:
        card = data.card(self.data)
        try:
            check_builds(self.net, card.shape, card.classes)
        except ValueError as error:
            raise ValueError(f"net: {error}") from None
        return self


def shifted(images: np.ndarray) -> np.ndarray:
    """Images moved by -1, 0 or 1 pixels along each axis, edges 0: [9, N, H, W]; the fifth is unmoved."""
    height, width = images.shape[1:]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    return np.stack([padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)])


class Classifier(Learner):
    """K classifiers of one kind, each on its own order of the same rows."""

    Config = ClassifierConfig
    unit = "rows"
    score = Score("test_accuracy", "max", worst=0.0, select="val_accuracy")
    version = 2  # networks of `nets.registry`

    def start(self, lanes: Lanes) -> State:
        """Networks and optimisers at progress 0."""
        self.lanes = lanes
        config: ClassifierConfig = lanes.config
        self.chunk = config.chunk
        self.hyper = {name: lanes.per_lane(name) for name in config.per_lane_fields()}
        self._load(config)
        execution = lanes.execution
        self.net, params, buffers = execution.stack(self._build, lanes.init_seeds("classifier/init"))
        self._update_each = execution.each(self._update)
        self._look_each = execution.each(self._look)
        self._logits_each = execution.each(self._logits, in_dims=(0, 0, None), rare=True)
        zeros = torch.zeros(len(lanes), dtype=torch.int64, device=execution.device)
        return {
            "progress": zeros,
            "alive": torch.ones_like(zeros, dtype=torch.bool),
            "params": params,
            "buffers": buffers,
            "optimiser": adam_init(params, lanes=len(lanes)),
        }

    def advance(self, state: State) -> Metrics:
        """One chunk: U updates on B rows each."""
        config: ClassifierConfig = self.lanes.config
        progress = int(state["progress"][0])
        rows = self._rows(progress)
        batches = self._x[rows], self._y[rows % self.train_rows]  # [K, U, B, H, W], [K, U, B]
        keys = self.lanes.keys("classifier/noise", progress, UPDATES)
        totals: dict[str, Tensor] = {}
        seen: dict[str, Tensor] = {}
        for u in range(UPDATES):
            done = (progress + u * config.batch) / config.budget
            hp = {**self.hyper, "lr": self.hyper["lr"] * (0.5 + 0.5 * math.cos(math.pi * min(done, 1.0)))}
            weights = {name: state[name] for name in ("params", "buffers", "optimiser")}
            x, y = (t[:, u] for t in batches)
            new, metrics = self._update_each(weights, hp, state["alive"], x, y, keys[:, u])
            state.update(new)
            totals = {name: totals.get(name, 0) + value / UPDATES for name, value in metrics.items()}
            if config.layers_every and (progress // config.batch + u) % config.layers_every == 0:
                seen = self._look_each(weights, new["params"], hp, x, y, keys[:, u])
        state["progress"] = state["progress"] + self.chunk
        return totals | seen

    def evaluate(self, state: State) -> Metrics:
        """Accuracy and loss on the validation fifth, accuracy on the test fifth; [K]."""
        val, test = (
            self._logits_each(state["params"], state["buffers"], self._held[s][0]) for s in self._held
        )
        val_y, test_y = (y for _, y in self._held.values())
        log_p = functional.log_softmax(val, dim=-1)  # [K, N, C]
        return {
            "val_accuracy": (val.argmax(-1) == val_y).double().mean(-1),
            "val_loss": -log_p[:, torch.arange(len(val_y)), val_y].mean(-1),
            "test_accuracy": (test.argmax(-1) == test_y).double().mean(-1),
        }

    def network(self, state: State, lane: int) -> nn.Module:
        """Images [B, H, W] with pixels in [-1, 1] to logits [B, C]."""
        return module_of(self._build, state["params"], state["buffers"], lane)

    def media(self, state: State, lane: int) -> dict[str, Media]:
        """The confusion matrix on the test fifth: rows are the truth."""
        x, y = self._held["test"]
        one = select(state, [lane])
        guess = self._logits_each(one["params"], one["buffers"], x)[0].argmax(-1)
        counts = torch.bincount(y * self.classes + guess, minlength=self.classes**2)
        return {
            "confusion": Media(
                kind="matrix",
                data=counts.reshape(self.classes, self.classes).cpu().numpy(),
                labels=tuple(str(c) for c in range(self.classes)),
                caption=f"{int(counts.sum())} held-out images: rows are the truth, columns the prediction",
            )
        }

    @classmethod
    def work(cls, config: ClassifierConfig, lanes: int) -> Work:
        """What a cohort costs, for choosing how it is executed."""
        return Work(config.seconds_per_progress * config.budget * lanes, compile_seconds=30.0, speedup=2.0)

    # Functions of one trial

    def _build(self) -> nn.Module:
        return build(self.lanes.config.net.model_dump(), self.image, self.classes)

    def _logits(self, params: Any, buffers: Any, x: Tensor) -> Tensor:
        return call(self.net, params, buffers, x)[0]

    def _update(self, weights: Any, hp: Any, alive: Tensor, x: Tensor, y: Tensor, key: Tensor) -> Any:
        """One AdamW step on a batch: ({"params", "buffers", "optimiser"}, metrics)."""

        def loss(params: Any) -> Any:
            logits, buffers = call(self.net, params, weights["buffers"], x, noise=key)
            accuracy = (logits.argmax(-1) == y).to(logits.dtype).mean()
            return cross_entropy(logits, y, hp["label_smoothing"]), (buffers, accuracy)

        grads, (value, (buffers, accuracy)) = grad_and_value(loss, has_aux=True)(weights["params"])
        params, optimiser = adam(
            weights["params"], grads, weights["optimiser"], hp["lr"], weight_decay=hp["weight_decay"]
        )
        new = {"params": params, "buffers": buffers, "optimiser": optimiser}
        return keep(alive, new, weights), {"loss": value, "accuracy": accuracy}

    def _look(self, old: Any, after: Any, hp: Any, x: Tensor, y: Tensor, key: Tensor) -> dict[str, Tensor]:
        """Statistics of every layer for one update that was made."""

        def loss(params: Any) -> Any:
            (logits, _), seen = activation_statistics(self.net, params, old["buffers"], x, noise=key)
            return cross_entropy(logits, y, hp["label_smoothing"]), seen

        grads, (_, seen) = grad_and_value(loss, has_aux=True)(old["params"])
        return layer_statistics(old["params"], grads, after, seen)

    # Data

    def _load(self, config: ClassifierConfig) -> None:
        card, splits = data.card(config.data), data.load(config.data)
        self.image, self.classes, self.train_rows = card.shape, card.classes, card.rows["train"]
        tensor = self.lanes.execution.tensor
        views = shifted(splits["train"].x) if config.shift else splits["train"].x
        self._x, self._y = tensor(2 * views.reshape(-1, *card.shape) - 1), tensor(splits["train"].y.copy())
        held = {name: splits[name] for name in ("validation", "test")}
        self._held = {name: (tensor(2 * rows.x - 1), tensor(rows.y.copy())) for name, rows in held.items()}

    def _rows(self, progress: int) -> Tensor:
        """Indices into the (moved) training rows, [K, U, B]: an epoch is a permutation of the lane's own."""
        n, rows = self.train_rows, []
        first, last = progress // n, (progress + self.chunk - 1) // n
        for epoch in range(first, last + 1):
            rows.append([rng.permutation(n) for rng in self.lanes.generators("classifier/rows", epoch)])
        index = np.concatenate(rows, axis=-1)[:, progress - first * n :][:, : self.chunk]
        if self.lanes.config.shift:
            move = self.lanes.generators("classifier/shift", progress)
            index = index + n * np.stack([rng.integers(0, 9, self.chunk) for rng in move])
        return self.lanes.execution.tensor(index.reshape(len(self.lanes), UPDATES, -1))
