"""Language models: the next character, byte or merged pair of bytes of a text; K models side by side.

Papers: Radford et al. 2019 (GPT-2, `nets.gpt`, by default of the size that nanoGPT trains on a CPU: Karpathy 2022);
Hochreiter & Schmidhuber 1997, Cho et al. 2014 (LSTM, GRU); Sennrich et al. 2016 (BPE). How it learns:
`supervised.training`.
Deliberate differences: windows start anywhere in the stream, so that an "epoch" is a number of tokens, not a pass;
held-out windows are spread evenly over whole documents and do not overlap; a sample reads no more than T tokens back.

Legend: K lanes, U updates of a chunk, B windows of a batch, T tokens of a window, V tokens of the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from harness import data
from harness.blocks import block_config, check_builds
from harness.learner import Media, Metrics, State
from harness.spec import PerLaneFloat, Score
from nets.decoding import choose
from nets.lanes import Work
from supervised.config import TrainingConfig
from supervised.training import Supervised
from supervised.vocabulary import SPECIAL, Vocabulary, check_units, learnt

__all__ = ["LanguageModel", "LanguageModelConfig", "continued", "windows"]

DEFAULTS: dict[str, dict[str, Any]] = {
    "gpt": {"hidden_features": 128},
    "lstm-language": {"hidden_features": 256, "embedding_features": 128},
}
AT_ONCE = 100  # of them in memory
SHOWN = 8  # samples

if TYPE_CHECKING:
    Net = Any
else:
    Net = block_config("model", "gpt", DEFAULTS, only=("gpt", "lstm-language"))


class Corpus(NamedTuple):
    """A text as tokens.

    Attributes:
        streams: of every split, int64 [n].
        sizes: how many bytes each token stands for, int64 [V].
        vocabulary: None for the data set's own characters.
    """

    streams: dict[str, np.ndarray]
    sizes: np.ndarray
    vocabulary: Vocabulary | None


@lru_cache(maxsize=4)
def corpus(name: str, units: Literal["characters", "bytes", "bpe"], size: int) -> Corpus:
    """A data set's text in other units; BPE is learnt from its training split.

    Args:
        name: of the data set.
        units: what a token is.
        size: of the vocabulary, for "bpe".
    """
    streams = data.tokens(name)
    if units == "characters":
        alphabet = [data.spelled(name, np.array([token])) for token in range(data.card(name).classes)]
        return Corpus(streams, np.array([len(c.encode()) for c in alphabet]), None)
    texts = {split: data.spelled(name, stream) for split, stream in streams.items()}
    vocabulary = learnt([texts["train"]], units, size)
    sizes = [0 if token < len(SPECIAL) else len(s) for token, s in enumerate(vocabulary.spellings)]
    coded = {split: np.array(vocabulary.encoded(text), np.int64) for split, text in texts.items()}
    return Corpus(coded, np.array(sizes + [0] * (size - len(sizes) if units == "bpe" else 0)), vocabulary)


def windows(stream: np.ndarray, length: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Held-out windows that do not overlap, evenly from first to last: tokens [N, T] and their successors [N, T]."""
    count = (len(stream) - 1) // length
    first = np.linspace(0, count - 1, min(most, count)).astype(np.int64) * length
    index = first[:, None] + np.arange(length)
    return stream[index], stream[index + 1]


