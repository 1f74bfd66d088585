"""Readers: a story and a question in, the word that answers out; K readers side by side.

Papers: Weston et al. 2015 (bAbI's tasks); Sukhbaatar et al. 2015 (sentences as bags of words with a code of the place,
memories counted from the question backwards); Hermann et al. 2015 (names exchanged at random in every text shown);
Vaswani et al. 2017 (attention); Hochreiter & Schmidhuber 1997 (the LSTM without attention, beside which it is shown).
How it learns: `supervised.training`.
Deliberate differences: the answer is one of the training answers, a class, and no word of the passage is pointed at.

Legend: K lanes, N stories, L sentences, W words of a sentence, T = L W tokens of a story, A answers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from harness import data
from harness.blocks import block_config, check_builds, frozen
from harness.learner import Media, Metrics, State, select
from harness.spec import PerLaneFloat, Score
from nets.lanes import Work
from nets.registry import build
from supervised import measures
from supervised.config import TrainingConfig
from supervised.training import Supervised
from supervised.vocabulary import PAD, UNKNOWN, Vocabulary, learnt, padded, words

__all__ = ["Reader", "ReaderConfig", "exchanged", "laid_out", "sentences"]

DEFAULTS: dict[str, dict[str, Any]] = {
    "story-transformer": {"vocabulary": 0, "sentence": 0},
    "transformer": {"hidden_features": 64, "depth": 3, "pool": "last", "padding": False},
    "lstm": {"hidden_features": 64},
    "gru": {"hidden_features": 64},
}
MISTAKES = 12
WORDS = 10_000  # of the vocabulary

if TYPE_CHECKING:
    Net = Any
else:
    Net = block_config("encoder", "story-transformer", DEFAULTS, only=tuple(DEFAULTS))


def sentences(text: str) -> list[str]:
    """A text cut behind full stops, question and exclamation marks; one that has nothing else stays whole."""
    return re.findall(r"[^.?!\s][^.?!]*[.?!]?", text) or [text]


def laid_out(text: str, vocabulary: Vocabulary, shape: tuple[int, ...]) -> np.ndarray:
    """A story as tokens, filled up so that the question stands last; what is too long loses its beginning.

    Args:
        text: story and question.
        vocabulary: its words.
        shape: (L, W), a sentence a line, filled up at its end; or (T,), without gaps.

    Returns:
        int64, flat: [L * W] or [T].
    """
    cut = [vocabulary.encoded(sentence) for sentence in sentences(text)]
    rows = padded(cut[-shape[0] :], shape[1]) if len(shape) == 2 else np.concatenate(cut)[-shape[0] :]
    found = np.full(shape, PAD, np.int64)
    found[shape[0] - len(rows) :] = rows
    return found.ravel()


def exchanged(
    vocabulary: Vocabulary, groups: Sequence[Sequence[str]], count: int, rng: np.random.Generator
) -> np.ndarray:
    """What every word becomes in each of `count` stories, int64 [count, V]: a permutation within each group."""
    table = np.tile(np.arange(len(vocabulary)), (count, 1))
    for group in groups:
        places = [vocabulary.numbers[word] for word in group]
        table[:, places] = rng.permuted(table[:, places], axis=1)
    return table


class Stories(NamedTuple):
    """A data set as tokens.

    Attributes:
        vocabulary: of the training stories.
        shape: (L, W) of the longest training story and sentence, or (T,).
        answers: the training answers, in the order of the alphabet.
        x: tokens of every split [N, T].
        y: the answer's place in `answers`, -1 for one that they lack.
    """

    vocabulary: Vocabulary
    shape: tuple[int, ...]
    answers: tuple[str, ...]
    x: dict[str, np.ndarray]
    y: dict[str, np.ndarray]


@lru_cache(maxsize=4)
def stories(name: str, by_sentence: bool) -> Stories:
    """A data set of pairs (story and question, answer), laid out for networks that know sentences or for others."""
    pairs = data.pairs(name)
    vocabulary = learnt([story for story, _ in pairs["train"]], "words", WORDS)
    cut = [[len(words(sentence)) for sentence in sentences(story)] for story, _ in pairs["train"]]
    shape = (max(map(len, cut)), max(map(max, cut))) if by_sentence else (max(map(sum, cut)),)
    answers = tuple(sorted({answer for _, answer in pairs["train"]}))
    places = {answer: place for place, answer in enumerate(answers)}
    return Stories(
        vocabulary,
        shape,
        answers,
        {split: np.stack([laid_out(s, vocabulary, shape) for s, _ in rows]) for split, rows in pairs.items()},
        {split: np.array([places.get(a, -1) for _, a in rows], np.int64) for split, rows in pairs.items()},
    )


class ReaderConfig(TrainingConfig):
    """A reader of stories."""

    kinds: ClassVar = ("pairs",)

    data: str = Field(
        "stories-1",
        description="data set: stories with questions and their answers, or texts with labels; or a path of your own",
    )
    net: Net = Field(
        default_factory=dict, validate_default=True, description="the network: an encoder's kind and its fields"
    )
    exchange: Annotated[tuple[tuple[str, ...], ...], BeforeValidator(frozen)] = Field(
        (), description="groups of words that trade places at random in every story that is learnt from, answers too"
    )
    epochs: int = Field(100, ge=1, description="passes over the training stories (rounded up to whole chunks)")
    batch: int = Field(32, ge=1, description="stories of one update")
    lr: PerLaneFloat = Field(1e-3, ge=0, description="highest learning rate")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the budget in which the learning rate rises from 0")
    clip: PerLaneFloat = Field(1.0, ge=0, description="largest norm of a gradient; 0 clips nothing")

    @property
    def stories(self) -> Stories:
        """The data as tokens."""
        return stories(self.data, self.net.kind == "story-transformer")

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Of a story."""
        return self.stories.x["train"].shape[1:]

    @property
    def out_features(self) -> int:
        """A logit for each answer."""
        return len(self.stories.answers)

    @property
    def built(self) -> dict[str, Any]:
        """The network's configuration with what follows from the data."""
        net = {**self.net.model_dump(), "vocabulary": len(self.stories.vocabulary)}
        if self.net.kind == "story-transformer":
            net["sentence"] = self.stories.shape[1]
        return net | ({"padding": True} if self.net.kind == "transformer" else {})

    @property
    def seconds_per_progress(self) -> float:
        """A story of 13 sentences, on one core of a 2-core machine."""
        return 3e-4

    @model_validator(mode="after")
    def _can_be_trained(self) -> ReaderConfig:
        if self.net.vocabulary:
            raise ValueError("net: vocabulary follows from the data; leave it out")
        unknown = [word for group in self.exchange for word in group if word not in self.stories.vocabulary.numbers]
        if unknown:
            raise ValueError(f"exchange: {unknown[0]!r} is in no training story of '{self.data}'; words are lower-case")
        long = next((a for a in self.stories.answers if len(a.split()) != 1), None)
        if long is not None and not self.card.classes:
            raise ValueError(f"data: '{self.data}' has answers of several words ({long[:40]!r}); use `seq2seq`")
        if self.out_features < 2:
            raise ValueError(f"data: '{self.data}' has one answer only; a reader needs two or more")
        try:
            check_builds(self.net.model_copy(update=self.built), self.row_shape, self.out_features)
        except ValueError as error:
            raise ValueError(f"net: {error}") from None
        return self


