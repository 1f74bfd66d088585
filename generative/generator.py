"""What every generator of rows does beside its algorithm: it is judged, shown and given its data in the same way.

An algorithm's file holds `start`, `advance`, `sample`, `network` and the functions of one trial; nothing here touches
how it learns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from generative.judge import Judge, check_held_out, judge_score
from generative.pictures import grid, slerp
from harness import data
from harness.data import Card, check_few
from harness.learner import Lanes, Learner, Media, Metrics, State
from harness.spec import LearnerConfig, Score

__all__ = ["Generator", "GeneratorConfig"]

SHOWN = {"points": 1000, "images": 64, "video": 12}  # rows of one picture
AT_ONCE = 500  # rows that are drawn together
FALL = 0.2  # of the best coverage so far, which is worth a warning
STEPS = 8  # of a walk between two images, and walks


class GeneratorConfig(LearnerConfig):
    """A learner that makes rows like those of a data set."""

    updates: ClassVar[int] = 10  # of one chunk
    kinds: ClassVar[tuple[str, ...]] = ("points", "images")  # of data
    defaults: ClassVar[dict[str, dict[str, Any]]] = {}  # data set -> fields whose default differs there

    data: str = Field("ring-8", description="data set (`seedbed data` lists them): points or images")
    images: int = Field(
        384_000, ge=1, description="real rows shown in training (rounded up to whole chunks)"
    )
    batch: int = Field(128, ge=1, description="rows of one update")
    conditional: bool = Field(False, description="whether rows are made for a given label")
    train_rows: int = Field(
        0, ge=0, description="real training rows that are used, the first by hash, each class alike; 0 uses all"
    )
    samples: int = Field(2000, ge=100, description="rows that an evaluation draws")

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_data(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        name = given.get("data", cls.model_fields["data"].default)
        return {**cls.defaults.get(name if isinstance(name, str) else "", {}), **given}

    @field_validator("data")
    @classmethod
    def _known(cls, name: str) -> str:
        kind = data.card(name).kind
        if kind not in cls.kinds:
            raise ValueError(f"'{name}' holds {kind}; this learner makes {' and '.join(cls.kinds)}")
        return name

    @model_validator(mode="after")
    def _has_labels(self) -> GeneratorConfig:
        if self.conditional and self.card.classes < 2:
            raise ValueError(f"conditional: data set '{self.data}' has no labels; set it to false")
        check_few(self.card, self.train_rows)
        check_held_out(self.card)
        return self

    @property
    def held_bytes(self) -> dict[str, int]:
        """The rows of a batch."""
        return {**super().held_bytes, "batch": self.batch * math.prod(self.card.shape) * 4}

    @property
    def card(self) -> Card:
        """Of the data set."""
        return data.card(self.data)

    @property
    def classes(self) -> int:
        """Labels that the networks are built for; 0 where they see none."""
        return self.card.classes if self.conditional else 0

    @property
    def chunk(self) -> int:
        """Rows of one chunk."""
        return self.updates * self.batch

    @property
    def budget(self) -> int:
        """Rows to show, whole chunks."""
        return math.ceil(self.images / self.chunk) * self.chunk

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The data set."""
        return (self.data,)


