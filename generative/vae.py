"""A variational autoencoder on any encoder and any generator of `nets`.

Papers: Kingma & Welling 2014 (the bound and its gradient); Higgins et al. 2017 (beta); Rybkin, Daniilidis & Levine
2021 (the Gaussian's standard deviation is learned); Burda, Grosse & Salakhutdinov 2016 (importance-weighted bound,
active units).
Deliberate differences: an average of the weights is what is evaluated; Bernoulli pixels may be grey (their likelihood
is then no density, but its optimum is the mean); samples are the likelihood's means, without its noise.

Legend: K lanes, U updates of a chunk, B rows of a batch, N samples, S draws a row, x rows, z latent, y the decoder's
output: rows in the range of `nets`' generators, pixels in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from generative.generator import Generator, GeneratorConfig
from generative.pictures import grid
from harness import data
from harness.blocks import block_config, check_builds, check_generates
from harness.learner import Lanes, Media, Metrics, State, select
from harness.spec import PerLaneFloat, Recipe
from nets.ema import ema_update
from nets.lanes import Work, call, grad_and_value, keep, module_of
from nets.optim import adam, adam_init
from nets.registry import build
from nets.schedules import cosine

__all__ = ["VAE", "VAEConfig", "active_units", "bernoulli_nll", "gaussian_kl", "gaussian_nll", "importance_bound"]

ACTIVE = 0.01  # variance of a latent feature's mean over rows, above which it is active (Burda et al. 2016)
HELD_OUT = 500  # rows on which the bounds are evaluated
SHOWN = 64  # reconstructions
DRAWS = 16  # of the importance-weighted bound
SHRINK = 1 - 1e-4  # keeps Bernoulli's logits within 10
PERCEPTRONS = {"mlp", "residual-mlp", "mlp-generator"}  # what gains from lanes on a CPU

PICTURES: dict[str, Any] = {  # fields of which images have another default than points
    "encoder": {"kind": "dcgan", "hidden_features": 32},
    "decoder": {"kind": "dcgan-generator", "hidden_features": 32},
    "latent_features": 32,
    "likelihood": "bernoulli",
    "lr": 1e-3,
}
TINY: dict[str, Any] = {  # and those of 8 x 8 pixels yet another
    "encoder": {"kind": "mlp", "hidden_features": 256, "depth": 2},
    "decoder": {"kind": "mlp-generator", "hidden_features": 256, "depth": 2},
    "latent_features": 16,
    "lr": 2e-3,
}
WIDE = {"hidden_features": 64, "depth": 3, "activation": "silu"}

if TYPE_CHECKING:
    EncoderNet = Any
    DecoderNet = Any
else:
    EncoderNet = block_config("encoder", "mlp", {"mlp": WIDE})
    DecoderNet = block_config("generator", "mlp-generator", {"mlp-generator": WIDE})


class VAEConfig(GeneratorConfig):
    """An encoder, a decoder and the likelihood between them."""

    defaults: ClassVar = {
        **dict.fromkeys(data.names("images"), PICTURES),
        **{name: {**PICTURES, **TINY} for name in ("digits", "stacked-digits")},
    }

    encoder: EncoderNet = Field(
        default_factory=dict, validate_default=True, description="rows to latents: an encoder's kind and its fields"
    )
    decoder: DecoderNet = Field(
        default_factory=dict, validate_default=True, description="latents to rows: a generator's kind and its fields"
    )
    latent_features: int = Field(2, ge=1, description="width of the latent")
    likelihood: Literal["bernoulli", "gaussian"] = Field(
        "gaussian", description="of a feature, given the latent; a Gaussian's standard deviation is learned"
    )
    beta: PerLaneFloat = Field(1.0, ge=0, description="weight of the KL divergence; 1 gives the bound itself")
    lr: PerLaneFloat = Field(4e-3, ge=0, description="learning rate at the start; it falls to 0 along a cosine")
    ema_half_life: float = Field(
        20_000, gt=0, description="images after which the average networks have forgotten half of former ones"
    )

    @property
    def encoder_recipe(self) -> Recipe:
        """The encoder; its outputs are means and log variances."""
        return Recipe(self.encoder.model_dump(), self.card.shape, 2 * self.latent_features)

    @property
    def decoder_fields(self) -> tuple[dict[str, Any], int, tuple[int, ...]]:
        """The decoder as `nets.registry.build` takes it: told the class if conditional; a tanh for pixels alone."""
        fields = self.decoder.model_dump() | {"classes": self.classes}
        if "bounded" in fields:
            fields["bounded"] = self.card.kind != "points"
        return fields, self.latent_features, self.card.shape

    @property
    def seconds_per_progress(self) -> float:
        """Measured on one busy core of two at default widths."""
        return 1e-4 if {self.encoder.kind, self.decoder.kind} <= PERCEPTRONS else 1e-3

    @model_validator(mode="after")
    def _can_be_built(self) -> VAEConfig:
        if self.likelihood == "bernoulli" and self.card.kind == "points":
            raise ValueError("likelihood: points are no probabilities; take gaussian")
        if self.decoder.classes:
            raise ValueError("decoder.classes: say conditional: true instead; the data set knows its labels")
        for name, check in (
            ("encoder", lambda: check_builds(self.encoder, self.card.shape, 2 * self.latent_features)),
            ("decoder", lambda: check_generates(*self.decoder_fields)),
        ):
            try:
                check()
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return self


# Functions of the papers


def gaussian_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, e^log_var) || N(0, 1)), summed over latents (Kingma & Welling, appendix B): [..., Z] to [...]."""
    return 0.5 * (mean.square() + log_var.exp() - log_var - 1).sum(-1)


