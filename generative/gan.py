"""A GAN for points and images: the loss, its gradient penalties and the networks are chosen by name.

Papers: Goodfellow et al. 2014; Huang et al. 2024 (R3GAN: relativistic pairing, R1 and R2 on every step, its schedules),
whose settings are the defaults; Karras et al. 2018 (moving average of the generator), 2020 (lazy penalties); Heusel et
al. 2017 (two learning rates); Mirza & Osindero 2014, Miyato & Koyama 2018 (labels); Zhao et al. 2020 (augmentation).
Deliberate differences: the average's half-life follows the images seen (a twentieth of them at most) instead of a
cosine; a lazy penalty is weighted by its period, without touching Adam's betas; the average generator uses the trained
one's batch statistics.

Legend: K lanes, U updates of a chunk, S steps of an update (the discriminator's, then one of the generator), B rows of
a batch, Z latent features, D discriminator, G generator.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor, nn

from generative.augment import UNIFORMS, AugmentationName, augmented
from generative.generator import Generator, GeneratorConfig
from generative.losses import LOSSES, PENALTIES
from harness.blocks import block_config, check_builds, check_generates, frozen
from harness.learner import Lanes, Metrics, State
from harness.spec import PerLaneFloat, Recipe
from nets.ema import ema_update
from nets.lanes import Work, call, grad_and_value, keep, module_of
from nets.optim import adam, adam_init, global_norm
from nets.registry import build

__all__ = ["GAN", "GANConfig", "anneal"]

CONVOLUTIONAL = ("dcgan", "sngan", "r3gan", "cnn", "resnet")
SECONDS = {"mlp": 3e-5, "fourier-mlp": 4e-5, "dcgan": 2e-3, "sngan": 8e-3, "r3gan": 8e-3}  # a row, on one core of two

if TYPE_CHECKING:
    Made = Any
    Judging = Any
else:
    Made = block_config("generator", "mlp-generator", {"mlp-generator": {"hidden_features": 64, "bounded": False}})
    Judging = block_config(
        "encoder",
        "mlp",
        {"mlp": {"hidden_features": 64, "depth": 3, "activation": "leaky_relu"}, "dcgan": {"norm": "none"}},
    )


class GANConfig(GeneratorConfig):
    """A generator and a discriminator."""

    defaults: ClassVar = {
        # the slopes that shape a mode of width 0.02 are so steep that a penalty of 0.1 would forbid them
        "ring-8": {"images": 3_072_000, "gamma": 0.01, "gamma_end": 0.01},
        # its sines see so fine on so wide a plane that the penalty has to hold them back until all modes are found
        "grid-25": {
            "images": 1_280_000,
            "latent_features": 16,
            "generator": {"kind": "mlp-generator", "hidden_features": 128},
            "net": {"kind": "fourier-mlp", "hidden_features": 64, "depth": 3},
            "gamma": 1.0,
            "gamma_end": 1e-4,
            "ema_half_life": 2_000,  # averages are narrower than what they average
        },
        "digits": {
            "images": 256_000,
            "latent_features": 32,
            "generator": {"kind": "mlp-generator", "hidden_features": 192},
            "net": {"kind": "mlp", "hidden_features": 192},
            "gamma": 10.0,
        },
    }

    latent_features: int = Field(8, ge=1, description="width of the generator's noise")
    generator: Made = Field(
        default_factory=dict, validate_default=True, description="the generator: a kind and its fields"
    )
    net: Judging = Field(
        default_factory=dict, validate_default=True, description="the discriminator: an encoder's kind and its fields"
    )
    loss: Literal["rpgan", "non-saturating", "hinge", "wasserstein"] = Field(
        "rpgan", description="the two losses of the game"
    )
    penalty: Literal["none", "r1", "r1+r2", "gradient-penalty"] = Field(
        "r1+r2", description="on the discriminator's slope: at real rows, at real and generated ones, or between them"
    )
    penalty_every: int = Field(1, ge=1, description="updates from one penalty to the next, which weighs so much more")
    gamma: PerLaneFloat = Field(0.1, ge=0, description="weight of the penalty at the start")
    gamma_end: float = Field(0.1, ge=0, description="gamma at the end, as a share of that at the start")
    d_steps: int = Field(1, ge=1, description="steps of the discriminator for one of the generator")
    lr_g: PerLaneFloat = Field(4e-3, ge=0, description="the generator's learning rate at the start")
    lr_d: PerLaneFloat = Field(4e-3, ge=0, description="the discriminator's learning rate at the start")
    lr_end: float = Field(
        0.02, ge=0, le=1, description="learning rates at the end, as a share of those at the start"
    )
    beta1: float = Field(0.0, ge=0, lt=1, description="Adam's decay of the gradient's mean")
    beta2: float = Field(0.9, ge=0, lt=1, description="Adam's decay of the gradient's square at the start")
    beta2_end: float = Field(0.99, ge=0, lt=1, description="Adam's decay of the gradient's square at the end")
    ema_half_life: float = Field(
        20_000, gt=0, description="images after which the average generator has forgotten half of a former one"
    )
    augment: Annotated[tuple[AugmentationName, ...], BeforeValidator(frozen)] = Field(
        (), description="what happens to real and generated images before the discriminator sees them"
    )
    augment_p: PerLaneFloat = Field(0.5, ge=0, le=1, description="probability of each augmentation")

    @property
    def encoder_recipe(self) -> Recipe:
        """The discriminator."""
        return Recipe(self.net.model_dump(), self.card.shape, self.head)

    @model_validator(mode="after")
    def _goes_together(self) -> GANConfig:
        if self.penalty != "none" and getattr(self.net, "norm", "none") == "batch":
            raise ValueError("net.norm: under a penalty rows must not influence each other; use none, or penalty: none")
        if self.augment and self.card.kind != "images":
            raise ValueError(f"augment: '{self.data}' holds {self.card.kind}, and only images are augmented")
        if self.generator.classes:
            raise ValueError("generator.classes: say conditional: true instead; the data set knows its labels")
        for name, check in (
            ("generator", lambda: check_generates(self.made, self.latent_features, self.card.shape)),
            ("net", lambda: check_builds(self.net, self.card.shape, self.head)),
        ):
            try:
                check()
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return self

    @property
    def made(self) -> dict[str, Any]:
        """The generator's fields, as `nets.registry.build` takes them."""
        return self.generator.model_dump() | {"classes": self.classes}

    @property
    def head(self) -> dict[str, Any]:
        """The discriminator's: one logit. No bias, for most losses see differences of logits only."""
        spectral = self.net.kind == "sngan"
        if self.conditional:
            return {"kind": "projection", "out_features": 1, "classes": self.classes, "spectral": spectral}
        return {"kind": "linear", "out_features": 1, "bias": self.loss in ("non-saturating", "hinge")}

    @property
    def seconds_per_progress(self) -> float:
        """Measured at small sizes; a first guess for other networks."""
        return SECONDS.get(self.net.kind, 8e-3) * (2 if self.card.kind == "images" else 1)


