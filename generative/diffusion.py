"""Diffusion in the parameterisation of EDM: a denoiser at all levels of noise, and a deterministic sampler.

Paper: Karras, Aittala, Aila & Laine 2022, "Elucidating the Design Space of Diffusion-Based Generative Models" (EDM):
preconditioning and loss weight (table 1), log-normal noise levels, the sampler of algorithm 1 with Heun's second-order
steps, the moving average. Ho & Salimans 2022 (classifier-free guidance).
Deliberate differences: rows are scaled to a standard deviation of 0.5 instead of pixels to [-1, 1], so the paper's
constants fit points too; no augmentation; the learning rate falls along a cosine; the average's half-life follows the
images seen (a twentieth of them at most); small networks.

Legend: K lanes, U updates of a chunk, B rows of a batch, N samples, D denoiser, F network, x clean rows, sigma the
noise's standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from generative.generator import Generator, GeneratorConfig
from harness import data
from harness.blocks import block_config, check_builds
from harness.learner import Lanes, Metrics, State
from harness.spec import PerLaneFloat
from nets.ema import ema_update
from nets.lanes import Work, call, grad_and_value, keep, module_of
from nets.optim import adam, adam_init, global_norm
from nets.registry import build
from nets.schedules import cosine, warmup

__all__ = ["Diffusion", "DiffusionConfig", "denoised", "heun", "loss_weight", "noise_levels", "preconditioning"]

SIGMA_DATA = 0.5  # of the scaled rows
AT_ONCE = 500  # rows that are sampled together

PICTURES: dict[str, Any] = {  # fields of which images have another default than points
    "net": {"kind": "unet", "patch": 2},
    "images": 128_000,
    "batch": 64,
    "lr": 2e-3,
    "log_sigma_mean": -1.2,
    "log_sigma_std": 1.2,
    "steps": 12,
    "evaluate_every": 64_000,  # to draw 2,000 images takes a minute
}
DIGITS: dict[str, Any] = {  # and those of 8 x 8 pixels yet another
    "net": {"kind": "unet", "hidden_features": 24},
    "images": 64_000,
    "batch": 32,
    "evaluate_every": 32_000,
}

if TYPE_CHECKING:
    Net = Any
else:
    Net = block_config("denoiser", "mlp-denoiser", {})


class DiffusionConfig(GeneratorConfig):
    """A denoiser and its sampler."""

    defaults: ClassVar = {
        **dict.fromkeys(data.names("images"), PICTURES),
        **{name: {**PICTURES, **DIGITS} for name in ("digits", "stacked-digits")},
    }

    net: Net = Field(
        default_factory=dict, validate_default=True, description="the network: a denoiser's kind and its fields"
    )
    lr: PerLaneFloat = Field(5e-3, ge=0, description="learning rate at its peak; it falls to 0 along a cosine")
    log_sigma_mean: PerLaneFloat = Field(-2.5, description="mean of ln(sigma), the noise's level in training")
    log_sigma_std: PerLaneFloat = Field(1.5, gt=0, description="standard deviation of ln(sigma) in training")
    ema_half_life: float = Field(
        20_000, gt=0, description="images after which the average network has forgotten half of a former one"
    )
    steps: int = Field(18, ge=2, description="levels of noise that the sampler visits")
    sigma_min: float = Field(0.002, gt=0, description="the sampler's last level; the data's is 0.5")
    sigma_max: float = Field(80.0, gt=0, description="the sampler's first level")
    rho: float = Field(7.0, gt=0, description="how much denser the sampler's levels lie at the low end")
    label_dropout: float = Field(0.1, ge=0, le=1, description="conditional: share of rows whose label is hidden")
    guidance: float = Field(
        1.0, ge=0, description="conditional: 1 samples as trained, more follows the label further, 0 ignores it"
    )

    @property
    def denoiser(self) -> dict[str, Any]:
        """The network's configuration, with the data's classes where it is told labels."""
        return {**self.net.model_dump(), "classes": self.classes}

    @property
    def seconds_per_progress(self) -> float:
        """Measured on one busy core of two at default widths, images with their evaluations."""
        if self.net.kind != "unet":
            return 8e-5
        return 1.2e-3 + 2e-5 * math.prod(self.card.shape[-2:]) / self.net.patch**2

    @model_validator(mode="after")
    def _can_be_built(self) -> DiffusionConfig:
        if self.sigma_max <= self.sigma_min:
            raise ValueError(f"sigma_max must be above sigma_min = {self.sigma_min}")
        if self.net.classes:
            raise ValueError("net.classes: say conditional: true instead; the data set knows its labels")
        try:
            check_builds(self.net, self.card.shape, None)
        except ValueError as error:
            raise ValueError(f"net: {error}") from None
        return self


# Functions of the paper


def preconditioning(sigma: Tensor, sigma_data: float = SIGMA_DATA) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(c_skip, c_out, c_in, c_noise), table 1: inputs and targets of the network have variance 1 at every level.

    Args:
        sigma: above 0, [...].
        sigma_data: standard deviation of the data.
    """
    total = sigma**2 + sigma_data**2
    return sigma_data**2 / total, sigma * sigma_data / total.sqrt(), total.rsqrt(), sigma.log() / 4


