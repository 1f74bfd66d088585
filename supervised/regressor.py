"""Regression of tables and forecasts of series; K networks side by side.

Papers: Huber 1964 (his loss), Hyndman & Koehler 2006 (scaled errors). How it learns: `supervised.training`.
Deliberate differences: the network learns standardised targets and its outputs are scaled back where they are judged;
the last `horizon` steps of a series are forecast from the steps before, all at once.

Legend: K lanes, B rows of a batch, N rows of a split, S steps and F features of a series, T targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from harness import data
from harness.data import spread
from harness.learner import Metrics, State
from harness.spec import PerLaneFloat, Score
from supervised import measures
from supervised.config import SupervisedConfig
from supervised.training import TRAIN_SHOWN, Supervised

__all__ = ["LOSSES", "Regressor", "RegressorConfig"]

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # of standardised numbers; Huber's loss is linear beyond 1
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,
}


class RegressorConfig(SupervisedConfig):
    """A network that predicts numbers."""

    kinds: ClassVar = ("table", "series")

    data: str = Field("diabetes", description="data set: a table with a number to predict, or series to forecast")
    objective: Literal["mse", "mae", "huber"] = Field("mse", description="what is minimised")
    horizon: int = Field(0, ge=0, description="last steps of every series that are forecast from those before")
    lr: PerLaneFloat = Field(3e-3, ge=0, description="highest learning rate")

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Of a line of a table, or of the steps that are known."""
        steps, *features = self.card.shape
        return (max(steps - self.horizon, 1), *features)

    @property
    def out_features(self) -> int:
        """One number, or the features of all steps to forecast."""
        return self.horizon * math.prod(self.card.shape[1:]) or 1

    @model_validator(mode="after")
    def _has_numbers_to_predict(self) -> RegressorConfig:
        table = self.card.kind == "table"
        if table and (self.card.classes or self.horizon):
            what = "has classes; the learner `classifier` predicts them" if self.card.classes else "has no steps"
            raise ValueError(f"{'data' if self.card.classes else 'horizon'}: '{self.data}' {what}")
        if not table and not 0 < self.horizon < self.card.shape[0]:
            raise ValueError(f"horizon: '{self.data}' has {self.card.shape[0]} steps; forecast 1 or more, but not all")
        return self


class Regressor(Supervised):
    """K networks of one kind."""

    Config = RegressorConfig
    score = Score("test_rmse", "min", worst=1e6, select="val_rmse", select_direction="min")
    version = 2  # measured in float64
    purpose = "regressor"

    def prepare(self, config: RegressorConfig) -> None:
        """Rows, and targets standardised by the training rows."""
        splits = {**data.load(config.data), "train": data.few(config.data, config.train_rows)}
        known = config.row_shape[0]
        series = config.card.kind == "series"
        x = {split: (rows.x[:, :known] if series else rows.x).copy() for split, rows in splits.items()}
        y = {
            split: (rows.x[:, known:] if series else rows.y).reshape(len(rows), -1).astype(np.float64)
            for split, rows in splits.items()
        }
        mean, std = y["train"].mean(0), spread(y["train"])
        centred = {split: target - mean for split, target in y.items()}  # in float64: float32 would cut them before
        self.mean, self.std = self._exactly(mean), self._exactly(std)
        self.centred = {split: self._exactly(target) for split, target in centred.items()}
        self.centred["train"] = self.centred["train"][:TRAIN_SHOWN]
        self.history = self._exactly(splits["train"].x.astype(np.float64)) if series else None
        self.keep_rows(x, {split: target / std for split, target in centred.items()})

    def loss(self, output: Tensor, target: Tensor, hp: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Of standardised predictions and targets [B, T]."""
        return LOSSES[self.lanes.config.objective](output, target), {}

    def evaluate(self, state: State) -> Metrics:
        """Errors in the data's own unit, [K]; `gap` is by how much that of test rows is above that of training rows."""
        scores: dict[str, Tensor] = {}
        for split, name in (("validation", "val"), ("test", "test"), ("train", "train")):
            prediction, target = self._centred(state, self.held[split][0]), self.centred[split]
            scores[f"{name}_rmse"] = (prediction - target).square().mean((-2, -1)).sqrt()
            scores[f"{name}_mae"] = (prediction - target).abs().mean((-2, -1))
            scores[f"{name}_r2"] = measures.r2(prediction, target)
            if self.history is not None:
                scores[f"{name}_mase"] = measures.mase(prediction, target, self.history)
        return scores | {"gap": scores["test_rmse"] - scores["train_rmse"]}

    def predicted(self, state: State, x: Tensor) -> Tensor:
        """Predictions in the data's own unit, float64 [K, N, T]."""
        return self._centred(state, x) + self.mean

    def _centred(self, state: State, x: Tensor) -> Tensor:
        """Predictions less the mean of the training targets, float64: errors are the same, and nothing is rounded."""
        return self.outputs(state, x).double() * self.std

    def _exactly(self, array: np.ndarray) -> Tensor:
        """A float64 array on the device, as exact as it is."""
        return self.lanes.execution.move(torch.as_tensor(array))