class Generator(Learner):
    """A learner whose `sample` makes rows; `start` calls `begin` first."""

    unit = "images"
    latent: ClassVar[bool] = False  # rows are made from normal codes of `latent_features`: `made`
    score = Score("frechet", "min", worst=1e6)

    @classmethod
    def score_of(cls, config: Any) -> Score:
        """What suits the data: see `generative.judge`."""
        return judge_score(config.card)

    def begin(self, lanes: Lanes) -> None:
        """Takes the lanes: data, judge, per-lane fields (`hyper`)."""
        self.lanes = lanes
        self.card = lanes.config.card
        self.chunk = lanes.config.chunk
        self.hyper = {name: lanes.per_lane(name) for name in lanes.config.per_lane_fields()}
        self.judge = _judge(lanes.config.data)
        self._covered: dict[str, Tensor] = {}

    def counters(self) -> State:
        """The part of a state that every learner has, at progress 0."""
        progress = torch.zeros(len(self.lanes), dtype=torch.int64, device=self.lanes.execution.device)
        return {"progress": progress, "alive": torch.ones_like(progress, dtype=torch.bool)}

    def real(self, purpose: str, progress: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Training rows [K, *shape, *row] as networks see them (pixels in [-1, 1]) and labels [K, *shape]."""
        name, few = self.card.name, self.lanes.config.train_rows
        drawn = [data.draw_few(name, few, rng, shape) for rng in self.lanes.generators(purpose, progress)]
        x, y = (np.stack(arrays) for arrays in zip(*((rows.x, rows.y) for rows in drawn), strict=True))
        tensor = self.lanes.execution.tensor
        return tensor(x if self.card.kind == "points" else 2 * x - 1), tensor(y)

    def labels(self, count: int) -> Tensor:
        """The labels that samples are made for where a learner is conditional, int64 [count]: each class in turn."""
        return torch.arange(count, device=self.lanes.execution.device) % max(self.card.classes, 1)

    def in_data_range(self, rows: Tensor) -> Tensor:
        """What a network makes, as the data has it: pixels from [-1, 1] to [0, 1], points as they are."""
        return rows if self.card.kind == "points" else ((rows + 1) / 2).clamp(0, 1)

    def sample(self, state: State, count: int, purpose: str = "evaluate") -> Tensor:
        """Rows in the data's own range, [K, count, *row]; the first ones do not depend on `count`."""
        raise NotImplementedError

    def made(self, state: State, codes: Tensor, labels: Tensor) -> Tensor:
        """Latent learners: rows in the data's own range, [K, N, *row], of codes [K, N, Z] and labels [N]."""
        raise NotImplementedError

    def draw(self, network: nn.Module, labels: Tensor) -> Tensor:
        """Rows in the data's own range, [N, *row], that a network of `network` makes for labels int64 [N].

        For trials that are done: the learner is started with one lane (`harness.load(...).learner`). The noise is the
        seed's own and none that training or evaluation has seen.
        """
        parts = zip(self._draw_noise(len(labels)).split(AT_ONCE), labels.split(AT_ONCE), strict=True)
        with torch.no_grad():
            return torch.cat([self._drawn(network, z, asked) for z, asked in parts])

    def _draw_noise(self, count: int) -> Tensor:
        return self.lanes.noise("generator/draw", 0, (count, self.lanes.config.latent_features))[0]

    def _drawn(self, network: nn.Module, z: Tensor, labels: Tensor) -> Tensor:
        told = (labels,) if self.lanes.config.conditional else ()
        return self.in_data_range(network(z, *told))

    def evaluate(self, state: State) -> Metrics:
        """The judge's scores of `samples` rows, [K]."""
        rows = self.sample(state, self.lanes.config.samples)
        each_lane = [self.judge.scores(each, self._asked(len(each))) for each in rows]
        scores = {name: torch.stack([s[name] for s in each_lane]) for name in each_lane[0]}
        self._warn_of_collapse(scores, state["alive"].cpu())
        return scores

    def _warn_of_collapse(self, scores: Mapping[str, Tensor], alive: Tensor) -> None:
        """A sentence for the log where a lane covers a fifth less than at its best evaluation in this process."""
        for name in ("modes", "coverage"):
            if name not in scores:
                continue
            best = self._covered.get(name, scores[name])
            for k in (alive & (scores[name] < (1 - FALL) * best)).nonzero().flatten().tolist():
                was, now = float(best[k]), float(scores[name][k])
                self.notes.append(f"seed {self.lanes.seeds[k]}: {name} fell from {was:.4g} to {now:.4g}: a collapse?")
                best = best.index_fill(0, torch.tensor(k), now)  # said once a fall
            self._covered[name] = torch.fmax(best, scores[name])

    def media(self, state: State, lane: int) -> dict[str, Media]:
        """Samples beside held-out rows, as the judge draws them; walks between images of latent learners."""
        count = SHOWN[self.card.kind]
        media = self.judge.media(self.sample(state, count)[lane], self._asked(count))
        if self.latent and self.card.kind == "images":
            media["walks"] = self._walks(state, lane)
        return media

    def frames(self, state: State) -> dict[str, Sequence[np.ndarray]]:
        """Samples of the same noise at every evaluation, as the judge draws them."""
        count = SHOWN[self.card.kind]
        return {"samples": [self.judge.frame(rows, self._asked(count)) for rows in self.sample(state, count)]}

    def _walks(self, state: State, lane: int) -> Media:
        ends = self.lanes.noise("generator/walks", 0, (2, STEPS, self.lanes.config.latent_features))
        codes = torch.stack([slerp(start, end, STEPS).flatten(0, 1) for start, end in ends])  # [K, STEPS^2, Z]
        rows = self.made(state, codes, self.labels(STEPS).repeat_interleave(STEPS))[lane]
        caption = f"{STEPS} walks, a row each, along the great circle from one noise (left) to another (right)"
        return Media("image", grid(rows.cpu().numpy(), STEPS), caption=caption)

    def _asked(self, count: int) -> Tensor | None:
        return self.labels(count) if self.lanes.config.conditional else None


@cache
def _judge(name: str) -> Judge:
    return Judge(data.card(name))