def bernoulli_nll(y: Tensor, x: Tensor) -> Tensor:
    """-log p(x | y), summed over features: [B, ...] to [B], in nats.

    Args:
        y: 2 p - 1, in [-1, 1], as a generator with a tanh gives it.
        x: in [-1, 1] too, grey allowed.
    """
    logits = 2 * torch.atanh(SHRINK * y)
    return (functional.softplus(logits) - 0.5 * (x + 1) * logits).flatten(1).sum(1)


def gaussian_nll(y: Tensor, x: Tensor, log_std: Tensor) -> Tensor:
    """-log N(x; y, e^(2 log_std)), summed over features: [B, ...] to [B], in nats."""
    squares = ((x - y) * (-log_std).exp()).square()
    return (0.5 * squares + log_std + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def importance_bound(log_weights: Tensor) -> Tensor:
    """log of the mean weight p(x, z) / q(z | x) over draws (Burda et al., equation 8): [S, ...] to [...]."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def active_units(means: Tensor) -> Tensor:
    """How many latent features' means differ between rows (Burda et al., section 5.2): [B, Z] to 0-dim."""
    return (means.var(0) > ACTIVE).to(means.dtype).sum()


class VAE(Generator):
    """K autoencoders, each trained on its own rows and noise."""

    Config = VAEConfig
    latent = True

    def start(self, lanes: Lanes) -> State:
        """Networks, average networks and optimisers at progress 0."""
        self.begin(lanes)
        config: VAEConfig = lanes.config
        held, tensor = data.load(config.data)["test"], lanes.execution.tensor
        x, y = tensor(held.x[:HELD_OUT].copy()), tensor(held.y[:HELD_OUT].copy())
        self._held = (x if self.card.kind == "points" else 2 * x - 1), y
        stack = lanes.execution.stack
        self.encoder, *encoder = stack(lambda: build(*config.encoder_recipe), lanes.init_seeds("vae/encoder"))
        self.decoder, *decoder = stack(lambda: build(*config.decoder_fields), lanes.init_seeds("vae/decoder"))
        params, buffers = (joined(e, d) for e, d in zip(encoder, decoder, strict=True))
        if config.likelihood == "gaussian":
            params["log_std"] = torch.zeros_like(self.hyper["lr"])
        each = lanes.execution.each
        self._update_each = each(self._update)
        self._decode_each = each(lambda *inputs: self._decode(*inputs)[0], rare=True)
        self._bounds_each = each(self._bounds, in_dims=(0, 0, None, None, 0), rare=True)
        self._reconstruct_each = each(self._reconstruct, in_dims=(0, 0, None, None), rare=True)
        return {
            **self.counters(),
            "params": {"net": params, "ema": {name: p.clone() for name, p in params.items()}},
            "buffers": buffers,
            "optimiser": adam_init(params, lanes=len(lanes)),
        }

    def advance(self, state: State) -> Metrics:
        """One chunk: U updates on B rows each."""
        lanes, config = self.lanes, self.lanes.config
        progress = int(state["progress"][0])
        x, labels = self.real("vae/real", progress, (config.updates, config.batch))  # [K, U, B, *row], [K, U, B]
        noise = lanes.noise("vae/noise", progress, (config.updates, config.batch, config.latent_features))
        keys = lanes.keys("vae/dropout", progress, 2 * config.updates).unflatten(1, (-1, 2))
        batches = {"x": x, "labels": labels, "noise": noise, "keys": keys}
        totals: dict[str, Tensor] = {}
        for u in range(config.updates):
            hp = self._hyperparameters(progress + u * config.batch)
            weights = {name: state[name] for name in ("params", "buffers", "optimiser")}
            batch = {name: t[:, u] for name, t in batches.items()}
            new, metrics = self._update_each(weights, hp, state["alive"], batch)
            state.update(new)
            totals = {name: totals.get(name, 0) + value / config.updates for name, value in metrics.items()}
        state["progress"] = state["progress"] + self.chunk
        return totals

    def sample(self, state: State, count: int, purpose: str = "evaluate") -> Tensor:
        """Means of the likelihood for latents from the prior, in the data's own range, [K, N, *row]."""
        z = self.lanes.noise(f"vae/{purpose}", 0, (count, self.lanes.config.latent_features))
        return self.made(state, z, self.labels(count))

    def made(self, state: State, codes: Tensor, labels: Tensor) -> Tensor:
        """Means of the likelihood for these codes."""
        parts = zip(codes.split(HELD_OUT, 1), labels.expand(len(codes), -1).split(HELD_OUT, 1), strict=True)
        average = state["params"]["ema"], state["buffers"]
        return self.in_data_range(torch.cat([self._decode_each(*average, *part) for part in parts], 1))

    def evaluate(self, state: State) -> Metrics:
        """The scores of all generators, and of held-out rows, in nats a row: the bound and its parts."""
        shape = (DRAWS, len(self._held[1]), self.lanes.config.latent_features)
        noise = self.lanes.noise("vae/bounds", 0, shape)
        bounds = self._bounds_each(state["params"]["ema"], state["buffers"], *self._held, noise)
        return {**super().evaluate(state), **bounds}

    def media(self, state: State, lane: int) -> dict[str, Media]:
        """Samples, and held-out rows as they come back through the latent's mean."""
        one, (x, labels) = select(state, [lane]), (t[:SHOWN] for t in self._held)
        back = self._reconstruct_each(one["params"]["ema"], one["buffers"], x, labels)[0]
        rows, real = (self.in_data_range(t).cpu().numpy() for t in (back, x))
        caption = f"{len(rows)} held-out rows as the average networks give them back, beside the rows themselves"
        kind: Any = "points" if self.card.kind == "points" else "image"
        drawn = (rows, real) if kind == "points" else (grid(rows), grid(real))
        return {**super().media(state, lane), "reconstructions": Media(kind, *drawn, caption=caption)}

    def network(self, state: State, lane: int) -> nn.Module:
        """The average decoder: latents [B, Z] to means of rows (images with pixels in [-1, 1])."""
        return self._part("decoder", state, lane)

    def companions(self, state: State, lane: int) -> dict[str, nn.Module]:
        """The average encoder: rows (images in [-1, 1]) to means and log variances [B, 2 Z]."""
        return {"encoder": self._part("encoder", state, lane)}

    @classmethod
    def work(cls, config: VAEConfig, lanes: int) -> Work:
        """What a cohort costs, for choosing how it is executed."""
        seconds = config.seconds_per_progress * config.budget * lanes
        plain = {config.encoder.kind, config.decoder.kind} <= PERCEPTRONS
        return Work(seconds, compile_seconds=60.0, speedup=2.0, loop_on_cpu=not plain)

    # Functions of one trial

    def _nll(self, params: Any, y: Tensor, x: Tensor) -> Tensor:
        return gaussian_nll(y, x, params["log_std"]) if "log_std" in params else bernoulli_nll(y, x)

    def _update(self, old: Any, hp: Any, alive: Tensor, batch: Any) -> Any:
        """One Adam step on the negative bound, one of the average: (weights, metrics)."""
        x, (e_key, d_key) = batch["x"], batch["keys"]

        def loss(params: Any) -> Any:
            (mean, log_var), seen = self._encode(params, old["buffers"], x, e_key)
            z = mean + (0.5 * log_var).exp() * batch["noise"]
            y, made = self._decode(params, old["buffers"], z, batch["labels"], d_key)
            nll, kl = self._nll(params, y, x).mean(), gaussian_kl(mean, log_var).mean()
            return nll + hp["beta"] * kl, (joined(seen, made), {"train_reconstruction": nll, "train_kl": kl})

        grads, (value, (buffers, parts)) = grad_and_value(loss, has_aux=True)(old["params"]["net"])
        params, optimiser = adam(old["params"]["net"], grads, old["optimiser"], hp["lr"])
        ema = ema_update(old["params"]["ema"], params, hp["ema"])
        new = {"params": {"net": params, "ema": ema}, "buffers": buffers, "optimiser": optimiser}
        return keep(alive, new, old), {"loss": value, **parts}

    def _bounds(self, params: Any, buffers: Any, x: Tensor, labels: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Means over held-out rows of both bounds, with S draws of noise [S, B, Z]."""
        (mean, log_var), _ = self._encode(params, buffers, x)
        nll, log_weights = [], []
        for eps in noise:
            z = mean + (0.5 * log_var).exp() * eps
            nll.append(self._nll(params, self._decode(params, buffers, z, labels)[0], x))
            log_weights.append(0.5 * (eps.square() + log_var - z.square()).sum(-1) - nll[-1])
        kl, reconstruction = gaussian_kl(mean, log_var).mean(), torch.stack(nll).mean()
        return {
            "elbo": -reconstruction - kl,
            "reconstruction": reconstruction,
            "kl": kl,
            "importance_bound": importance_bound(torch.stack(log_weights)).mean(),
            "active_units": active_units(mean),
        }

    def _reconstruct(self, params: Any, buffers: Any, x: Tensor, labels: Tensor) -> Tensor:
        (mean, _), _ = self._encode(params, buffers, x)
        return self._decode(params, buffers, mean, labels)[0]

    def _encode(self, params: Any, buffers: Any, x: Tensor, key: Tensor | None = None) -> Any:
        """((means, log variances) [B, Z] each, new buffers)."""
        weights = within(params, "encoder"), within(buffers, "encoder")
        output, seen = call(self.encoder, *weights, x, noise=key)
        return output.chunk(2, -1), seen

    def _decode(self, params: Any, buffers: Any, z: Tensor, labels: Tensor, key: Tensor | None = None) -> Any:
        """(rows as networks see them, new buffers)."""
        told = (labels,) if self.lanes.config.conditional else ()
        weights = within(params, "decoder"), within(buffers, "decoder")
        return call(self.decoder, *weights, z, *told, noise=key)

    # Schedules, scales, parts

    def _hyperparameters(self, seen: int) -> dict[str, Tensor]:
        """Per-lane values [K] after `seen` images."""
        config = self.lanes.config
        decay = 0.5 ** (config.batch / min(config.ema_half_life, 0.05 * seen + 1e-8))
        lr = cosine(self.hyper["lr"], seen / config.budget)
        return self.hyper | {"lr": lr, "ema": torch.full_like(lr, decay)}

    def _part(self, name: str, state: State, lane: int) -> nn.Module:
        config: VAEConfig = self.lanes.config
        fields: Any = config.encoder_recipe if name == "encoder" else config.decoder_fields
        weights = within(state["params"]["ema"], name), within(state["buffers"], name)
        return module_of(lambda: build(*fields), *weights, lane)


def joined(encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of both networks in one; `within` takes them apart."""
    parts = {"encoder": encoder, "decoder": decoder}
    return {f"{part}.{name}": t for part, weights in parts.items() for name, t in weights.items()}


def within(weights: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """The weights of "encoder" or "decoder", by their names within it."""
    prefix = f"{part}."
    return {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}