def anneal(start: Any, end: Any, done: float) -> Any:
    """From `start` to `end` along half a cosine (as R3GAN); `done` is the share of the budget spent."""
    return end + (start - end) * (0.5 + 0.5 * math.cos(math.pi * min(max(done, 0.0), 1.0)))


class GAN(Generator):
    """K generators, each with its own discriminator and its own real rows."""

    Config = GANConfig
    latent = True
    version = 3  # losses, penalties and networks by name

    def start(self, lanes: Lanes) -> State:
        """Networks, average generators and optimisers at progress 0."""
        self.begin(lanes)
        config: GANConfig = lanes.config
        execution = lanes.execution
        self.loss = LOSSES[config.loss]
        self.g_net, g, g_buffers = execution.stack(self._generator, lanes.init_seeds("gan/generator"))
        self.d_net, d, d_buffers = execution.stack(self._discriminator, lanes.init_seeds("gan/discriminator"))
        self._update_each = execution.each(partial(self._update, config.penalty, float(config.penalty_every)))
        self._unpenalised_each = execution.each(partial(self._update, "none", 0.0))
        self._sample_each = execution.each(self._sample, in_dims=(0, 0, 0, None), rare=True)
        return self.counters() | {
            "params": {"g": g, "d": d, "ema": {name: p.clone() for name, p in g.items()}},
            "buffers": {"g": g_buffers, "d": d_buffers},
            "optimiser": {name: adam_init(params, lanes=len(lanes)) for name, params in (("g", g), ("d", d))},
        }

    def advance(self, state: State) -> Metrics:
        """One chunk: U updates of the discriminator, then the generator, on B rows each."""
        lanes, config = self.lanes, self.lanes.config
        progress = int(state["progress"][0])
        shape = (config.updates, config.d_steps, config.batch)
        real, labels = self.real("gan/real", progress, shape)  # [K, U, S - 1, B, *row], [K, U, S - 1, B]
        steps = (config.updates, config.d_steps + 1)
        z = lanes.noise("gan/latent", progress, (*steps, config.batch, config.latent_features))
        mix = lanes.noise("gan/mix", progress, shape, "uniform")
        augment = (*steps, 2, config.batch, len(config.augment), UNIFORMS)
        u_augment = lanes.noise("gan/augment", progress, augment, "uniform")
        seen: dict[str, list[Tensor]] = {}
        for u in range(config.updates):
            lazy = (progress // config.batch + u) % config.penalty_every
            update = self._unpenalised_each if lazy else self._update_each
            old = {name: state[name] for name in ("params", "buffers", "optimiser")}
            hp = self._hyperparameters(progress + u * config.batch)
            batch = [rows[:, u] for rows in (real, labels, z, mix, u_augment)]
            new, metrics = update(old, hp, state["alive"], *batch)
            state.update(new)
            for name, value in metrics.items():
                seen.setdefault(name, []).append(value)
        state["progress"] = state["progress"] + self.chunk
        return {name: torch.stack(values).mean(0) for name, values in seen.items()}

    def sample(self, state: State, count: int, purpose: str = "evaluate") -> Tensor:
        """Rows of the average generators in the data's own range, [K, count, *row]."""
        z = self.lanes.noise(f"gan/{purpose}", 0, (count, self.lanes.config.latent_features))
        return self.made(state, z, self.labels(count))

    def made(self, state: State, codes: Tensor, labels: Tensor) -> Tensor:
        """Rows of the average generators for these codes."""
        rows = self._sample_each(state["params"]["ema"], state["buffers"]["g"], codes, labels)
        return self.in_data_range(rows)

    def network(self, state: State, lane: int) -> nn.Module:
        """The average generator: noise [B, Z] (and labels [B]) to rows [B, *row] (images with pixels in [-1, 1])."""
        return module_of(self._generator, state["params"]["ema"], state["buffers"]["g"], lane)

    def companions(self, state: State, lane: int) -> dict[str, nn.Module]:
        """The discriminator, whose encoder can be handed on: rows [B, *row] (images in [-1, 1]) to logits [B, 1]."""
        return {"discriminator": module_of(self._discriminator, state["params"]["d"], state["buffers"]["d"], lane)}

    @classmethod
    def work(cls, config: GANConfig, lanes: int) -> Work:
        """What a cohort costs, for choosing how it is executed."""
        seconds = config.seconds_per_progress * config.budget * lanes
        return Work(seconds, compile_seconds=60.0, speedup=3.0, loop_on_cpu=config.net.kind in CONVOLUTIONAL)

    # Functions of one trial

    def _generator(self) -> nn.Module:
        return build(self.lanes.config.made, self.lanes.config.latent_features, self.card.shape)

    def _discriminator(self) -> nn.Module:
        return build(self.lanes.config.net.model_dump(), self.card.shape, self.lanes.config.head)

    def _given(self, labels: Tensor) -> tuple[Tensor, ...]:
        """What a network takes beside its rows."""
        return (labels,) if self.lanes.config.conditional else ()

    def _sample(self, params: Any, buffers: Any, z: Tensor, labels: Tensor) -> Tensor:
        return call(self.g_net, params, buffers, z, *self._given(labels))[0]

    def _generate(self, params: Any, buffers: Any, z: Tensor, labels: Tensor) -> tuple[Tensor, Any]:
        return call(self.g_net, params, buffers, z, *self._given(labels), training=True)

    def _criticise(self, params: Any, buffers: Any, x: Tensor, labels: Tensor) -> tuple[Tensor, Any]:
        """Rows [n * B, *row] of labels [B], n times over, to logits [n * B] and new buffers."""
        given = self._given(labels.repeat(len(x) // len(labels)))
        logits, buffers = call(self.d_net, params, buffers, x, *given, training=True)
        return logits.squeeze(-1), buffers

    def _seen(self, x: Tensor, hp: Any, u: Tensor) -> Tensor:
        """Rows as the discriminator sees them."""
        names = self.lanes.config.augment
        return augmented(x, names, hp["augment_p"], u) if names else x

    def _update(self, penalty: str, weight: float, old: Any, hp: Any, alive: Tensor, *batch: Tensor) -> Any:
        """S - 1 steps of the discriminator, one of the generator, one of the average: (weights, metrics)."""
        real, labels, z, mix, u = batch
        new, metrics = old, {}
        for step in zip(real, labels, z, mix, u, strict=False):  # z and u have one more, the generator's
            new, metrics = self._step_d(penalty, weight, new, hp, *step)
        new, of_g = self._step_g(new, hp, real[-1], labels[-1], z[-1], u[-1])
        return keep(alive, new, old), metrics | of_g

    def _step_d(self, penalty: str, weight: float, old: Any, hp: Any, *batch: Tensor) -> Any:
        real, labels, z, mix, u = batch
        fake, g_buffers = self._generate(old["params"]["g"], old["buffers"]["g"], z, labels)
        real, fake = self._seen(real, hp, u[0]), self._seen(fake, hp, u[1])

        def loss(params: Any) -> Any:
            judged = PENALTIES[penalty](
                lambda x: self._criticise(params, old["buffers"]["d"], x, labels), real, fake, mix
            )
            value = self.loss.discriminator(judged.real, judged.fake)
            metrics = {"d_loss": value, "d_real": judged.real.mean(), "d_fake": judged.fake.mean(), **judged.metrics}
            return value + weight * hp["gamma"] * judged.penalty, (judged.buffers, metrics)

        grads, (_, (d_buffers, metrics)) = grad_and_value(loss, has_aux=True)(old["params"]["d"])
        d, d_state = self._adam(old, "d", grads, hp)
        params = {**old["params"], "d": d}
        optimiser = {**old["optimiser"], "d": d_state}
        metrics["d_grad_norm"] = global_norm(grads)
        return {"params": params, "buffers": {"g": g_buffers, "d": d_buffers}, "optimiser": optimiser}, metrics

    def _step_g(self, old: Any, hp: Any, real: Tensor, labels: Tensor, z: Tensor, u: Tensor) -> Any:
        buffers = old["buffers"]
        real = self._seen(real, hp, u[0])[: len(real) * self.loss.paired]

        def loss(params: Any) -> Any:
            fake, g_buffers = self._generate(params, buffers["g"], z, labels)
            rows = torch.cat([real, self._seen(fake, hp, u[1])])
            logits, d_buffers = self._criticise(old["params"]["d"], buffers["d"], rows, labels)
            return self.loss.generator(logits[: len(real)], logits[len(real) :]), {"g": g_buffers, "d": d_buffers}

        grads, (value, new_buffers) = grad_and_value(loss, has_aux=True)(old["params"]["g"])
        g, g_state = self._adam(old, "g", grads, hp)
        params = {**old["params"], "g": g, "ema": ema_update(old["params"]["ema"], g, hp["ema"])}
        optimiser = {**old["optimiser"], "g": g_state}
        new = {"params": params, "buffers": new_buffers, "optimiser": optimiser}
        return new, {"g_loss": value, "g_grad_norm": global_norm(grads)}

    def _adam(self, old: Any, name: str, grads: Any, hp: Any) -> Any:
        state = old["optimiser"][name]
        return adam(old["params"][name], grads, state, hp[f"lr_{name}"], hp["beta1"], hp["beta2"])

    # Schedules

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
        per_lane = {"lr_g": lr, "lr_d": lr, "gamma": gamma, "augment_p": 1.0}
        hp = {name: self.hyper[name] * factor for name, factor in per_lane.items()}
        return hp | {name: torch.full_like(hp["gamma"], value) for name, value in shared.items()}
