"""A GAN for points and small images: R3GAN's loss and schedules on plain networks.

Papers: Huang et al. 2024 (R3GAN: relativistic pairing, R1 and R2 on every step, no tricks); Karras et al.
2018 (moving average of the generator).
Deliberate differences: plain perceptrons instead of its ResNets, no augmentation, and the average's half-life
follows the images seen (a twentieth of them at most) instead of a cosine.

Legend: K lanes, U updates of a chunk, B rows of a batch, Z latent features, D discriminator, G generator.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from generative.losses import logits_and_slopes, rpgan_discriminator_loss, rpgan_generator_loss
from generative.metrics import frechet_distance, mode_metrics, moments
from harness import data
from harness.data.ring import STD
from harness.learner import Lanes, Learner, Media, Metrics, State, select
from harness.spec import LearnerConfig, PerLaneFloat, Score
from nets.ema import ema_update
from nets.lanes import Work, call, grad_and_value, keep, module_of
from nets.optim import adam, adam_init
from nets.registry import build

__all__ = ["GAN", "GANConfig", "anneal"]

UPDATES = 10  # of one chunk
SAMPLES = 2000  # rows that an evaluation draws
DEFAULTS: dict[str, dict[str, Any]] = {  # fields whose default depends on the data
    "ring-8": {},
    "digits": {"images": 256_000, "latent_features": 32, "hidden_features": 192, "gamma": 10.0},
}


class GANConfig(LearnerConfig):
    """A generator and a discriminator."""

    data: Literal["ring-8", "digits"] = Field("ring-8", description="data set")
    images: int = Field(
        384_000, ge=1, description="real rows shown to the discriminator (rounded up to whole chunks)"
    )
    batch: int = Field(128, ge=1, description="rows of one update")
    latent_features: int = Field(8, ge=1, description="width of the generator's noise")
    hidden_features: int = Field(64, ge=1, description="width of the layers of both networks")
    depth: int = Field(3, ge=1, description="hidden layers of both networks")
    activation: Literal["relu", "silu", "gelu", "tanh", "leaky_relu", "elu"] = Field(
        "leaky_relu", description="activation function of both networks"
    )
    lr_g: PerLaneFloat = Field(4e-3, ge=0, description="the generator's learning rate at the start")
    lr_d: PerLaneFloat = Field(4e-3, ge=0, description="the discriminator's learning rate at the start")
    lr_end: float = Field(
        0.02, ge=0, le=1, description="learning rates at the end, as a share of those at the start"
    )
    gamma: PerLaneFloat = Field(
        0.1, ge=0, description="weight of the gradient penalties R1 and R2 at the start"
    )
    gamma_end: float = Field(0.1, ge=0, le=1, description="gamma at the end, as a share of that at the start")
    beta1: float = Field(0.0, ge=0, lt=1, description="Adam's decay of the gradient's mean")
    beta2: float = Field(0.9, ge=0, lt=1, description="Adam's decay of the gradient's square at the start")
    beta2_end: float = Field(0.99, ge=0, lt=1, description="Adam's decay of the gradient's square at the end")
    ema_half_life: float = Field(
        20_000,
        gt=0,
        description="images after which the average generator has forgotten half of a former one",
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_data(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        name = given.get("data", "ring-8")
        return {**DEFAULTS.get(name if isinstance(name, str) else "", {}), **given}

    @property
    def layers(self) -> dict[str, Any]:
        """The fields that both networks have, as `nets.registry.build` takes them."""
        return {name: getattr(self, name) for name in ("hidden_features", "depth", "activation")}

    @property
    def chunk(self) -> int:
        """Images of one chunk."""
        return UPDATES * self.batch

    @property
    def budget(self) -> int:
        """Images to show, whole chunks."""
        return math.ceil(self.images / self.chunk) * self.chunk

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The data set."""
        return (self.data,)

    @property
    def seconds_per_progress(self) -> float:
        """Measured on one core of a 2-core machine, default sizes."""
        return {"ring-8": 3e-5, "digits": 6e-5}[self.data]


def anneal(start: Any, end: Any, done: float) -> Any:
    """From `start` to `end` along half a cosine (as R3GAN); `done` is the share of the budget spent."""
    return end + (start - end) * (0.5 + 0.5 * math.cos(math.pi * min(max(done, 0.0), 1.0)))


