"""What all writers of text share: their configuration, their network, likelihood, sampling, and how they are judged.

A learner adds `start`, `advance` and the update of one trial (generative/text_mle.py, text_gan.py, text_gumbel.py);
its state holds the writer's weights under ["params"]["g"]. Every evaluation sweeps the temperature: a writer that
looks better at one temperature may only have traded diversity for quality (Caccia et al. 2020), and that trade is to
be had from maximum likelihood too.

Legend: K lanes, U updates of a chunk, B texts of a batch, S texts of an evaluation, T tokens of a text, V tokens of
the vocabulary, H features of the writer's state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional

from generative.text_metrics import scores
from harness import data
from harness.data import oracle
from harness.learner import Lanes, Learner, Media, Metrics, State, select
from harness.spec import LearnerConfig, PerLaneFloat, Score
from nets.decoding import sample
from nets.lanes import Work, call, module_of
from nets.registry import build

__all__ = ["CLIP", "UPDATES", "JudgedConfig", "TextConfig", "TextGenerator", "before", "next_token", "nll", "spread"]

UPDATES = 5  # of one chunk
CLIP = 5.0  # of the gradient's norm, as SeqGAN
HELD_OUT = 2000  # texts at most that writers are compared with
SHOWN = 24  # texts of a picture


def spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many rows, evenly from first to last: stored texts stand play by play."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64)]


def before(tokens: Tensor) -> Tensor:
    """What a writer has read before each token: token 0 starts every text, as in SeqGAN. [..., T] to the same."""
    return functional.pad(tokens[..., :-1], (1, 0))


def nll(net: nn.Module, params: Any, tokens: Tensor) -> Tensor:
    """Negative log-likelihood of every token in nats, given those before it: [B, T].

    Args:
        net: a "lstm-language".
        params: of one trial.
        tokens: int64 [B, T].
    """
    (logits, _), _ = call(net, params, {}, before(tokens))
    return functional.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").reshape(tokens.shape)


def next_token(net: nn.Module, params: Any, token: Tensor, state: Any) -> tuple[Tensor, Any]:
    """One step of writing, as `nets.decoding` takes it: tokens [N] to (logits [N, V], state)."""
    (logits, state), _ = call(net, params, {}, token.unsqueeze(1), state)
    return logits.squeeze(1), state


class TextConfig(LearnerConfig):
    """An LSTM that writes texts of one length."""

    data: Literal["oracle-tiny", "oracle-500", "oracle-5000", "shakespeare", "kjv"] = Field(
        "oracle-500", description="data set"
    )
    batch: int = Field(64, ge=1, description="texts of one update")
    embedding_features: int = Field(32, ge=1, description="width of a token's vector in the writer")
    hidden_features: int = Field(32, ge=1, description="width of the writer's state")
    lr: PerLaneFloat = Field(1e-2, ge=0, description="learning rate of maximum likelihood (Adam)")
    samples: int = Field(1000, ge=2, description="texts that an evaluation draws at every temperature")
    temperatures: tuple[float, ...] = Field(
        (0.6, 0.8, 1.0, 1.2), min_length=1, description="temperatures of an evaluation; scores without @ are at 1"
    )

    @field_validator("temperatures")
    @classmethod
    def _with_one(cls, given: tuple[float, ...]) -> tuple[float, ...]:
        if 1.0 not in given or min(given) <= 0 or list(given) != sorted(set(given)):
            raise ValueError("temperatures: give rising numbers above 0 with 1.0 among them, e.g. [0.8, 1.0]")
        return given

    @property
    def updates_in_all(self) -> int:
        """Updates of all phases."""
        raise NotImplementedError

    @property
    def chunk(self) -> int:
        """Updates of one chunk."""
        return UPDATES

    @property
    def budget(self) -> int:
        """Updates, whole chunks."""
        return math.ceil(self.updates_in_all / UPDATES) * UPDATES

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The data set."""
        return (self.data,)

    @property
    def seconds_per_progress(self) -> float:
        """An update of likelihood with default sizes, measured on one core of a 2-core machine."""
        return {"oracle-tiny": 0.003, "oracle-5000": 0.15}.get(self.data, 0.018)


class JudgedConfig(TextConfig):
    """A writer and a judge of its texts: likelihood first, then a game between the two."""

    pretrain: int = Field(6000, ge=0, multiple_of=UPDATES, description="updates of likelihood before the game")
    rounds: int = Field(500, ge=0, multiple_of=UPDATES, description="rounds of the game, an update of the writer each")
    lr_g: PerLaneFloat = Field(1e-3, ge=0, description="the writer's learning rate in the game (Adam)")
    lr_d: PerLaneFloat = Field(1e-3, ge=0, description="the judge's learning rate (Adam)")
    judge_features: int = Field(64, ge=1, description="features of each of the judge's windows")
    windows: tuple[int, ...] = Field((2, 3, 4, 5), min_length=1, description="tokens that the judge's windows see")

    @model_validator(mode="after")
    def _windows_fit(self) -> JudgedConfig:
        (length,) = data.card(self.data).shape
        if not 1 <= min(self.windows) <= max(self.windows) <= length:
            raise ValueError(f"windows: {self.windows} must lie within the {length} tokens of a text of {self.data}")
        return self


