"""MoCoGAN with today's losses: clips whose content is drawn once and whose motion is recurrent.

Papers: Tulyakov et al. 2018 (MoCoGAN: content and motion codes, one discriminator for frames and one for clips); Huang
et al. 2024 (R3GAN: relativistic pairing, R1 and R2 on every step, schedules); Karras et al. 2018 (moving average), 2021
(StyleGAN3: waves that the code translates).
Deliberate differences: R3GAN's loss in place of the non-saturating one; no batch norm in either discriminator
(penalties need rows that do not influence each other) nor in the generator; frames are sums of waves that the motion
code moves, instead of transposed convolutions; the discriminator of clips takes frames as channels, instead of 3-D
convolutions; what `nets/mocogan.py` lists; and clips as long as the data's.

Legend: K lanes, U updates of a chunk, B clips of a batch, T frames, Z the generator's noise; discriminators "image" (of
one frame of every clip) and "video" (of the clip).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from generative import extractors
from generative.generator import Generator, GeneratorConfig
from generative.losses import logits_and_slopes, rpgan_discriminator_loss, rpgan_generator_loss
from generative.video_judge import extractor_names
from harness.blocks import block_config, check_builds, check_generates
from harness.learner import Lanes, Metrics, State
from harness.spec import PerLaneFloat, Score
from nets.ema import ema_update
from nets.lanes import Work, call, grad_and_value, gradients, keep, module_of
from nets.optim import adam, adam_init
from nets.registry import build
from nets.schedules import cosine

__all__ = ["VideoGAN", "VideoGANConfig"]

CRITICS = ("image", "video")
LOGIT = {"kind": "linear", "out_features": 1, "bias": False}  # the losses see differences of logits only
ROWS_AT_ONCE = 500  # clips that an evaluation makes at once
SECONDS = {"moving-shapes": 2e-3, "moving-digits": 1e-2}  # a clip, on one core of a 2-core machine

if TYPE_CHECKING:
    Frame = Any
    Image = Any
    Video = Any
else:
    Frame = block_config(
        "generator",
        "wave-generator",
        {
            "wave-generator": {"place_features": 16, "depth": 4},
            "dcgan-generator": {"hidden_features": 16, "norm": "layer"},
        },
    )
    Image = block_config("encoder", "stacked-cnn", {"stacked-cnn": {"hidden_features": 16}, "dcgan": {"norm": "none"}})
    clips = {"depth": 2, "norm": "none", "activation": "leaky_relu", "first_stride": 2, "pool": "none"}
    Video = block_config("encoder", "stacked-cnn", {"video-cnn": clips})


class VideoGANConfig(GeneratorConfig):
    """A generator of clips, a discriminator of frames and one of clips."""

    kinds: ClassVar = ("video",)

    data: str = Field("moving-shapes", description="data set of clips")
    images: int = Field(320_000, ge=1, description="real clips shown in training (rounded up to whole chunks)")
    batch: int = Field(16, ge=1, description="clips of one update")
    content_features: int = Field(16, ge=1, description="width of the noise that decides what is seen, one a clip")
    motion_features: int = Field(16, ge=1, description="width of the motion code, the recurrent network's state")
    noise_features: int = Field(1, ge=1, description="width of the noise that each frame adds to the motion")
    frame: Frame = Field(
        default_factory=dict, validate_default=True, description="the generator of a frame: a kind and its fields"
    )
    image_net: Image = Field(
        default_factory=dict, validate_default=True, description="encoder of the frames' discriminator: kind and fields"
    )
    video_net: Video = Field(
        default_factory=dict, validate_default=True, description="encoder of the clips' discriminator: kind and fields"
    )
    lr_g: PerLaneFloat = Field(4e-3, ge=0, description="the generator's learning rate at the start")
    lr_d: PerLaneFloat = Field(4e-3, ge=0, description="the discriminators' learning rate at the start")
    lr_end: float = Field(0.02, ge=0, le=1, description="learning rates at the end, as a share of those at the start")
    gamma_image: PerLaneFloat = Field(0.5, ge=0, description="weight of R1 and R2 on frames at the start")
    gamma_video: PerLaneFloat = Field(1.0, ge=0, description="weight of R1 and R2 on clips at the start")
    gamma_end: float = Field(0.1, ge=0, le=1, description="both weights at the end, as a share of those at the start")
    beta1: float = Field(0.0, ge=0, lt=1, description="Adam's decay of the gradient's mean")
    beta2: float = Field(0.9, ge=0, lt=1, description="Adam's decay of the gradient's square at the start")
    beta2_end: float = Field(0.99, ge=0, lt=1, description="Adam's decay of the gradient's square at the end")
    ema_half_life: float = Field(
        10_000, gt=0, description="clips after which the average generator has forgotten half of a former one"
    )

    @model_validator(mode="after")
    def _goes_together(self) -> VideoGANConfig:
        if self.conditional:
            raise ValueError("conditional: this learner makes clips of all labels; set it to false")
        for name in extractor_names(self.card).values():
            if name not in extractors.names():
                raise ValueError(
                    f"data: nothing judges clips of '{self.data}': python -m generative.extractors.train_clips {name}"
                )
        image = self.card.shape[1:]
        nets = {"image_net": (self.image_net, image), "video_net": (self.video_net, self.card.shape)}
        for name, (net, _) in nets.items():
            if getattr(net, "norm", "none") == "batch":
                raise ValueError(f"{name}.norm: under R1 and R2 rows must not influence each other; use layer or none")
        checks = {name: partial(check_builds, *pair, LOGIT) for name, pair in nets.items()}
        width = self.content_features + self.motion_features
        checks["frame"] = partial(check_generates, self.frame.model_dump(), width, image)
        for name, check in checks.items():
            try:
                check()
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        if getattr(self.frame, "place_features", 0) > self.motion_features:
            raise ValueError("frame.place_features: content would decide the place; take at most motion_features")
        return self

    @property
    def latent_features(self) -> int:
        """Z, width of a clip's noise."""
        return self.content_features + self.motion_features + self.card.shape[0] * self.noise_features

    @property
    def made(self) -> dict[str, Any]:
        """The generator, as `nets.registry.build` takes it."""
        widths = {name: getattr(self, name) for name in ("motion_features", "noise_features")}
        return {"kind": "mocogan-generator", "frame": self.frame.model_dump(), **widths}

    @property
    def seconds_per_progress(self) -> float:
        """Measured for default sizes."""
        return SECONDS[self.data]