class LanguageModelConfig(TrainingConfig):
    """A model of the next token."""

    kinds: ClassVar = ("tokens",)

    data: str = Field("shakespeare", description="data set: a text by name (`seedbed data`), or a path of your own")
    units: Literal["characters", "bytes", "bpe"] = Field("characters", description="what a token is")
    vocabulary: int = Field(1024, gt=256 + len(SPECIAL), description="tokens in all, where `units` is bpe")
    length: int = Field(64, ge=2, description="tokens of a window: what the model sees")
    net: Net = Field(
        default_factory=dict, validate_default=True, description="the network: gpt or lstm-language, and its fields"
    )
    updates: int = Field(2000, ge=0, description="updates to train for, instead of `epochs`; 0 counts epochs")
    batch: int = Field(12, ge=1, description="windows of one update")
    optimiser: Literal["adamw", "adamw-fused", "adam", "sgd", "nesterov", "rmsprop"] = Field(
        "adamw-fused", description="the optimiser; adamw-fused: adamw to rounding, faster for large networks"
    )
    lr: PerLaneFloat = Field(2e-3, ge=0, description="highest learning rate")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the budget in which the learning rate rises from 0")
    weight_decay: PerLaneFloat = Field(0.1, ge=0, description="weight decay: decoupled for adamw, else L2 as in torch")
    clip: PerLaneFloat = Field(1.0, ge=0, description="largest norm of a gradient; 0 clips nothing")
    judged: int = Field(1000, ge=1, description="windows of each split that an evaluation reads")
    sampled: int = Field(200, ge=1, description="tokens of a sample that is shown")
    temperature: float = Field(0.8, ge=0, description="of samples; 0 takes the likeliest token")

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Of a window."""
        return (self.length,)

    @property
    def out_features(self) -> int:
        """A logit for each token."""
        return {"characters": self.card.classes, "bytes": 256 + len(SPECIAL), "bpe": self.vocabulary}[self.units]

    @property
    def rows_of_an_epoch(self) -> int:
        """Windows that hold as many characters as the training text."""
        return max(self.card.rows["train"] * self.card.shape[0] // self.length, 1)

    @property
    def seconds_per_progress(self) -> float:
        """A window of the default size, on one core of a 2-core machine."""
        return 5e-3 * self.length / 64

    @model_validator(mode="after")
    def _can_be_trained(self) -> LanguageModelConfig:
        check_units("units", self.units)
        if self.freeze_encoder:
            raise ValueError("freeze_encoder: a language model is one whole, and nothing would be left to train")
        if self.data.startswith("oracle"):
            raise ValueError(f"data: '{self.data}' is no text; take {', '.join(_texts())}, or a path of your own")
        held = min(self.card.rows[split] for split in ("validation", "test")) * self.card.shape[0]
        if self.length >= held:
            raise ValueError(f"length: {self.length} tokens, but '{self.data}' holds out {held} characters; take fewer")
        try:
            check_builds(self.net, self.row_shape, self.out_features)
        except ValueError as error:
            raise ValueError(f"net: {error}") from None
        return self


def _texts() -> list[str]:
    return [name for name in data.names("tokens") if not name.startswith("oracle")]


class LanguageModel(Supervised):
    """K models of the next token."""

    Config = LanguageModelConfig
    score = Score("test_loss", "min", worst=20.0, select="val_loss", select_direction="min")
    version = 1
    purpose = "language-model"

    @classmethod
    def work(cls, config: Any, lanes: int) -> Work:
        """A GPT is bound by its products, and alone it has fused attention; a scan gains from lanes."""
        seconds = config.seconds_per_progress * config.budget * lanes
        return Work(seconds, compile_seconds=180.0, speedup=1.5, loop_on_cpu=config.net.kind == "gpt")

    def prepare(self, config: LanguageModelConfig) -> None:
        """The training stream, held-out windows, bytes of each token."""
        self.corpus = corpus(config.data, config.units, config.vocabulary)
        tensor = self.lanes.execution.tensor
        self.stream = tensor(self.corpus.streams["train"].copy())
        self.sizes = tensor(self.corpus.sizes)
        self.held = {
            split: (tensor(x), tensor(y))
            for split, stream in self.corpus.streams.items()
            for x, y in [windows(stream, config.length, config.judged)]
        }
        self._nll_each = self.lanes.execution.each(self._nll, in_dims=(0, 0, None, None), rare=True)

    def batches(self, progress: int) -> tuple[Tensor, Tensor]:
        """Windows [K, U, B, T] from anywhere in the stream, and the tokens that follow each of theirs."""
        config: LanguageModelConfig = self.lanes.config
        shape, places = (config.updates_of_a_chunk, config.batch), len(self.stream) - config.length
        rngs = self.lanes.generators("language-model/windows", progress)
        first = self.lanes.execution.tensor(np.stack([rng.integers(places, size=shape) for rng in rngs]))
        index = first.unsqueeze(-1) + torch.arange(config.length, device=first.device)
        return self.stream[index], self.stream[index + 1]

    def loss(self, output: Any, target: Tensor, hp: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """-log p(next token), the mean over B windows and T tokens, in nats."""
        return functional.cross_entropy(_logits(output).flatten(0, 1), target.flatten()), {}

    def evaluate(self, state: State) -> Metrics:
        """On held-out windows, [K]: nats and perplexity a token, bits a byte; `gap` is test loss - training loss."""
        nats = {split: self._held_out(state, *rows) for split, rows in self.held.items()}
        scores: dict[str, Tensor] = {}
        for split, name in (("validation", "val"), ("test", "test"), ("train", "train")):
            y = self.held[split][1]
            scores[f"{name}_loss"] = nats[split] / y.numel()
            scores[f"{name}_bits_per_byte"] = nats[split] / math.log(2) / self.sizes[y].sum()
        scores["test_perplexity"] = scores["test_loss"].exp()
        return scores | {"gap": scores["test_loss"] - scores["train_loss"]}

    def media(self, state: State, lane: int) -> dict[str, Media]:
        """Held-out beginnings that the model goes on from, beside how they really go on."""
        config: LanguageModelConfig = self.lanes.config
        given = config.length // 2
        real, _ = windows(self.corpus.streams["test"], given + config.sampled, SHOWN)
        u = self.lanes.noise("language-model/samples", 0, (len(real), config.sampled), "uniform")[lane].cpu()
        net = self.network(state, lane).eval()
        written = continued(net, torch.as_tensor(real[:, :given]), u, config.length, config.temperature)
        shown, truth = (np.array([self._spelled(row) for row in rows]) for rows in (written.numpy(), real))
        about = f"The first {given} tokens are given; temperature {config.temperature:g}"
        return {"samples": Media("text", shown, truth, caption=about)}

    def _held_out(self, state: State, x: Tensor, y: Tensor) -> Tensor:
        """Nats of all tokens together, [K]."""
        parts = zip(x.split(AT_ONCE), y.split(AT_ONCE), strict=True)
        return torch.stack([self._nll_each(self.shown(state), state["buffers"], *rows) for rows in parts]).sum(0)

    def _nll(self, params: Any, buffers: Any, x: Tensor, y: Tensor) -> Tensor:
        """Of one trial: nats of windows [N, T]."""
        logits = _logits(self._output(params, buffers, x))
        return functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum")

    def _spelled(self, tokens: np.ndarray) -> str:
        if self.corpus.vocabulary is None:
            return data.spelled(self.lanes.config.data, tokens)
        return self.corpus.vocabulary.decoded(tokens.tolist())


def _logits(output: Any) -> Tensor:
    """A gpt gives logits; an lstm-language its state too."""
    return output if isinstance(output, Tensor) else output[0]


@torch.no_grad()
def continued(net: nn.Module, prompt: Tensor, u: Tensor, length: int, temperature: float = 1.0) -> Tensor:
    """Goes on from a prompt, reading at most `length` tokens back.

    Args:
        net: tokens [B, T] to logits [B, T, V], in evaluation mode.
        prompt: int64 [B, P], P >= 1.
        u: uniform numbers in [0, 1), [B, n].
        length: T at most.
        temperature: see `nets.decoding.choose`.

    Returns:
        int64 [B, P + n].
    """
    tokens = prompt
    for draw in u.unbind(1):
        logits = _logits(net(tokens[:, -length:]))[:, -1]
        tokens = torch.cat([tokens, choose(logits, draw, temperature).unsqueeze(1)], 1)
    return tokens
