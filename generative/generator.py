"""STUB until the lead's is on main."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from generative.metrics import frechet_distance, mode_metrics, moments
from harness import data
from harness.data.ring import STD
from harness.learner import Learner, Media, Metrics, Score, State, select
from harness.spec import LearnerConfig

UPDATES = 10


class GeneratorConfig(LearnerConfig):
    data: str = Field("ring-8", description="data set")
    images: int = Field(384_000, ge=1, description="rows")
    batch: int = Field(128, ge=1, description="rows of one update")
    samples: int = Field(2000, ge=2, description="rows that an evaluation draws")
    conditional: bool = Field(False, description="labels")

    @property
    def chunk(self) -> int:
        return UPDATES * self.batch

    @property
    def budget(self) -> int:
        return math.ceil(self.images / self.chunk) * self.chunk

    @property
    def data_sets(self) -> tuple[str, ...]:
        return (self.data,)


class Generator(Learner):
    unit = "images"
    score = Score("frechet", "min", worst=1e6)

    @classmethod
    def score_of(cls, config: Any) -> Score:
        return Score("overlap", "max", worst=0.0) if data.card(config.data).kind == "points" else cls.score

    def sample(self, state: State, count: int, purpose: str = "evaluate") -> Tensor:
        raise NotImplementedError

    def real(self, progress: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        rngs = self.lanes.generators("real", progress)
        rows = [data.draw_rows(self.lanes.config.data, rng, shape) for rng in rngs]
        return tuple(self.lanes.execution.tensor(np.stack([getattr(r, f) for r in rows])) for f in ("x", "y"))

    def labels(self, count: int) -> Tensor:
        card = data.card(self.lanes.config.data)
        return torch.arange(count, device=self.lanes.execution.device) % card.classes

    def evaluate(self, state: State) -> Metrics:
        card = data.card(self.lanes.config.data)
        ref = moments(torch.as_tensor(data.load(card.name)["test"].x.copy()))
        rows = []
        for s in self.sample(state, self.lanes.config.samples):
            scores = {"frechet": frechet_distance(moments(s.cpu()), ref)}
            if card.kind == "points":
                scores |= mode_metrics(s.cpu(), torch.as_tensor(data.ring_centres()), STD)
            rows.append(scores)
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def media(self, state: State, lane: int) -> dict[str, Media]:
        card = data.card(self.lanes.config.data)
        rows = self.sample(select(state, [lane]), 64)[0].cpu().numpy()
        ref = data.load(card.name)["test"].x[:64]
        if card.kind == "points":
            return {"samples": Media("points", rows, ref)}
        return {"samples": Media("image", grid(rows), grid(ref))}


    def picture(self, rows, ref):
        if data.card(self.lanes.config.data).kind == "points":
            return Media("points", rows, ref)
        return Media("image", grid(rows), grid(ref))


def grid(images: np.ndarray, columns: int = 8, scale: int = 4) -> np.ndarray:
    images = images.reshape(len(images), *images.shape[-2:])
    count, height, width = images.shape
    padded = np.pad(images, ((0, -count % columns), (0, 1), (0, 1)))
    rows = padded.reshape(-1, columns, height + 1, width + 1).transpose(0, 2, 1, 3)
    picture = rows.reshape(-1, columns * (width + 1)).repeat(scale, 0).repeat(scale, 1)
    return np.round(255 * picture).astype(np.uint8)
