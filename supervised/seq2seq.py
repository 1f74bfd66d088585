"""Texts to texts: translation, pronunciation; an LSTM or GRU with attention, or a transformer; K models side by side.

Papers: Bahdanau et al. 2015, Luong et al. 2015 (`nets.seq2seq`); Vaswani et al. 2017 (`nets.transformer`); Szegedy et
al. 2016 (label smoothing); Wu et al. 2016 (length penalty of the beam). How it learns: `supervised.training`.
Deliberate differences: the true token before is always fed; batches hold pairs of like length (`supervised.lengths`);
pairs longer than `longest` are left out of training, longer test sources are cut off and count as they come out.

Legend: K lanes, B pairs of a batch, S source and T target tokens, V tokens of the target's vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from harness import data
from harness.blocks import block_config, check_builds
from harness.learner import Media, Metrics, State
from harness.spec import PerLaneFloat, Score
from nets.decoding import beam
from nets.lanes import Work
from nets.registry import build
from supervised import text_measures as measures
from supervised.config import TrainingConfig
from supervised.lengths import Alike
from supervised.pictures import attention_maps
from supervised.training import Supervised
from supervised.vocabulary import END, PAD, SPECIAL, START, Vocabulary, check_units, learnt, padded, words

__all__ = ["Seq2Seq", "Seq2SeqConfig", "smoothed_nll", "translated"]

DEFAULTS: dict[str, dict[str, Any]] = {
    "seq2seq": {"vocabulary": 0, "hidden_features": 128, "dropout": 0.2},
    "transformer-seq2seq": {"hidden_features": 128, "dropout": 0.1},
}
AT_ONCE = 100  # rows in memory
COVERED = 0.99  # of the training pairs, where the longest is not given
MAPS = 4  # pictures of attention
MISTAKES = 12
FULL = 4  # words: BLEU counts runs of up to four

if TYPE_CHECKING:
    Net = Any
else:
    Net = block_config("model", "seq2seq", DEFAULTS, only=("seq2seq", "transformer-seq2seq"))

Pair = tuple[str, str]


class Corpus(NamedTuple):
    """Pairs as tokens.

    Attributes:
        source: the sources' vocabulary.
        target: the targets'.
        lengths: S and T; T counts END.
        pairs: of every split; of the training split those that fit.
    """

    source: Vocabulary
    target: Vocabulary
    lengths: tuple[int, int]
    pairs: dict[str, list[Pair]]

    def slack(self) -> np.ndarray:
        """How many tokens of padding, in the source and in the target, each training row could do without."""
        s, t = self.lengths
        sizes = [(len(self.source.encoded(a)), len(self.target.encoded(b)) + 1) for a, b in self.pairs["train"]]
        return np.min([(s, t)] - np.array(sizes), axis=1)

    def rows(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """(source, START and the target [N, S + T], the target and END [N, T]), padded."""
        s, t = self.lengths
        targets = [self.target.encoded(target) for _, target in self.pairs[split]]
        source = padded([self.source.encoded(source) for source, _ in self.pairs[split]], s)
        before = padded([[START, *target] for target in targets], t)
        return np.concatenate([source, before], 1), padded([[*target, END] for target in targets], t)


@lru_cache(maxsize=4)
def corpus(name: str, units: tuple[Any, Any], size: int, least: int, longest: int) -> Corpus:
    """A data set as tokens; vocabularies and lengths are those of its training pairs."""
    pairs = data.pairs(name)
    leasts = [least if unit == "words" else 1 for unit in units]
    source, target = (learnt([pair[i] for pair in pairs["train"]], units[i], size, leasts[i]) for i in (0, 1))
    sizes = np.array([(len(source.encoded(s)), len(target.encoded(t)) + 1) for s, t in pairs["train"]])
    s, t = (longest, longest + 1) if longest else np.quantile(sizes, COVERED, axis=0, method="higher").tolist()
    fits = np.all(sizes <= (s, t), axis=1).tolist()
    train = [pair for pair, fit in zip(pairs["train"], fits, strict=True) if fit]
    return Corpus(source, target, (int(s), int(t)), {**pairs, "train": train})


@lru_cache(maxsize=4)
def alike(name: str, units: tuple[Any, Any], size: int, least: int, longest: int, batch: int) -> Alike:
    """The training pairs of `corpus` in groups of like length."""
    return Alike(corpus(name, units, size, least, longest).slack(), batch)


@lru_cache(maxsize=4)
def _measure(name: str) -> Literal["bleu", "chrf"]:
    """A headline that can tell good texts from bad ones."""
    try:
        long = [len(words(target)) >= FULL for _, target in data.pairs(name)["test"]]
    except data.DataError:  # an error of the field `data`
        return "bleu"
    return "bleu" if sum(long) >= len(long) / 2 else "chrf"


class Seq2SeqConfig(TrainingConfig):
    """A model that writes a text for a text."""

    kinds: ClassVar = ("pairs",)

    data: str = Field("gnome-en-fr", description="data set: pairs of texts by name, or a path to JSONL of your own")
    source: Literal["words", "characters", "bpe"] = Field("words", description="what a source token is")
    target: Literal["words", "characters", "bpe"] = Field("words", description="what a target token is")
    vocabulary: int = Field(8000, gt=len(SPECIAL), description="tokens of either vocabulary at most")
    least: int = Field(2, ge=1, description="how often a word occurs in training to be in the vocabulary")
    longest: int = Field(
        0, ge=0, description="tokens of a text at most; 0 takes what covers 99 % of the training pairs"
    )
    net: Net = Field(
        default_factory=dict, validate_default=True, description="the network: seq2seq or transformer-seq2seq"
    )
    lr: PerLaneFloat = Field(2e-3, ge=0, description="highest learning rate")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the budget in which the learning rate rises from 0")
    clip: PerLaneFloat = Field(1.0, ge=0, description="largest norm of a gradient; 0 clips nothing")
    label_smoothing: PerLaneFloat = Field(0.1, ge=0, le=1, description="share of the target spread over all tokens")
    beam: int = Field(4, ge=1, description="width of the beam search that stands beside greedy decoding")
    length_penalty: float = Field(0.6, ge=0, description="of the beam; larger values favour long texts")
    judged: int = Field(200, ge=1, description="rows of each split, the first, that an evaluation reads and decodes")
    measure: Literal["bleu", "chrf", "error_rate", "exact"] = Field(
        default_factory=lambda given: _measure(given.get("data", "")),
        description="the headline, of greedy decoding; where it is not given bleu, or chrf where fewer than half of the"
        f" test targets have {FULL} words, which BLEU counts runs of",
    )

    @property
    def corpus(self) -> Corpus:
        """The data as tokens."""
        return corpus(*self._reading)

    @property
    def alike(self) -> Alike:
        """The training pairs in groups of like length."""
        return alike(*self._reading, self.batch)

    @property
    def _reading(self) -> tuple[str, tuple[Any, Any], int, int, int]:
        return self.data, (self.source, self.target), self.vocabulary, self.least, self.longest

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Of a source."""
        return self.corpus.lengths[:1]

    @property
    def out_features(self) -> int:
        """A logit for each target token."""
        return len(self.corpus.target)

    @property
    def rows_of_an_epoch(self) -> int:
        """Training pairs that are short enough."""
        return len(self.corpus.pairs["train"])

    @property
    def built(self) -> dict[str, Any]:
        """The network's configuration with what follows from the data."""
        net = {**self.net.model_dump(), "vocabulary": len(self.corpus.source)}
        return net if self.net.kind == "seq2seq" else {**net, "target_length": self.corpus.lengths[1]}

    @property
    def seconds_per_progress(self) -> float:
        """A pair of default size, on one core of a 2-core machine."""
        return 6e-5 * (sum(self.corpus.lengths) - 2 * self.alike.saved)

    @model_validator(mode="after")
    def _can_be_trained(self) -> Seq2SeqConfig:
        for field in ("source", "target"):
            check_units(field, getattr(self, field))
        if self.net.vocabulary:
            raise ValueError("net: vocabulary follows from the data; leave it out")
        if not self.corpus.pairs["train"]:
            raise ValueError(f"longest: no training pair of '{self.data}' has {self.longest} tokens or fewer")
        try:
            check_builds(self.net.model_copy(update=self.built), self.row_shape, self.out_features)
        except ValueError as error:
            raise ValueError(f"net: {error}") from None
        return self