def denoised(net: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: Tensor) -> Tensor:
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), equation 7: [B, ...] and sigma [B] to [B, ...]."""
    c_skip, c_out, c_in, c_noise = preconditioning(sigma)
    return _column(c_skip, x) * x + _column(c_out, x) * net(_column(c_in, x) * x, c_noise)


def loss_weight(sigma: Tensor, sigma_data: float = SIGMA_DATA) -> Tensor:
    """lambda(sigma) = 1 / c_out^2, table 1: every level's loss is 1 for a network that returns 0."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def noise_levels(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> list[float]:
    """The sampler's levels, equation 5: `steps` falling ones from sigma_max to sigma_min, then 0."""
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(high + i / (steps - 1) * (low - high)) ** rho for i in range(steps)] + [0.0]


def heun(denoise: Callable[[Tensor, float], Tensor], x: Tensor, levels: Sequence[float]) -> Tensor:
    """Solves dx / dsigma = (x - D(x; sigma)) / sigma from the first level to the last, algorithm 1.

    Args:
        denoise: D: rows [N, ...] and a level to rows.
        x: noise of the first level's standard deviation, [N, ...].
        levels: falling; the last may be 0, where the step is Euler's.
    """
    for now, after in pairwise(levels):
        slope = (x - denoise(x, now)) / now
        euler = x + (after - now) * slope
        if after == 0:
            return euler
        x = x + (after - now) * 0.5 * (slope + (euler - denoise(euler, after)) / after)
    return x


def _column(values: Tensor, x: Tensor) -> Tensor:
    """[B] as [B, 1, ...], to be multiplied with x."""
    return values.reshape(-1, *(1,) * (x.dim() - 1))