class TextGenerator(Learner):
    """K writers, judged alike."""

    unit = "steps"
    score = Score("js_4", "min", worst=1.0)

    net: nn.Module  # the writer's skeleton; set in `start`

    @classmethod
    def score_of(cls, config: TextConfig) -> Score:
        """What the oracle thinks of the texts where there is one, else how far their 4-grams are from held-out ones."""
        return Score("nll_oracle", "min", worst=1e3) if config.data.startswith("oracle") else cls.score

    @classmethod
    def work(cls, config: TextConfig, lanes: int) -> Work:
        """What a cohort costs; the time to compile grows with the tokens of a text, which are unrolled."""
        return Work(config.seconds_per_progress * config.budget * lanes, compile_seconds=180.0, speedup=1.5)

    def prepare(self, lanes: Lanes) -> None:
        """What every `start` begins with: data, the judge's functions, hyper-parameters."""
        self.lanes, self.chunk = lanes, lanes.config.chunk
        config: TextConfig = lanes.config
        self.card, rows = data.card(config.data), data.load(config.data)
        (self.length,), self.vocabulary = self.card.shape, self.card.classes
        self.hyper = {name: lanes.per_lane(name) for name in config.per_lane_fields()}
        self._held = torch.as_tensor(spread(rows["test"].x, HELD_OUT))
        self._truth = oracle.network(self.vocabulary) if config.data.startswith("oracle") else None
        self._nll_each = lanes.execution.each(
            lambda params, tokens: nll(self.net, params, tokens).mean(), in_dims=(0, None), rare=True
        )
        self._sweep = {
            t: lanes.execution.each(partial(self.write, temperature=t), rare=True) for t in config.temperatures
        }

    def build_writer(self) -> nn.Module:
        """The network that writes."""
        config = self.lanes.config
        widths = {name: getattr(config, name) for name in ("embedding_features", "hidden_features")}
        return build({"kind": "lstm-language", **widths}, (self.length,), self.vocabulary)

    def network(self, state: State, lane: int) -> nn.Module:
        """The writer: tokens [B, T] (token 0 first) to (logits of each one's successor [B, T, V], state)."""
        return module_of(self.build_writer, state["params"]["g"], {}, lane)

    # Functions of one trial

    def write(self, params: Any, u: Tensor, temperature: float = 1.0) -> Tensor:
        """Texts int64 [N, T] from uniform numbers u [N, T]."""
        start = torch.zeros_like(u[:, 0], dtype=torch.int64)
        return sample(partial(next_token, self.net, params), None, start, u.shape[1], u, temperature)

    # Data and judgement

    def real(self, purpose: str, progress: int, shape: tuple[int, ...]) -> Tensor:
        """Training texts, int64 [K, *shape, T], picked from every lane's own noise."""
        rows = [data.draw(self.lanes.config.data, rng, shape) for rng in self.lanes.generators(purpose, progress)]
        return self.lanes.execution.tensor(np.stack(rows))

    def evaluate(self, state: State) -> Metrics:
        """Likelihood of held-out texts, and what written ones are worth at every temperature; [K].

        "nll_test": nats a token. At temperature 1, and with "@0.8" behind the name at others: "nll_oracle", nats a
        token that the oracle gives the texts (where there is one), and `generative.text_metrics.scores` against
        held-out texts.
        """
        found = {"nll_test": self._nll_each(state["params"]["g"], self._held.to(state["progress"].device))}
        u = self._uniform()
        for temperature, write in self._sweep.items():
            lanes = [self._judged(tokens) for tokens in write(state["params"]["g"], u).cpu()]
            mark = "" if temperature == 1 else f"@{temperature:g}"
            found |= {f"{name}{mark}": torch.stack([lane[name] for lane in lanes]) for name in lanes[0]}
        return found

    def media(self, state: State, lane: int) -> dict[str, Media]:
        """Texts beside held-out ones, and quality over diversity at all temperatures beside held-out text."""
        one, u = select(state, [lane])["params"]["g"], self._uniform()[lane : lane + 1]
        texts = self._sweep[1.0](one, u[:, :SHOWN])[0].cpu().numpy()
        curve = np.array([_point(self._judged(write(one, u)[0].cpu())) for write in self._sweep.values()])
        kept = spread(data.load(self.lanes.config.data)["validation"].x, self.lanes.config.samples)
        real = np.array([_point(self._judged(torch.as_tensor(kept)))])
        swept = ", ".join(f"{t:g}" for t in self._sweep)
        about = f"up: 4-grams that stand in held-out text; right: distinct 4-grams; temperatures {swept}, left to right"
        return {
            "texts": Media("text", self._spelled(texts), self._spelled(spread(kept, SHOWN)), caption=f"{SHOWN} texts"),
            "quality-diversity": Media("points", curve, real, caption=about),
        }

    def _uniform(self) -> Tensor:
        return self.lanes.noise("text/evaluate", 0, (self.lanes.config.samples, self.length), "uniform")

    def _judged(self, tokens: Tensor) -> Mapping[str, Tensor]:
        found = scores(tokens, self._held, self.vocabulary)
        if self._truth is not None:
            found["nll_oracle"] = nll(self._truth, dict(self._truth.state_dict()), tokens).mean().double()
        return found

    def _spelled(self, tokens: np.ndarray) -> np.ndarray:
        """Texts for people, str [N]."""
        if self._truth is not None:
            return np.array([" ".join(map(str, row)) for row in tokens])
        return np.array([data.spelled(self.lanes.config.data, row) for row in tokens])


def _point(found: Mapping[str, Tensor]) -> list[float]:
    """(diversity, quality)."""
    return [float(found["distinct_4"]), float(found["overlap_4"])]