def smoothed_nll(logits: Tensor, target: Tensor, smoothing: float | Tensor) -> Tensor:
    """Cross-entropy with label smoothing, the mean over tokens that are no padding: 0-dim.

    (1 - s) (-log p_y) + s / V sum_v (-log p_v), as `torch.nn.functional.cross_entropy`, but s may be a lane's tensor.

    Args:
        logits: [B, T, V].
        target: int64 [B, T].
        smoothing: s, in [0, 1].
    """
    logp = torch.log_softmax(logits, -1)
    right = logp.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    real = (target != PAD).to(logits.dtype)
    return -(((1 - smoothing) * right + smoothing * logp.mean(-1)) * real).sum() / real.sum()


@torch.no_grad()
def translated(net: Any, source: Tensor, length: int, width: int = 1, length_penalty: float = 0.0) -> Tensor:
    """The best targets that a beam search finds, int64 [B, length]; a width of 1 is greedy.

    Args:
        net: a "seq2seq" or "transformer-seq2seq", in evaluation mode.
        source: int64 [B, S].
        length: tokens at most.
        width: of the beam.
        length_penalty: of the beam.
    """
    state = net.start(source, length) if hasattr(net, "start") else net.encode(source)
    first = torch.full_like(source[:, 0], START)
    return beam(net.step, state, first, END, length, width, length_penalty)[0][:, 0]