class GAN(Learner):
    """K generators, each with its own discriminator and its own real rows."""

    Config = GANConfig
    unit = "images"
    score = Score("frechet", "min", worst=1e6)
    version = 2  # networks of `nets.registry`

    @classmethod
    def score_of(cls, config: GANConfig) -> Score:
        """Overlap with the modes where they are known (means and covariances say little there), else Frechet."""
        return Score("overlap", "max", worst=0.0) if data.card(config.data).kind == "points" else cls.score

    def start(self, lanes: Lanes) -> State:
        """Networks, average generators and optimisers at progress 0."""
        self.lanes = lanes
        config: GANConfig = lanes.config
        self.chunk = config.chunk
        self.hyper = {name: lanes.per_lane(name) for name in config.per_lane_fields()}
        self.card = data.card(config.data)
        execution = lanes.execution
        rows = data.load(config.data)
        self._train = execution.tensor(2 * rows["train"].x - 1) if self.card.kind == "images" else None
        self._reference = rows["test"].x
        self._reference_moments = moments(torch.as_tensor(self._reference.copy()))
        self.g_net, g, _ = execution.stack(self._generator, lanes.init_seeds("gan/generator"))
        self.d_net, d, _ = execution.stack(self._discriminator, lanes.init_seeds("gan/discriminator"))
        self._update_each = execution.each(self._update)
        self._sample_each = execution.each(lambda params, z: call(self.g_net, params, {}, z)[0], rare=True)
        progress = torch.zeros(len(lanes), dtype=torch.int64, device=execution.device)
        return {
            "progress": progress,
            "alive": torch.ones_like(progress, dtype=torch.bool),
            "params": {"g": g, "d": d, "ema": {name: p.clone() for name, p in g.items()}},
            "optimiser": {name: adam_init(params, lanes=len(lanes)) for name, params in (("g", g), ("d", d))},
        }

    def advance(self, state: State) -> Metrics:
        """One chunk: U times the discriminator, then the generator, on B rows each."""
        lanes, config = self.lanes, self.lanes.config
        progress = int(state["progress"][0])
        real = self._real(progress)  # [K, U, B, *row]
        z = lanes.noise("gan/latent", progress, (UPDATES, 2, config.batch, config.latent_features))
        totals: dict[str, Tensor] = {}
        for u in range(UPDATES):
            hp = self._hyperparameters(progress + u * config.batch)
            weights = {name: state[name] for name in ("params", "optimiser")}
            new, metrics = self._update_each(weights, hp, state["alive"], real[:, u], z[:, u, 0], z[:, u, 1])
            state.update(new)
            totals = {name: totals.get(name, 0) + value / UPDATES for name, value in metrics.items()}
        state["progress"] = state["progress"] + self.chunk
        return totals

    def evaluate(self, state: State) -> Metrics:
        """Quality of the average generators' rows, [K]: Frechet distance to the held-out rows, raw features.

        For a ring also modes covered, share of the rarest mode, share of high quality, overlap with the data's
        modes and spread within modes.
        """
        z = self.lanes.noise("gan/evaluate", 0, (SAMPLES, self.lanes.config.latent_features))
        rows = []
        for samples in self._rows(state, z):
            scores = {"frechet": frechet_distance(moments(samples.cpu()), self._reference_moments)}
            if self.card.kind == "points":
                scores |= mode_metrics(samples.cpu(), torch.as_tensor(data.ring_centres()), STD)
            rows.append(scores)
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def network(self, state: State, lane: int) -> nn.Module:
        """The average generator: noise [B, Z] to rows [B, *row] (images with pixels in [-1, 1])."""
        return module_of(self._generator, state["params"]["ema"], {}, lane)

    def companions(self, state: State, lane: int) -> dict[str, nn.Module]:
        """The discriminator, whose encoder can be handed on: rows [B, *row] (images in [-1, 1]) to logits [B, 1]."""
        return {"discriminator": module_of(self._discriminator, state["params"]["d"], {}, lane)}

    def media(self, state: State, lane: int) -> dict[str, Media]:
        """Rows of the average generator beside held-out ones."""
        count = 1000 if self.card.kind == "points" else 64
        z = self.lanes.noise("gan/evaluate", 0, (SAMPLES, self.lanes.config.latent_features))
        samples = self._rows(select(state, [lane]), z[lane : lane + 1, :count])[0].cpu().numpy()
        reference = self._reference[:count]
        if self.card.kind == "points":
            caption = f"{count} points of the average generator beside {count} of the data"
            return {"samples": Media("points", samples, reference, caption=caption)}
        caption = f"{count} images of the average generator beside {count} held-out ones"
        return {"samples": Media("image", _grid(samples), _grid(reference), caption=caption)}

    @classmethod
    def work(cls, config: GANConfig, lanes: int) -> Work:
        """What a cohort costs, for choosing how it is executed."""
        return Work(config.seconds_per_progress * config.budget * lanes, compile_seconds=60.0, speedup=3.0)

    # Functions of one trial

    def _generator(self) -> nn.Module:
        c = self.lanes.config
        return build({"kind": "mlp-generator", **c.layers, "bounded": False}, c.latent_features, self.card.shape)

    def _discriminator(self) -> nn.Module:
        logit = {"kind": "linear", "out_features": 1, "bias": False}  # the losses see differences of logits only
        return build({"kind": "mlp", **self.lanes.config.layers}, self.card.shape, logit)

    def _update(self, old: Any, hp: Any, alive: Tensor, real: Tensor, z_d: Tensor, z_g: Tensor) -> Any:
        """One step of the discriminator, one of the generator, one of the average: (weights, metrics)."""

        def critic(params: Any, x: Tensor) -> Tensor:
            return call(self.d_net, params, {}, x)[0].squeeze(-1)

        def generate(params: Any, z: Tensor) -> Tensor:
            return call(self.g_net, params, {}, z)[0]

        params, optimiser = old["params"], old["optimiser"]
        fake = generate(params["g"], z_d)

        def d_loss(params: Any) -> Any:
            logits, slopes = logits_and_slopes(lambda x: critic(params, x), torch.cat([real, fake]))
            (on_real, on_fake), (r1, r2) = logits.chunk(2), (s.mean() for s in slopes.chunk(2))
            adversarial = rpgan_discriminator_loss(on_real, on_fake)
            metrics = {"d_loss": adversarial, "r1": r1, "r2": r2, "margin": (on_real - on_fake).mean()}
            return adversarial + 0.5 * hp["gamma"] * (r1 + r2), metrics

        def g_loss(params: Any) -> Tensor:
            on_real, on_fake = critic(d, torch.cat([real, generate(params, z_g)])).chunk(2)
            return rpgan_generator_loss(on_real, on_fake)

        betas = (hp["beta1"], hp["beta2"])
        grads, (_, metrics) = grad_and_value(d_loss, has_aux=True)(params["d"])
        d, d_state = adam(params["d"], grads, optimiser["d"], hp["lr_d"], *betas)
        grads, value = grad_and_value(g_loss)(params["g"])
        g, g_state = adam(params["g"], grads, optimiser["g"], hp["lr_g"], *betas)
        ema = ema_update(params["ema"], g, hp["ema"])
        new = {"params": {"g": g, "d": d, "ema": ema}, "optimiser": {"g": g_state, "d": d_state}}
        return keep(alive, new, old), {"g_loss": value, **metrics}

    # Schedules and data

    def _hyperparameters(self, seen: int) -> dict[str, Tensor]:
        """Per-lane values [K] after `seen` images."""
        config = self.lanes.config
        done = seen / config.budget
        lr, gamma = anneal(1.0, config.lr_end, done), anneal(1.0, config.gamma_end, done)
        half_life = min(config.ema_half_life, 0.05 * seen + 1e-8)
        shared = {
            "beta1": config.beta1,
            "beta2": anneal(config.beta2, config.beta2_end, done),
            "ema": 0.5 ** (config.batch / half_life),
        }
        per_lane = {"lr_g": lr, "lr_d": lr, "gamma": gamma}
        hp = {name: self.hyper[name] * factor for name, factor in per_lane.items()}
        return hp | {name: torch.full_like(hp["gamma"], value) for name, value in shared.items()}

    def _real(self, progress: int) -> Tensor:
        """Real rows of one chunk, [K, U, B, *row], from every lane's own noise."""
        shape = (UPDATES, self.lanes.config.batch)
        rngs = self.lanes.generators("gan/real", progress)
        if self._train is None:
            points = [data.ring_points(rng.random(shape), rng.standard_normal((*shape, 2))) for rng in rngs]
            return self.lanes.execution.tensor(np.stack(points))
        index = np.stack([rng.integers(0, len(self._train), shape) for rng in rngs])
        return self._train[self.lanes.execution.tensor(index)]

    def _rows(self, state: State, z: Tensor) -> Tensor:
        """Rows of the average generators in the data's own range, [K, N, *row]."""
        rows = self._sample_each(state["params"]["ema"], z)
        return rows if self.card.kind == "points" else ((rows + 1) / 2).clamp(0, 1)


def _grid(images: np.ndarray, columns: int = 8, scale: int = 4) -> np.ndarray:
    """Images [N, H, W] in [0, 1] as one uint8 picture: a pixel is `scale` wide, a black line lies between."""
    count, height, width = images.shape
    padded = np.pad(images, ((0, -count % columns), (0, 1), (0, 1)))
    rows = padded.reshape(-1, columns, height + 1, width + 1).transpose(0, 2, 1, 3)
    picture = rows.reshape(-1, columns * (width + 1)).repeat(scale, 0).repeat(scale, 1)
    return np.round(255 * picture).astype(np.uint8)