def frames_of(clips: Tensor, index: Tensor) -> Tensor:
    """One frame of every clip: [B, T, C, H, W] and int64 [B] to [B, C, H, W]."""
    return torch.take_along_dim(clips, index[:, None, None, None, None], 1).squeeze(1)


class VideoGAN(Generator):
    """K generators of clips, each with its own discriminators and its own real clips."""

    Config = VideoGANConfig
    version = 2  # waves, summed motion, stacked frames
    score = Score("frechet_moving_shapes_clip", "min", worst=1e6)

    def start(self, lanes: Lanes) -> State:
        """Networks, average generators and optimisers at progress 0."""
        self.begin(lanes)
        execution = lanes.execution
        self.g_net, g, buffers_g = execution.stack(self._generator, lanes.init_seeds("video-gan/generator"))
        self.d_nets, params = {}, {"g": g, "ema": {name: p.clone() for name, p in g.items()}}
        buffers = {"g": buffers_g}
        for name in CRITICS:
            seeds = lanes.init_seeds(f"video-gan/{name}")
            self.d_nets[name], params[name], buffers[name] = execution.stack(partial(self._critic, name), seeds)
        self._update_each = execution.each(self._update)
        self._sample_each = execution.each(lambda *weights_and_z: call(self.g_net, *weights_and_z)[0], rare=True)
        return self.counters() | {
            "params": params,
            "buffers": buffers,  # constants of the networks: no layer changes its own outside of training mode
            "optimiser": {name: adam_init(params[name], lanes=len(lanes)) for name in ("g", *CRITICS)},
        }

    def advance(self, state: State) -> Metrics:
        """One chunk: U times the discriminators, then the generator, on B clips each."""
        lanes, config = self.lanes, self.lanes.config
        progress = int(state["progress"][0])
        real, _ = self.real("video-gan/real", progress, (config.updates, config.batch))  # [K, U, B, T, C, H, W]
        index = self._frames(progress)  # [K, U, 4, B]
        z = lanes.noise("video-gan/latent", progress, (config.updates, 2, config.batch, config.latent_features))
        totals: dict[str, list[Tensor]] = {}
        for u in range(config.updates):
            hp = self._hyperparameters(progress + u * config.batch)
            old = {name: state[name] for name in ("params", "buffers", "optimiser")}
            new, metrics = self._update_each(old, hp, state["alive"], real[:, u], z[:, u], index[:, u])
            state.update(new)
            for name, value in metrics.items():
                totals.setdefault(name, []).append(value)
        state["progress"] = state["progress"] + self.chunk
        return {name: torch.stack(values).mean(0) for name, values in totals.items()}

    def network(self, state: State, lane: int) -> nn.Module:
        """The average generator: noise [B, Z] to clips [B, T, C, H, W] with pixels in [-1, 1]."""
        return module_of(self._generator, state["params"]["ema"], state["buffers"]["g"], lane)

    def companions(self, state: State, lane: int) -> dict[str, nn.Module]:
        """The discriminators: frames [B, C, H, W], or clips [B, T, C, H, W], in [-1, 1] to logits [B, 1]."""
        weights = {name: (state["params"][name], state["buffers"][name]) for name in CRITICS}
        return {name: module_of(partial(self._critic, name), *weights[name], lane) for name in CRITICS}

    def sample(self, state: State, count: int, purpose: str = "evaluate") -> Tensor:
        """Clips of the average generators, [K, count, T, C, H, W] in [0, 1]."""
        z = self.lanes.noise(f"video-gan/{purpose}", 0, (count, self.lanes.config.latent_features))
        weights = (state["params"]["ema"], state["buffers"]["g"])
        parts = [self._sample_each(*weights, part) for part in z.split(ROWS_AT_ONCE, 1)]
        return self.in_data_range(torch.cat(parts, 1))

    @classmethod
    def work(cls, config: VideoGANConfig, lanes: int) -> Work:
        """What a cohort costs, for choosing how it is executed."""
        return Work(config.seconds_per_progress * config.budget * lanes, 120.0, speedup=1.9, loop_on_cpu=True)

    # Functions of one trial

    def _generator(self) -> nn.Module:
        c: VideoGANConfig = self.lanes.config
        return build(c.made, c.latent_features, c.card.shape)

    def _critic(self, name: str) -> nn.Module:
        c: VideoGANConfig = self.lanes.config
        net, shape = {"image": (c.image_net, c.card.shape[1:]), "video": (c.video_net, c.card.shape)}[name]
        return build(net.model_dump(), shape, LOGIT)

    def _update(self, old: Any, hp: Any, alive: Tensor, real: Tensor, z: Tensor, index: Tensor) -> Any:
        """One step of either discriminator, one of the generator, one of the average: (weights, metrics).

        Args:
            old: parameters, buffers and optimisers.
            hp: values of this update.
            alive: whether this lane goes on.
            real: [B, T, C, H, W].
            z: [2, B, Z], for the discriminators and for the generator.
            index: int64 [4, B], the frames that the image discriminator sees: real and generated, in either step.
        """
        params, buffers, optimiser = dict(old["params"]), old["buffers"], dict(old["optimiser"])
        metrics: dict[str, Tensor] = {}

        def generate(g: Any, z: Tensor) -> Tensor:
            return call(self.g_net, g, buffers["g"], z)[0]

        def views(clips: Tensor, index: Tensor) -> dict[str, Tensor]:
            return {"image": frames_of(clips, index), "video": clips}

        def critic(name: str, d: Any, x: Tensor) -> tuple[Tensor, Any]:
            logits, same = call(self.d_nets[name], d, buffers[name], x)
            return logits.squeeze(-1), same

        def d_loss(d: Any, name: str, x: Tensor) -> Any:
            logits, slopes, _ = logits_and_slopes(lambda x: critic(name, d, x), x)
            (on_real, on_fake), (r1, r2) = logits.chunk(2), (s.mean() for s in slopes.chunk(2))
            loss = rpgan_discriminator_loss(on_real, on_fake)
            seen = {"loss": loss, "r1": r1, "r2": r2, "margin": (on_real - on_fake).mean()}
            return loss + 0.5 * hp[f"gamma_{name}"] * (r1 + r2), {f"{name}_{key}": v for key, v in seen.items()}

        def g_loss(g: Any) -> Any:
            losses = []
            fakes = views(generate(g, z[1]), index[3])
            for name, x in views(real, index[2]).items():
                on_real, on_fake = (critic(name, params[name], rows)[0] for rows in (x, fakes[name]))
                losses.append(rpgan_generator_loss(on_real, on_fake))
            return (loss := torch.stack(losses).sum()), {"g_loss": loss}

        betas = (hp["beta1"], hp["beta2"])
        fakes = views(generate(params["g"], z[0]), index[1])
        for name, x in views(real, index[0]).items():
            rows = torch.cat([x, fakes[name]])
            grads, (_, seen) = grad_and_value(d_loss, has_aux=True)(params[name], name, rows)
            params[name], optimiser[name] = adam(params[name], grads, optimiser[name], hp["lr_d"], *betas)
            metrics |= seen
        grads, (_, seen) = gradients(g_loss)(params["g"])
        metrics |= seen
        params["g"], optimiser["g"] = adam(params["g"], grads, optimiser["g"], hp["lr_g"], *betas)
        params["ema"] = ema_update(params["ema"], params["g"], hp["ema"])
        return keep(alive, {"params": params, "buffers": buffers, "optimiser": optimiser}, old), metrics

    # Schedules and data

    def _hyperparameters(self, seen: int) -> dict[str, Tensor]:
        """Per-lane values [K] after `seen` clips."""
        c: VideoGANConfig = self.lanes.config
        done = seen / c.budget
        lr, gamma = cosine(1.0, done, c.lr_end), cosine(1.0, done, c.gamma_end)
        half_life = min(c.ema_half_life, 0.05 * seen + 1e-8)
        shared = {
            "beta1": c.beta1,
            "beta2": cosine(c.beta2, done, c.beta2_end),
            "ema": 0.5 ** (c.batch / half_life),
        }
        factors = {"lr_g": lr, "lr_d": lr, "gamma_image": gamma, "gamma_video": gamma}
        hp = {name: self.hyper[name] * factor for name, factor in factors.items()}
        return hp | {name: torch.full_like(hp["lr_g"], value) for name, value in shared.items()}

    def _frames(self, progress: int) -> Tensor:
        """Which frames of a chunk's clips the image discriminator sees, int64 [K, U, 4, B]."""
        c: VideoGANConfig = self.lanes.config
        rngs = self.lanes.generators("video-gan/frames", progress)
        drawn = [rng.integers(0, c.card.shape[0], (c.updates, 4, c.batch)) for rng in rngs]
        return self.lanes.execution.tensor(np.stack(drawn))