class Seq2Seq(Supervised):
    """K models of one kind."""

    Config = Seq2SeqConfig
    score = Score("test_bleu", "max", worst=0.0, select="val_loss", select_direction="min")
    version = 3  # parts of a batch weigh by their tokens
    purpose = "seq2seq"

    @classmethod
    def score_of(cls, config: Seq2SeqConfig) -> Score:
        """What the file names as `measure`."""
        fewer = config.measure == "error_rate"
        direction: Any = "min" if fewer else "max"
        return Score(f"test_{config.measure}", direction, 10.0 if fewer else 0.0, "val_loss", "min")

    @classmethod
    def work(cls, config: Any, lanes: int) -> Work:
        """A transformer is bound by its products; a scan gains from lanes."""
        seconds = config.seconds_per_progress * config.budget * lanes
        shapes = len(config.alike.groups)
        return Work(seconds, compile_seconds=180.0 * shapes, speedup=1.5, loop_on_cpu=config.net.kind != "seq2seq")

    def prepare(self, config: Seq2SeqConfig) -> None:
        """Rows of all splits, what test rows should be, and what two baselines make of them."""
        self.corpus = config.corpus
        self.split = self.corpus.lengths[0]
        rows = {split: self.corpus.rows(split) for split in self.corpus.pairs}
        self.keep_rows({s: x for s, (x, _) in rows.items()}, {s: y for s, (_, y) in rows.items()})
        self.judged = self.corpus.pairs["test"][: config.judged]
        self.baselines = _baselines(self.corpus.pairs["train"], self.judged, config)
        self.alike = config.alike
        self._turn = lru_cache(maxsize=2 * len(self.alike.groups))(self._turn_anew)
        self._nll_each = self.lanes.execution.each(self._nll, in_dims=(0, 0, None, None), rare=True)

    def inputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """Source [B, S] and the target's tokens before [B, T]."""
        split = self.split - (sum(self.corpus.lengths) - x.shape[1]) // 2  # as much padding is cut off either
        return x[:, :split], x[:, split:]

    def rows_of_updates(self, progress: int) -> Sequence[tuple[Tensor, Tensor]]:
        """Source and target's tokens before [K, B, S + T] and the target [K, B, T], without needless padding."""
        config: Seq2SeqConfig = self.lanes.config
        first = progress // config.batch
        return [self._batch(*self.alike.place(first + u)) for u in range(config.updates_of_a_chunk)]

    def loss(self, output: Tensor, target: Tensor, hp: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Smoothed cross-entropy; the share of tokens that are right."""
        real = target != PAD
        right = ((output.argmax(-1) == target) & real).sum().to(output.dtype) / real.sum()
        return smoothed_nll(output, target, hp["label_smoothing"]), {"accuracy": right}

    def counted(self, target: Tensor) -> Tensor:
        """Tokens that are no padding."""
        return (target != PAD).sum(-1)

    def evaluate(self, state: State) -> Metrics:
        """Nats a token on held-out and training pairs, and measures of greedy and beam decoding; [K]."""
        config: Seq2SeqConfig = self.lanes.config
        scores = {
            f"{name}_loss": self._held_out(state, split)
            for split, name in (("validation", "val"), ("test", "test"), ("train", "train"))
        }
        lanes: list[dict[str, float]] = []
        for k in range(len(self.lanes)):
            net = self.network(state, k).eval()
            found = _scores("test", self._decoded(net, 1), self.judged)
            lanes.append(found | _scores("beam", self._decoded(net, config.beam), self.judged) | self.baselines)
        measured = {name: self.lanes.execution.tensor([lane[name] for lane in lanes]) for name in lanes[0]}
        return scores | measured | {"gap": scores["test_loss"] - scores["train_loss"]}

    def media(self, state: State, lane: int) -> dict[str, Media]:
        """Where the model looks while it writes; the worst mistakes as text."""
        net = self.network(state, lane).eval()
        found = self._decoded(net, 1)
        x = self.held["test"][0][:MAPS].cpu()
        pairs = zip(found, self.judged, strict=True)
        edits = [measures.edit_distance(words(h), words(t)) / max(len(words(t)), 1) for h, (_, t) in pairs]
        worst = np.argsort(edits, kind="stable")[::-1][:MISTAKES]
        lines = np.array([f"{self.judged[i][0]}\n-> {found[i]}" for i in worst])
        truth = np.array([f"{self.judged[i][0]}\n-> {self.judged[i][1]}" for i in worst])
        named = [(self.corpus.source.pieces(s), self.corpus.target.pieces(t)) for s, t in self.judged[:MAPS]]
        return {
            "attention": attention_maps(looks(net, *self.inputs(x)).numpy(), named),
            "mistakes": Media("text", lines, truth, caption="The worst mistakes of greedy decoding, beside the truth"),
        }

    def _batch(self, group: int, number: int) -> tuple[Tensor, Tensor]:
        turns = [self._turn(group, turn)[:, place] for turn, place in self.alike.span(group, number)]
        index = self.lanes.execution.tensor(np.concatenate(turns, 1))
        s, t = (length - self.alike.cuts[group] for length in self.corpus.lengths)
        x = self.x[index]
        return torch.cat([x[..., :s], x[..., self.split : self.split + t]], -1), self.y[index][..., :t]

    def _turn_anew(self, group: int, turn: int) -> np.ndarray:
        """A permutation of a group's rows, every lane's own, [K, N]."""
        rngs = self.lanes.generators(f"{self.purpose}/rows/{group}", turn)
        return np.stack([rng.permutation(self.alike.groups[group]) for rng in rngs])

    def _decoded(self, net: nn.Module, width: int) -> list[str]:
        config: Seq2SeqConfig = self.lanes.config
        source = self.held["test"][0][: len(self.judged), : self.split].cpu()
        penalty = config.length_penalty if width > 1 else 0.0
        rows = [translated(net, part, self.corpus.lengths[1], width, penalty) for part in source.split(AT_ONCE)]
        return [self.corpus.target.decoded(row) for part in rows for row in part.tolist()]

    def _held_out(self, state: State, split: str) -> Tensor:
        """Nats a token, [K]."""
        x, y = (rows[: self.lanes.config.judged] for rows in self.held[split])
        parts = zip(x.split(AT_ONCE), y.split(AT_ONCE), strict=True)
        nats = [self._nll_each(self.shown(state), state["buffers"], *rows) for rows in parts]
        return torch.stack(nats).sum(0) / (y != PAD).sum()

    # Functions of one trial

    def _build(self) -> nn.Module:
        config: Seq2SeqConfig = self.lanes.config
        return build(config.built, config.row_shape, config.out_features)

    def _nll(self, params: Any, buffers: Any, x: Tensor, y: Tensor) -> Tensor:
        return smoothed_nll(self._output(params, buffers, x), y, 0.0) * (y != PAD).sum()


def _scores(name: str, found: Sequence[str], pairs: Sequence[Pair]) -> dict[str, float]:
    """Measures of texts beside the true ones; a true word that the vocabulary lacks counts as a mistake."""
    made, true = [words(text) for text in found], [words(target) for _, target in pairs]
    return {
        f"{name}_bleu": measures.bleu(made, true),
        f"{name}_chrf": measures.chrf([" ".join(m) for m in made], [" ".join(t) for t in true]),
        f"{name}_error_rate": measures.error_rate(made, true),
        f"{name}_exact": measures.exact(made, true),
    }


def _baselines(train: Sequence[Pair], pairs: Sequence[Pair], config: Seq2SeqConfig) -> dict[str, float]:
    """Copying, and a dictionary learnt by co-occurrence."""
    cut = list if config.source == "characters" else words
    known = measures.dictionary([cut(s) for s, _ in train], [words(t) for _, t in train])
    by_hand = [" ".join(measures.looked_up(cut(s), known)) for s, _ in pairs]
    return _scores("copy", [s for s, _ in pairs], pairs) | _scores("dictionary", by_hand, pairs)


@torch.no_grad()
def looks(net: Any, source: Tensor, target_in: Tensor) -> Tensor:
    """Where the decoder looks in the source, [B, T, S]; for a transformer its last block, the mean of heads."""
    if not hasattr(net, "decoder") or not hasattr(net.decoder, "blocks"):
        return net(source, target_in, with_weights=True)[1]
    cross, seen = net.decoder.blocks[-1].cross, []
    hook = cross.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    net(source, target_in)
    hook.remove()
    x, memory, padding = seen[0]
    return cross.weights(x, memory, padding).mean(1)
