"""MoCoGAN with today's losses: clips whose content is drawn once and whose motion is recurrent.

Papers: Tulyakov et al. 2018 (MoCoGAN: content and motion codes, one discriminator for frames and one for clips); Huang
et al. 2024 (R3GAN: relativistic pairing, R1 and R2 on every step, schedules); Karras et al. 2018 (moving average).
Deliberate differences: R3GAN's loss in place of the non-saturating one, no batch norm in either discriminator (penalties
need rows that do not influence each other) nor in the generator, and clips as long as the data's.

Legend: K lanes, U updates of a chunk, B clips of a batch, T frames, Z the generator's noise; discriminators "image" (of
one frame of every clip) and "video" (of the clip).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from generative.gan import anneal
from generative.losses import logits_and_slopes, rpgan_discriminator_loss, rpgan_generator_loss
from harness import data
from harness.learner import Lanes, Learner, Metrics, State
from harness.spec import LearnerConfig, PerLaneFloat, Score
from nets.ema import ema_update
from nets.lanes import Work, call, grad_and_value, keep, module_of
from nets.optim import adam, adam_init
from nets.registry import build

__all__ = ["VideoGAN", "VideoGANConfig"]

UPDATES = 10  # of one chunk
CRITICS = ("image", "video")
SECONDS = {"moving-shapes": 2.3e-3, "moving-digits": 5e-3}  # a clip, on one core of a 2-core machine


class VideoGANConfig(LearnerConfig):
    """A generator of clips, a discriminator of frames and one of clips."""

    data: Literal["moving-shapes", "moving-digits"] = Field("moving-shapes", description="data set")
    images: int = Field(128_000, ge=1, description="real clips shown to the discriminators (rounded up to whole chunks)")
    batch: int = Field(64, ge=1, description="clips of one update")
    content_features: int = Field(16, ge=1, description="width of the noise that decides what is seen, one a clip")
    motion_features: int = Field(16, ge=1, description="width of the motion code, the recurrent network's state")
    noise_features: int = Field(2, ge=1, description="width of the noise that each frame adds to the motion")
    hidden_features: int = Field(16, ge=1, description="channels of the image generator before its last layer")
    image_features: int = Field(32, ge=1, description="channels of the image discriminator's first layer")
    video_features: int = Field(16, ge=1, description="channels of the video discriminator's first layer")
    lr_g: PerLaneFloat = Field(2e-3, ge=0, description="the generator's learning rate at the start")
    lr_d: PerLaneFloat = Field(2e-3, ge=0, description="the discriminators' learning rate at the start")
    lr_end: float = Field(0.05, ge=0, le=1, description="learning rates at the end, as a share of those at the start")
    gamma_image: PerLaneFloat = Field(1.0, ge=0, description="weight of R1 and R2 on frames at the start")
    gamma_video: PerLaneFloat = Field(1.0, ge=0, description="weight of R1 and R2 on clips at the start")
    gamma_end: float = Field(0.1, ge=0, le=1, description="both weights at the end, as a share of those at the start")
    beta1: float = Field(0.0, ge=0, lt=1, description="Adam's decay of the gradient's mean")
    beta2: float = Field(0.9, ge=0, lt=1, description="Adam's decay of the gradient's square at the start")
    beta2_end: float = Field(0.99, ge=0, lt=1, description="Adam's decay of the gradient's square at the end")
    ema_half_life: float = Field(
        5_000, gt=0, description="clips after which the average generator has forgotten half of a former one"
    )

    @property
    def chunk(self) -> int:
        """Clips of one chunk."""
        return UPDATES * self.batch

    @property
    def budget(self) -> int:
        """Clips to show, whole chunks."""
        return math.ceil(self.images / self.chunk) * self.chunk

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The data set."""
        return (self.data,)

    @property
    def seconds_per_progress(self) -> float:
        """Measured for default sizes."""
        return SECONDS[self.data]


def frames_of(clips: Tensor, index: Tensor) -> Tensor:
    """One frame of every clip: [B, T, C, H, W] and int64 [B] to [B, C, H, W]."""
    return torch.take_along_dim(clips, index[:, None, None, None, None], 1).squeeze(1)