class Diffusion(Generator):
    """K denoisers, each trained on its own rows and noise."""

    Config = DiffusionConfig

    def start(self, lanes: Lanes) -> State:
        """Networks, average networks and optimisers at progress 0."""
        self.begin(lanes)
        config: DiffusionConfig = lanes.config
        train = data.load(config.data)["train"].x
        mean, std = (float(f(train, dtype="float64")) for f in (np.mean, np.std))
        points = self.card.kind == "points"
        self._mean, self._std = (mean, std) if points else (2 * mean - 1, 2 * std)  # as networks see rows
        self._levels = noise_levels(config.steps, config.sigma_min, config.sigma_max, config.rho)
        self.net, params, _ = lanes.execution.stack(self._build, lanes.init_seeds("diffusion/init"))
        self._update_each = lanes.execution.each(self._update)
        self._sample_each = lanes.execution.each(self._sample, rare=True)
        return {
            **self.counters(),
            "params": {"net": params, "ema": {name: p.clone() for name, p in params.items()}},
            "optimiser": adam_init(params, lanes=len(lanes)),
        }

    def advance(self, state: State) -> Metrics:
        """One chunk: U updates on B rows each."""
        lanes, config = self.lanes, self.lanes.config
        progress = int(state["progress"][0])
        x, labels = self.real("diffusion/real", progress, (config.updates, config.batch))  # [K, U, B, *row], [K, U, B]
        x = (x - self._mean) * (SIGMA_DATA / self._std)
        noise = lanes.noise("diffusion/noise", progress, x.shape[1:])
        level = lanes.noise("diffusion/level", progress, labels.shape[1:])
        hidden = lanes.noise("diffusion/hidden", progress, labels.shape[1:], "uniform") < config.label_dropout
        labels = labels.masked_fill(hidden, self.card.classes)
        keys = lanes.keys("diffusion/dropout", progress, config.updates)
        totals: dict[str, Tensor] = {}
        for u in range(config.updates):
            hp = self._hyperparameters(progress + u * config.batch)
            weights = {name: state[name] for name in ("params", "optimiser")}
            batch = {"x": x[:, u], "noise": noise[:, u], "level": level[:, u], "labels": labels[:, u],
                     "key": keys[:, u]}
            new, metrics = self._update_each(weights, hp, state["alive"], batch)
            state.update(new)
            totals = {name: totals.get(name, 0) + value / config.updates for name, value in metrics.items()}
        state["progress"] = state["progress"] + self.chunk
        return totals

    def sample(self, state: State, count: int, purpose: str = "evaluate") -> Tensor:
        """Rows of the average networks in the data's own range, [K, N, *row]."""
        z = self.lanes.noise(f"diffusion/{purpose}", 0, (count, *self.card.shape))
        z, labels = z * self._levels[0], self.labels(count).expand(len(z), -1)
        parts = zip(z.split(AT_ONCE, 1), labels.split(AT_ONCE, 1), strict=True)
        rows = torch.cat([self._sample_each(state["params"]["ema"], *part) for part in parts], 1)
        return self.in_data_range(rows * (self._std / SIGMA_DATA) + self._mean)

    def _draw_noise(self, count: int) -> Tensor:
        return self.lanes.noise("generator/draw", 0, (count, *self.card.shape))[0] * self._levels[0]

    def _drawn(self, network: nn.Module, z: Tensor, labels: Tensor) -> Tensor:
        rows = self._sample(dict(network.named_parameters()), z, labels)
        return self.in_data_range(rows * (self._std / SIGMA_DATA) + self._mean)

    def network(self, state: State, lane: int) -> nn.Module:
        """The average network F of equation 7: scaled rows and ln(sigma) / 4 to a part of the clean rows."""
        return module_of(self._build, state["params"]["ema"], {}, lane)

    @classmethod
    def work(cls, config: DiffusionConfig, lanes: int) -> Work:
        """What a cohort costs, for choosing how it is executed."""
        seconds = config.seconds_per_progress * config.budget * lanes
        return Work(seconds, compile_seconds=60.0, speedup=2.0, loop_on_cpu=config.net.kind == "unet")

    # Functions of one trial

    def _build(self) -> nn.Module:
        return build(self.lanes.config.denoiser, self.card.shape)

    def _denoise(self, params: Any, x: Tensor, sigma: Tensor, labels: Tensor, key: Tensor | None = None) -> Tensor:
        told = (labels,) if self.lanes.config.conditional else ()
        return denoised(lambda x, level: call(self.net, params, {}, x, level, *told, noise=key)[0], x, sigma)

    def _update(self, old: Any, hp: Any, alive: Tensor, batch: Any) -> Any:
        """One Adam step on the denoising loss, one of the average: (weights, metrics)."""
        x, params = batch["x"], old["params"]["net"]
        sigma = (hp["log_sigma_mean"] + hp["log_sigma_std"] * batch["level"]).exp()  # [B]
        noisy = x + _column(sigma, x) * batch["noise"]

        def loss(params: Any) -> Tensor:  # equation 2 with table 1's weight, per feature
            error = self._denoise(params, noisy, sigma, batch["labels"], batch["key"]) - x
            return (loss_weight(sigma) * error.square().flatten(1).mean(1)).mean()

        grads, value = grad_and_value(loss)(params)
        params, optimiser = adam(params, grads, old["optimiser"], hp["lr"], 0.9, 0.99)
        ema = ema_update(old["params"]["ema"], params, hp["ema"])
        new = {"params": {"net": params, "ema": ema}, "optimiser": optimiser}
        return keep(alive, new, old), {"loss": value, "grad_norm": global_norm(grads)}

    def _sample(self, params: Any, z: Tensor, labels: Tensor) -> Tensor:
        """Scaled rows from noise of the first level, [N, *row]."""
        guidance = self.lanes.config.guidance
        hidden = torch.full_like(labels, self.card.classes)

        def denoise(x: Tensor, level: float) -> Tensor:
            sigma = x.new_full((len(x),), level)
            informed = self._denoise(params, x, sigma, labels)
            if guidance == 1:
                return informed
            free = self._denoise(params, x, sigma, hidden)
            return free + guidance * (informed - free)  # Ho & Salimans, equation 6, with w = guidance - 1

        return heun(denoise, z, self._levels)

    # Schedules and data

    def _hyperparameters(self, seen: int) -> dict[str, Tensor]:
        """Per-lane values [K] after `seen` images."""
        config = self.lanes.config
        decay = 0.5 ** (config.batch / min(config.ema_half_life, 0.05 * seen + 1e-8))
        lr = warmup(0.02, cosine)(self.hyper["lr"], seen / config.budget)
        return self.hyper | {"lr": lr, "ema": torch.full_like(lr, decay)}
