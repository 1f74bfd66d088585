"""How supervised learners learn: rows, augmentation, gradient, penalties, clipping, optimiser, average; K at a time.

A learner adds what it is about: `prepare` (rows and targets), `loss`, `evaluate`, `media`.

Papers: Loshchilov & Hutter 2017 (cosine), 2019 (AdamW); Pascanu et al. 2013 (clipping); Polyak & Juditsky 1992
(averages).
Deliberate differences: the average takes in the weights of every eighth update; every lane has its own order of the
rows, and its noise is drawn for a chunk at a time.

Legend: K lanes, U updates of a chunk, B rows of a batch, M = U B, N rows of a split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.data import Card
from harness.learner import Lanes, Learner, Metrics, State
from nets import augment
from nets.ema import ema_update, half_life_decay
from nets.lanes import Work, call, grad_and_value, gradients, keep, module_of, scanned
from nets.looking import activation_statistics, layer_statistics
from nets.optim import OPTIMISERS, clip_by_global_norm
from nets.precision import autocast
from nets.registry import build
from nets.regularise import l1_penalty, l2_penalty
from nets.schedules import SCHEDULES, warmup
from nets.transfer import encoder_parameters
from supervised.config import TrainingConfig

__all__ = ["AUGMENTATIONS", "Descent", "Supervised", "as_networks_see", "mean_gradients"]

CONVOLUTIONAL = ("cnn", "resnet", "vit", "lenet", "impala", "nature-cnn", "video-cnn")
RECURRENT = ("rnn", "lstm", "gru")
EVALUATED = 1000  # rows at a time
TRAIN_SHOWN = 2000  # training rows on which train scores are taken, at most
NOISE = 0.1  # standard deviation
PENALTIES: dict[str, Callable[[Mapping[str, Tensor]], Tensor]] = {"l1": l1_penalty, "l2": l2_penalty}
Draw = Callable[..., Tensor]  # ("uniform" | "normal", shape of one row's numbers) to [rows, *shape]

# Images have pixels in [-1, 1], sides H x W: moves go up to H / 14 (one of 8, two of 28), crops to H / 8.
AUGMENTATIONS: dict[str, Callable[[Tensor, Draw], Tensor]] = {
    "flip": lambda x, draw: augment.flipped(x, draw("uniform", ())),
    "shift": lambda x, draw: augment.shifted(x, draw("uniform", (2,)), max(x.shape[-1] // 14, 1), fill=-1.0),
    "crop": lambda x, draw: augment.cropped(x, draw("uniform", (2,)), max(x.shape[-1] // 8, 1)),
    "cutout": lambda x, draw: augment.cutout(x, draw("uniform", (2,)), x.shape[-1] // 2),
    "noise": lambda x, draw: augment.noisy(x, draw("normal", x.shape[1:]), NOISE),
}


def as_networks_see(card: Card, rows: np.ndarray) -> np.ndarray:
    """Pixels from [0, 1] to [-1, 1]; other rows as they are. A copy, which may be written to."""
    return 2 * rows - 1 if card.kind in ("images", "video") else rows.copy()


def mean_gradients(
    loss: Callable,
    parts: int,
    params: Any,
    buffers: Any,
    key: Tensor,
    *rows: Tensor,
    counts: Tensor | None = None,
    whole: Tensor | None = None,
) -> Any:
    """Gradients of the mean loss of a batch, part by part: memory is that of one part.

    Without batch norm, whose moments are those of a part, and dropout they are the undivided batch's.

    Args:
        loss: (params, buffers, key, *rows) to (mean loss, (new buffers, metrics)).
        parts: divides the rows.
        params: of one trial.
        buffers: of one trial; every part sees those that the one before left.
        key: of the noise inside the network; each part has another.
        rows: tensors [B, ...].
        counts: of how many things (tokens) each part's loss is the mean, [parts]; None: of equally many.
        whole: how many the batch has, 0-dim, where these rows are not all of it; None: the sum of `counts`.

    Returns:
        (gradients, buffers, metrics), the metrics weighed as the loss is.
    """
    divisor = parts if counts is None else counts.sum() if whole is None else whole
    grads: dict[str, Tensor] = {}
    means: dict[str, Tensor] = {}
    for i, part in enumerate(zip(*(r.chunk(parts) for r in rows), strict=True)):
        g, (_, (buffers, metrics)) = gradients(loss)(params, buffers, key + i, *part)
        if counts is not None:
            g, metrics = ({name: v * counts[i].to(v.dtype) for name, v in tree.items()} for tree in (g, metrics))
        grads = {name: grads[name] + value if i else value for name, value in g.items()}
        means = {name: means.get(name, 0) + value / divisor for name, value in metrics.items()}
    if parts > 1 or counts is not None:
        grads = {name: g / divisor for name, g in grads.items()}
    return grads, buffers, means


@dataclass(frozen=True)
class Descent:
    """One step downhill, chosen by name.

    Attributes:
        step: of `nets.optim`.
        coefficients: names of the hyper-parameters that it takes.
        penalties: name of a hyper-parameter -> function of the parameters that it weighs; only those in use.
        scale: factors of single parameters' learning rates: 0 for a frozen encoder.
    """

    step: Callable[..., tuple[dict[str, Tensor], Any]]
    coefficients: tuple[str, ...]
    penalties: Mapping[str, Callable[[Mapping[str, Tensor]], Tensor]]
    scale: Mapping[str, float] | None

    @classmethod
    def of(cls, lanes: Lanes, params: Mapping[str, Tensor]) -> Descent:
        """What the lanes' configurations ask for."""
        optimiser = OPTIMISERS[lanes.config.optimiser]
        used = {name: f for name, f in PENALTIES.items() if any(getattr(c, name) for c in lanes.configs)}
        frozen = dict.fromkeys(encoder_parameters(params), 0.0) if lanes.config.freeze_encoder else None
        coefficients = tuple(n for n in ("momentum", "weight_decay") if n in optimiser.coefficients)
        return cls(optimiser.step, coefficients, used, frozen)

    def penalty(self, params: Mapping[str, Tensor], hp: Mapping[str, Tensor]) -> Any:
        """What is added to the loss, 0-dim or 0."""
        return sum(hp[name] * penalty(params) for name, penalty in self.penalties.items())

    def __call__(self, weights: Any, grads: Mapping[str, Tensor], hp: Mapping[str, Tensor]) -> Any:
        """(parameters, optimiser's state, the gradient's norm before clipping)."""
        grads, norm = clip_by_global_norm(grads, hp["clip"])
        own = {name: hp[name] for name in self.coefficients}
        new = self.step(weights["params"], grads, weights["optimiser"], hp["lr"], scale=self.scale, **own)
        return (*new, norm)