class Reader(Supervised):
    """K readers of one kind."""

    Config = ReaderConfig
    score = Score("test_exact", "max", worst=0.0, select="val_exact")
    version = 1
    purpose = "reader"

    @classmethod
    def work(cls, config: Any, lanes: int) -> Work:
        """Small products, which gain from lanes; a scan over all words takes long to compile."""
        seconds = config.seconds_per_progress * config.budget * lanes
        return Work(seconds, compile_seconds=180.0, speedup=1.5)

    def prepare(self, config: ReaderConfig) -> None:
        """Stories and answers; what the most frequent training answer would score."""
        told = config.stories
        self.keep_rows(told.x, told.y)
        commonest = Counter(told.y["train"].tolist()).most_common(1)[0][0]
        self.majority = float((told.y["test"] == commonest).mean())

    def rows(self, progress: int) -> tuple[Tensor, Tensor]:
        """Stories and answers, with the words of each group of `exchange` permuted, in every story anew."""
        x, y = super().rows(progress)
        told, groups = self.lanes.config.stories, self.lanes.config.exchange
        rngs = self.lanes.generators("reader/exchange", progress)
        tables = [exchanged(told.vocabulary, groups, y.shape[1], rng) for rng in rngs]
        table = self.lanes.execution.tensor(np.stack(tables))  # [K, M, V]
        answers = self.lanes.execution.tensor(np.array([told.vocabulary.numbers.get(a, UNKNOWN) for a in told.answers]))
        places = torch.zeros(len(told.vocabulary), dtype=torch.int64, device=y.device)
        places[answers] = torch.arange(len(answers), device=y.device)
        known = answers[y] != UNKNOWN
        moved = places[table.gather(2, answers[y].unsqueeze(-1)).squeeze(-1)]
        return table.gather(2, x), torch.where(known, moved, y)

    def loss(self, output: Tensor, target: Tensor, hp: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of logits [B, A] and answers [B]; the share that is right."""
        right = (output.argmax(-1) == target).to(output.dtype)
        return functional.cross_entropy(output, target), {"exact": right.mean()}

    def evaluate(self, state: State) -> Metrics:
        """The share of exact answers, [K]; on test stories by the number of words too: short, middling, long."""
        logits = {split: self.outputs(state, x) for split, (x, _) in self.held.items()}
        names = (("validation", "val"), ("test", "test"), ("train", "train"))
        scores = {f"{name}_exact": measures.accuracy(logits[s], self.held[s][1]) for s, name in names}
        x, y = self.held["test"]
        told = (x != PAD).sum(-1).double()
        right = (logits["test"].argmax(-1) == y).to(logits["test"].dtype)
        edges = torch.quantile(told, torch.tensor([1 / 3, 2 / 3], dtype=torch.float64, device=told.device))
        third = torch.bucketize(told, edges)
        for i, name in enumerate(("short", "middling", "long")):
            scores[f"test_exact_{name}"] = right[:, third == i].mean(-1)
        scores["majority_exact"] = torch.full_like(scores["test_exact"], self.majority)
        return scores | {"gap": scores["train_exact"] - scores["test_exact"]}

    def media(self, state: State, lane: int) -> dict[str, Media]:
        """The confusion of answers; the worst mistakes as text."""
        x, y = self.held["test"]
        logits = self.outputs(select(state, [lane]), x)[0]
        answers = self.lanes.config.stories.answers
        known = y >= 0
        counts = measures.confusion(logits[known].argmax(-1), y[known], len(answers)).long().cpu().numpy()
        pairs = data.pairs(self.lanes.config.data)["test"]
        found, places = logits.argmax(-1).tolist(), known.nonzero()[:, 0]
        worst = places[measures.worst(logits[known], y[known], MISTAKES)].tolist()
        return {
            "confusion": Media("matrix", counts, labels=answers, caption="Rows are the truth, columns the answer"),
            "mistakes": Media(
                "text",
                np.array([f"{pairs[i][0]}\n-> {answers[found[i]]}" for i in worst], dtype=np.str_),
                np.array([f"{pairs[i][0]}\n-> {pairs[i][1]}" for i in worst], dtype=np.str_),
                caption="The worst mistakes, beside the truth",
            ),
        }

    def _build(self) -> nn.Module:
        config: ReaderConfig = self.lanes.config
        return build(config.built, config.row_shape, config.out_features)
