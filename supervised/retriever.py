"""Question answering by retrieval: a pretrained encoder finds the passage that answers; `learner: retriever`.

Papers: Reimers & Gurevych 2019 (one encoder for both sides, mean of the tokens); Henderson et al. 2017 and van den Oord
et al. 2018 (the other passages of a batch are the wrong answers: InfoNCE, "multiple negatives ranking"). The ways to
train are those of `supervised.finetune`, whose training this is.

Deliberate differences: behind the mean there is a linear layer that begins as the identity, for ways that leave the
trunk alone; a pair that a batch holds twice, at the end of an epoch, counts as a wrong answer to itself.

An evaluation ranks the passages of all splits together for every held-out question, beside tf-idf (`tfidf_`) and the
network before training (`untouched_`).

Legend: N pairs of a split, P passages of all splits, T tokens, D features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from harness import data
from harness.learner import Lanes, Media, Metrics, State
from harness.spec import Score
from supervised.finetune import SHOWN, Finetune
from supervised.finetune_config import FROZEN, PretrainedConfig
from supervised.finetune_models import check_reads
from supervised.text_measures import found_at, tf_idf
from supervised.vocabulary import words

__all__ = ["Retriever", "RetrieverConfig", "scored"]

CUT = 160  # characters of a passage that is shown


class RetrieverConfig(PretrainedConfig):
    """A pretrained encoder that finds the passage for a question."""

    data: str = Field(
        "gnome-help",
        validate_default=True,
        description="data set: pairs of a question and its passage; or a path, pairs.jsonl",
    )
    head_lr: float = Field(1e-4, ge=0, description="peak learning rate of the layer behind the mean")

    @property
    def task(self) -> str:
        """The only one."""
        return "retrieval"

    @property
    def side(self) -> int:
        """Of images, of which there are none."""
        return 0

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The data set."""
        return (self.data,)

    @field_validator("data")
    @classmethod
    def _has_pairs(cls, name: str) -> str:
        card = data.card(name)
        if card.kind != "pairs" or card.classes:
            raise ValueError(f"'{name}' has no pairs of a question and its passage")
        return name

    @model_validator(mode="after")
    def _suits(self) -> RetrieverConfig:
        if self.batch < 2:
            raise ValueError("batch: 1 pair has no wrong answers beside it; take 2 or more")
        source = self.source()
        check_reads(source, self.task)
        if source.kind == "efficientnet":
            raise ValueError(f"model: '{self.model}' reads no texts")
        return self


def scored(ranks: np.ndarray) -> dict[str, float]:
    """What ranks [Q] say: the share of right passages at the top, among the five first, and the mean of 1 / rank."""
    hits = {f"recall_{most}": float((ranks <= most).mean()) for most in (1, 5)}
    return hits | {"mrr": float((1 / ranks).mean())}


class Retriever(Finetune):
    """One encoder of questions and passages; K = 1."""

    Config = RetrieverConfig
    score = Score("test_recall_1", "max", worst=0.0, select="val_mrr")
    version = 1  # of its own: no batch norm is in it

    @classmethod
    def rows_to_share(cls, config: Any) -> int:
        """None: the wrong answers of a batch are all of its other passages."""
        return 1

    def start(self, lanes: Lanes) -> State:
        """As for `finetune`; and what is reached without training."""
        state = super().start(lanes)
        kept = {split: len(rows.y) for split, rows in self.rows.items()}
        self.pairs = {split: rows[: kept[split]] for split, rows in data.pairs(lanes.config.data).items()}
        self.passages = [passage for rows in self.pairs.values() for _, passage in rows]
        near = tf_idf([words(q) for q, _ in self.pairs["test"]], [words(p) for p in self.passages])
        baselines = {"tfidf": found_at(near, self._right("test")), "untouched": self._ranks("test", self._vectors())}
        self.without = {f"{name}_{key}": v for name, ranks in baselines.items() for key, v in scored(ranks).items()}
        return state

    def evaluate(self, state: State) -> Metrics:
        """Recall and mean reciprocal rank of held-out questions, among all passages."""
        vectors = self._vectors()
        scores = dict(self.without)
        for split, name in (("validation", "val"), ("test", "test")):
            scores |= {f"{name}_{key}": v for key, v in scored(self._ranks(split, vectors)).items()}
        return {name: torch.tensor([value], dtype=torch.float64) for name, value in scores.items()}

    def media(self, state: State, lane: int) -> dict[str, Media]:
        """The questions whose passage is furthest down, and what was found in its place."""
        vectors = self._vectors()
        ranks, found = self._ranks("test", vectors), self._near("test", vectors).argmax(1)
        worst = [i for i in np.argsort(-ranks, kind="stable") if ranks[i] > 1][:SHOWN]
        lines = [f"{self.pairs['test'][i][0]} -> {self.passages[found[i]][:CUT]}" for i in worst]
        right = [f"rank {ranks[i]}: {self.pairs['test'][i][1][:CUT]}" for i in worst]
        about = "The worst mistakes: question -> what was found; beside it the right passage and its rank"
        return {"mistakes": Media("text", np.array(lines, dtype=str), np.array(right, dtype=str), caption=about)}

    def _batch(self, progress: int) -> tuple[Tensor, Tensor]:
        """B pairs; the right passage of the i-th question is the i-th."""
        x, _ = super()._batch(progress)
        return x, torch.arange(len(x), device=x.device)

    def _vectors(self) -> dict[str, np.ndarray]:
        """Questions and passages of every split, [N, 2, D], of length 1."""
        frozen = self.lanes.config.way in FROZEN  # then the rows are features

        def embedded(x: Tensor) -> Tensor:
            return self.net.head.embed(x if frozen else self.net.features(x))

        return {split: self._run(embedded, rows.x).double().numpy() for split, rows in self.rows.items()}

    def _near(self, split: str, vectors: dict[str, np.ndarray]) -> np.ndarray:
        """Cosines of a split's questions and all passages, [N, P]."""
        return vectors[split][:, 0] @ np.concatenate([v[:, 1] for v in vectors.values()]).T

    def _right(self, split: str) -> np.ndarray:
        """Where the passages of a split stand among all, [N]."""
        before = 0
        for name, rows in self.pairs.items():
            if name == split:
                break
            before += len(rows)
        return before + np.arange(len(self.pairs[split]))

    def _ranks(self, split: str, vectors: dict[str, np.ndarray]) -> Any:
        """Of the right passages of a split's questions, [N]."""
        return found_at(self._near(split, vectors), self._right(split))