class Supervised(Learner):
    """K networks of one kind, each on its own order of the same rows."""

    unit = "rows"
    purpose: str  # first part of the names of all its noise

    def start(self, lanes: Lanes) -> State:
        """Networks and optimisers at progress 0."""
        self.lanes = lanes
        config: TrainingConfig = lanes.config
        self.chunk = config.chunk
        self.schedule = warmup(config.warmup, SCHEDULES[config.schedule])
        self.hyper = _hyperparameters(lanes)
        self.prepare(config)
        self._epoch = lru_cache(maxsize=2)(self._epoch_anew)
        execution = lanes.execution
        self.net, params, buffers = lanes.stack(self._build, f"{self.purpose}/init")
        self.descent = Descent.of(lanes, params)
        self._forward = autocast(self._called, getattr(torch, config.precision), execution.device)
        together = lanes.gang.size > 1
        self._descend = partial(scanned, self._update_together) if together else execution.scan(self._update)
        self._gradients_each, self._step_each = execution.each(self._gradients), execution.each(self._step)
        self._look_each = execution.each(self._look)
        self._output_each = execution.each(self._output, in_dims=(0, 0, None), rare=True)
        zeros = torch.zeros(len(lanes), dtype=torch.int64, device=execution.device)
        state = {
            "progress": zeros,
            "alive": torch.ones_like(zeros, dtype=torch.bool),
            "params": params,
            "buffers": buffers,
            "optimiser": OPTIMISERS[config.optimiser].init(params, lanes=len(lanes)),
        }
        average = {name: p.clone() for name, p in params.items()}
        return state | ({"average": average} if config.ema_half_life else {})

    def advance(self, state: State) -> Metrics:
        """One chunk: U updates on B rows each."""
        config: TrainingConfig = self.lanes.config
        progress = int(state["progress"][0])
        rows = self.rows_of_updates(progress)
        keys = self.lanes.keys(f"{self.purpose}/noise", progress, config.updates_of_a_chunk)
        updates = config.updates_of_a_chunk

        def numbers(u: int) -> Any:
            done = (progress + u * config.batch) / config.budget
            return {**self.hyper, "lr": self.schedule(self.hyper["lr"], done)}, *rows[u], keys[:, u]

        every, first = config.layers_every, progress // config.batch
        looked = {u for u in range(updates) if every and (first + u) % every == 0}
        weights: dict[str, Any] = {name: state[name] for name in ("params", "buffers", "optimiser")}
        totals: dict[str, Tensor] = {}
        seen: dict[str, Tensor] = {}
        for look, run in groupby(range(updates), lambda u: u if u in looked else -1):  # a look is a run of its own
            before = weights
            weights, found = self._descend(before, map(numbers, run), state["alive"])
            for metrics in found:
                totals = {name: totals.get(name, 0) + value / updates for name, value in metrics.items()}
            if look in looked:
                seen = self._look_each(before, weights["params"], *numbers(look))
        state.update(weights)
        if config.ema_half_life:
            decay = half_life_decay(config.ema_half_life, self.chunk)
            state["average"] = keep(
                state["alive"], ema_update(state["average"], state["params"], decay), state["average"]
            )
        state["progress"] = state["progress"] + self.chunk
        return totals | seen

    def network(self, state: State, lane: int) -> nn.Module:
        """Rows [B, *row] (images with pixels in [-1, 1]) to the outputs [B, out_features]."""
        return module_of(self._build, self.shown(state), state["buffers"], lane)

    @classmethod
    def rows_to_share(cls, config: TrainingConfig) -> int:
        """Rows of a batch, or of the part of it that is held at once."""
        return config.batch // config.accumulate

    @classmethod
    def work(cls, config: TrainingConfig, lanes: int) -> Work:
        """What a cohort costs, for choosing how it is executed."""
        kind, shape = config.net.kind, config.row_shape
        large = math.prod(shape) > 256 and kind in CONVOLUTIONAL
        steps = shape[-2 if len(shape) > 1 else 0] if kind in RECURRENT else 0  # of a scan, which is compiled unrolled
        seconds = config.seconds_per_progress * config.budget * lanes
        return Work(seconds, compile_seconds=30.0 + 0.8 * steps**2, speedup=2.0, loop_on_cpu=large)

    # What a learner is about

    def prepare(self, config: Any) -> None:
        """Calls `keep_rows` for each split."""
        raise NotImplementedError

    def loss(self, output: Tensor, target: Tensor, hp: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Of one trial: the mean loss of outputs [B, out_features] and targets [B, ...], and metrics."""
        raise NotImplementedError

    def counted(self, target: Tensor) -> Tensor | None:
        """How many tokens of each row the mean loss is taken over, [..., B], of targets [..., B, ...]; None: alike."""
        return None

    def inputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """Of one trial: what the network is given for rows [B, *row]."""
        return (x,)

    def rows(self, progress: int) -> tuple[Tensor, Tensor]:
        """The rows of a chunk and what belongs to them, [K, M, *row] and [K, M, ...]."""
        index = self._index(progress)
        return self.x[index], self.y[index]

    def batches(self, progress: int) -> tuple[Tensor, Tensor]:
        """The chunk as the networks get it: rows [K, U, B, *row], augmented, and targets [K, U, B, ...]."""
        x, y = self.rows(progress)
        batches = (self.lanes.config.updates_of_a_chunk, -1)
        return self._augmented(x, progress).unflatten(1, batches), y.unflatten(1, batches)

    def rows_of_updates(self, progress: int) -> Sequence[tuple[Tensor, Tensor]]:
        """What each update of the chunk learns from: rows [K, B, *row] and targets [K, B, ...]."""
        x, target = self.batches(progress)
        return list(zip(x.unbind(1), target.unbind(1), strict=True))

    # Helpers

    def keep_rows(self, x: dict[str, np.ndarray], y: dict[str, np.ndarray]) -> None:
        """Puts all splits on the device; the training rows also as a split "train" of at most TRAIN_SHOWN."""
        tensor = self.lanes.execution.tensor
        held = {split: (tensor(x[split]), tensor(y[split])) for split in x}
        self.x, self.y = held["train"]
        self.held = held | {"train": (self.x[:TRAIN_SHOWN], self.y[:TRAIN_SHOWN])}

    def shown(self, state: State) -> Any:
        """The parameters that are judged and kept: the average ones where there are any."""
        return state.get("average", state["params"])

    def outputs(self, state: State, x: Tensor) -> Tensor:
        """Of all lanes for the same rows, [K, N, out_features]."""
        parts = [self._output_each(self.shown(state), state["buffers"], rows) for rows in x.split(EVALUATED)]
        return torch.cat(parts, 1)

    def _index(self, progress: int) -> Tensor:
        """Indices into the training rows, [K, M]: an epoch is a permutation of the lane's own."""
        n = len(self.x)
        first, last = progress // n, (progress + self.chunk - 1) // n
        rows = np.concatenate([self._epoch(epoch) for epoch in range(first, last + 1)], axis=-1)
        return self.lanes.execution.tensor(rows[:, progress - first * n :][:, : self.chunk])

    def _epoch_anew(self, epoch: int) -> np.ndarray:
        return np.stack([rng.permutation(len(self.x)) for rng in self.lanes.generators(f"{self.purpose}/rows", epoch)])

    def _augmented(self, x: Tensor, progress: int) -> Tensor:
        """Rows [K, M, *row] after all augmentations; each lane's noise is its own."""
        rows = x.flatten(0, 1)
        for name in self.lanes.config.augmentations:

            def draw(kind: Any, shape: Sequence[int], name: str = name) -> Tensor:
                return self.lanes.noise(f"{self.purpose}/{name}", progress, (x.shape[1], *shape), kind).flatten(0, 1)

            rows = AUGMENTATIONS[name](rows, draw)
        return rows.unflatten(0, x.shape[:2])

    def _update_together(self, weights: Any, numbers: Any, alive: Tensor) -> Any:
        """`_update` of all lanes, each worker of the gang on its rows: as many parts as `accumulate` would make."""
        (hp, x, target, keys), gang = numbers, self.lanes.gang
        own = keys + gang.rank * self.lanes.config.accumulate
        counts = self.counted(target)
        whole = () if counts is None else (counts.sum(-1),)
        found = self._gradients_each(weights, hp, gang.part(x, 1), gang.part(target, 1), own, *whole)
        return self._step_each(weights, hp, alive, gang.mean(found))

    # Functions of one trial

    def _build(self) -> nn.Module:
        config: TrainingConfig = self.lanes.config
        return build(config.net.model_dump(), config.row_shape, config.out_features)

    def _output(self, params: Any, buffers: Any, x: Tensor) -> Tensor:
        return call(self.net, params, buffers, *self.inputs(x))[0]

    def _called(self, params: Any, buffers: Any, x: Tensor, key: Tensor) -> Any:
        return call(self.net, params, buffers, *self.inputs(x), noise=key)

    def _update(self, weights: Any, numbers: Any, alive: Tensor) -> Any:
        """One step on a batch: ({"params", "buffers", "optimiser"}, metrics)."""
        hp, *rows = numbers
        return self._step(weights, hp, alive, self._gradients(weights, hp, *rows))

    def _gradients(
        self, weights: Any, hp: Any, x: Tensor, target: Tensor, key: Tensor, whole: Tensor | None = None
    ) -> Any:
        """(gradients, buffers, metrics) of a batch, or of a worker's part of one that has `whole` tokens."""

        def loss(params: Any, buffers: Any, key: Tensor, x: Tensor, target: Tensor) -> Any:
            output, buffers = self._forward(params, buffers, x, key)
            value, metrics = self.loss(output, target, hp)
            return value + self.descent.penalty(params, hp), (buffers, {"loss": value, **metrics})

        parts = self.lanes.config.accumulate
        counts = self.counted(target) if parts > 1 or whole is not None else None
        if counts is not None:
            counts = torch.stack([part.sum() for part in counts.chunk(parts)])
            counts = counts * self.lanes.gang.size  # the mean over workers divides once more
        numbers = {"counts": counts, "whole": whole}
        return mean_gradients(loss, parts, weights["params"], weights["buffers"], key, x, target, **numbers)

    def _step(self, weights: Any, hp: Any, alive: Tensor, found: Any) -> Any:
        """What `_update` returns, from what `_gradients` has found."""
        grads, buffers, metrics = found
        params, optimiser, norm = self.descent(weights, grads, hp)
        new = {"params": params, "buffers": buffers, "optimiser": optimiser}
        return keep(alive, new, weights), {**metrics, "grad_norm": norm}

    def _look(self, old: Any, after: Any, hp: Any, x: Tensor, target: Tensor, key: Tensor) -> dict[str, Tensor]:
        """Statistics of every layer for one update that was made."""

        def loss(params: Any) -> Any:
            (output, _), seen = activation_statistics(self.net, params, old["buffers"], *self.inputs(x), noise=key)
            return self.loss(output, target, hp)[0], seen

        grads, (_, seen) = grad_and_value(loss, has_aux=True)(old["params"])
        return layer_statistics(old["params"], grads, after, seen)


def _hyperparameters(lanes: Lanes) -> dict[str, Tensor]:
    """The numbers that may differ between lanes, [K]; without a limit of its own a gradient's is infinite."""
    names = [n for n in lanes.config.per_lane_fields() if isinstance(getattr(lanes.config, n), int | float)]
    hyper = {name: lanes.per_lane(name) for name in names}
    clip = hyper["clip"]
    return hyper | {"clip": torch.where(clip > 0, clip, torch.inf)}