class VideoGAN(Learner):
    """K generators of clips, each with its own discriminators and its own real clips."""

    Config = VideoGANConfig
    unit = "images"
    score = Score("frechet", "min", worst=1e6)

    def start(self, lanes: Lanes) -> State:
        """Networks, average generators and optimisers at progress 0."""
        self.lanes = lanes
        config: VideoGANConfig = lanes.config
        self.chunk = config.chunk
        self.hyper = {name: lanes.per_lane(name) for name in config.per_lane_fields()}
        self.card = data.card(config.data)
        frames, *self.image = self.card.shape
        self.latent = config.content_features + config.motion_features + frames * config.noise_features
        execution = lanes.execution
        self.g_net, g, _ = execution.stack(self._generator, lanes.init_seeds("video-gan/generator"))
        self.d_nets, params = {}, {"g": g, "ema": {name: p.clone() for name, p in g.items()}}
        for name in CRITICS:
            seeds = lanes.init_seeds(f"video-gan/{name}")
            self.d_nets[name], params[name], _ = execution.stack(lambda of=name: self._critic(of), seeds)
        self._update_each = execution.each(self._update)
        self._sample_each = execution.each(lambda params, z: call(self.g_net, params, {}, z)[0], rare=True)
        progress = torch.zeros(len(lanes), dtype=torch.int64, device=execution.device)
        return {
            "progress": progress,
            "alive": torch.ones_like(progress, dtype=torch.bool),
            "params": params,
            "optimiser": {name: adam_init(params[name], lanes=len(lanes)) for name in ("g", *CRITICS)},
        }

    def advance(self, state: State) -> Metrics:
        """One chunk: U times the discriminators, then the generator, on B clips each."""
        lanes, config = self.lanes, self.lanes.config
        progress = int(state["progress"][0])
        real, index = self._real(progress)  # [K, U, B, T, C, H, W], [K, U, 4, B]
        z = lanes.noise("video-gan/latent", progress, (UPDATES, 2, config.batch, self.latent))
        totals: dict[str, Tensor] = {}
        for u in range(UPDATES):
            hp = self._hyperparameters(progress + u * config.batch)
            old = {name: state[name] for name in ("params", "optimiser")}
            new, metrics = self._update_each(old, hp, state["alive"], real[:, u], z[:, u], index[:, u])
            state.update(new)
            totals = {name: totals.get(name, 0) + value / UPDATES for name, value in metrics.items()}
        state["progress"] = state["progress"] + self.chunk
        return totals

    def network(self, state: State, lane: int) -> nn.Module:
        """The average generator: noise [B, Z] to clips [B, T, C, H, W] with pixels in [-1, 1]."""
        return module_of(self._generator, state["params"]["ema"], {}, lane)

    def companions(self, state: State, lane: int) -> dict[str, nn.Module]:
        """The discriminators: frames [B, C, H, W], or clips [B, T, C, H, W], in [-1, 1] to logits [B, 1]."""
        return {name: module_of(lambda of=name: self._critic(of), state["params"][name], {}, lane) for name in CRITICS}

    def sample(self, state: State, count: int, purpose: str = "evaluate") -> Tensor:
        """Clips of the average generators, [K, count, T, C, H, W] in [0, 1]."""
        z = self.lanes.noise(f"video-gan/{purpose}", 0, (count, self.latent))
        return ((self._sample_each(state["params"]["ema"], z) + 1) / 2).clamp(0, 1)

    @classmethod
    def work(cls, config: VideoGANConfig, lanes: int) -> Work:
        """What a cohort costs, for choosing how it is executed."""
        return Work(config.seconds_per_progress * config.budget * lanes, 120.0, speedup=1.3, loop_on_cpu=True)

    # Functions of one trial

    def _generator(self) -> nn.Module:
        c: VideoGANConfig = self.lanes.config
        frame = {"kind": "dcgan-generator", "norm": "layer", "hidden_features": c.hidden_features}
        widths = {name: getattr(c, name) for name in ("motion_features", "noise_features")}
        return build({"kind": "mocogan-generator", "frame": frame, **widths}, self.latent, self.card.shape)

    def _critic(self, name: str) -> nn.Module:
        c: VideoGANConfig = self.lanes.config
        logit = {"kind": "linear", "out_features": 1, "bias": False}  # the losses see differences of logits only
        if name == "image":
            return build({"kind": "dcgan", "norm": "none", "hidden_features": c.image_features}, self.image, logit)
        strided = {"depth": 2, "first_stride": 2, "pool": "none", "factorised": False, "activation": "leaky_relu"}
        video = {"kind": "video-cnn", "norm": "none", "hidden_features": c.video_features, **strided}
        return build(video, self.card.shape, logit)

    def _update(self, old: Any, hp: Any, alive: Tensor, real: Tensor, z: Tensor, index: Tensor) -> Any:
        """One step of either discriminator, one of the generator, one of the average: (weights, metrics).

        Args:
            old: parameters and optimisers.
            hp: values of this update.
            alive: whether this lane goes on.
            real: [B, T, C, H, W].
            z: [2, B, Z], for the discriminators and for the generator.
            index: int64 [4, B], the frames that the image discriminator sees: real and generated, in either step.
        """
        params, optimiser = dict(old["params"]), dict(old["optimiser"])
        metrics: dict[str, Tensor] = {}

        def generate(g: Any, z: Tensor) -> Tensor:
            return call(self.g_net, g, {}, z)[0]

        def views(clips: Tensor, index: Tensor) -> dict[str, Tensor]:
            return {"image": frames_of(clips, index), "video": clips}

        def critic(name: str, d: Any, x: Tensor) -> Tensor:
            return call(self.d_nets[name], d, {}, x)[0].squeeze(-1)

        def d_loss(d: Any, name: str, x: Tensor) -> Any:
            logits, slopes = logits_and_slopes(lambda x: critic(name, d, x), x)
            (on_real, on_fake), (r1, r2) = logits.chunk(2), (s.mean() for s in slopes.chunk(2))
            loss = rpgan_discriminator_loss(on_real, on_fake)
            seen = {"loss": loss, "r1": r1, "r2": r2, "margin": (on_real - on_fake).mean()}
            return loss + 0.5 * hp[f"gamma_{name}"] * (r1 + r2), {f"{name}_{key}": v for key, v in seen.items()}

        def g_loss(g: Any) -> Tensor:
            losses = []
            fakes = views(generate(g, z[1]), index[3])
            for name, x in views(real, index[2]).items():
                on_real, on_fake = critic(name, params[name], torch.cat([x, fakes[name]])).chunk(2)
                losses.append(rpgan_generator_loss(on_real, on_fake))
            return torch.stack(losses).sum()

        betas = (hp["beta1"], hp["beta2"])
        fakes = views(generate(params["g"], z[0]), index[1])
        for name, x in views(real, index[0]).items():
            rows = torch.cat([x, fakes[name]])
            grads, (_, seen) = grad_and_value(d_loss, has_aux=True)(params[name], name, rows)
            params[name], optimiser[name] = adam(params[name], grads, optimiser[name], hp["lr_d"], *betas)
            metrics |= seen
        grads, metrics["g_loss"] = grad_and_value(g_loss)(params["g"])
        params["g"], optimiser["g"] = adam(params["g"], grads, optimiser["g"], hp["lr_g"], *betas)
        params["ema"] = ema_update(params["ema"], params["g"], hp["ema"])
        return keep(alive, {"params": params, "optimiser": optimiser}, old), metrics

    # Schedules and data

    def _hyperparameters(self, seen: int) -> dict[str, Tensor]:
        """Per-lane values [K] after `seen` clips."""
        c: VideoGANConfig = self.lanes.config
        done = seen / c.budget
        lr, gamma = anneal(1.0, c.lr_end, done), anneal(1.0, c.gamma_end, done)
        half_life = min(c.ema_half_life, 0.05 * seen + 1e-8)
        shared = {
            "beta1": c.beta1,
            "beta2": anneal(c.beta2, c.beta2_end, done),
            "ema": 0.5 ** (c.batch / half_life),
        }
        factors = {"lr_g": lr, "lr_d": lr, "gamma_image": gamma, "gamma_video": gamma}
        hp = {name: self.hyper[name] * factor for name, factor in factors.items()}
        return hp | {name: torch.full_like(hp["lr_g"], value) for name, value in shared.items()}

    def _real(self, progress: int) -> tuple[Tensor, Tensor]:
        """Real clips of one chunk, [K, U, B, T, C, H, W] in [-1, 1], drawn afresh, and the frames to look at."""
        shape = (UPDATES, self.lanes.config.batch)
        clips = [data.draw(self.card.name, rng, shape) for rng in self.lanes.generators("video-gan/real", progress)]
        rngs = self.lanes.generators("video-gan/frames", progress)
        index = [rng.integers(0, self.card.shape[0], (UPDATES, 4, shape[1])) for rng in rngs]
        tensor = self.lanes.execution.tensor
        return tensor(2 * np.stack(clips) - 1), tensor(np.stack(index))
