"""GAN losses and gradient penalties: pure functions of one trial, by name, so that a loop holds no branch on them.

Papers: Goodfellow et al. 2014 (non-saturating); Miyato et al. 2018 (hinge); Arjovsky et al. 2017 and Gulrajani et al.
2017 (Wasserstein, its gradient penalty); Jolicoeur-Martineau 2019 (relativistic pairing); Mescheder et al. 2018 (R1,
R2); Huang et al. 2024 (R3GAN: pairing with R1 and R2).

Legend: B rows of a batch; D(x) logits of real rows, D(G(z)) of generated ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

__all__ = [
    "LOSSES",
    "PENALTIES",
    "Adversarial",
    "Judged",
    "logits_and_slopes",
    "rpgan_discriminator_loss",
    "rpgan_generator_loss",
]

Critic = Callable[[Tensor], tuple[Tensor, Any]]  # rows [B, ...] to (logits [B], the critic's new buffers)


def rpgan_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """softplus(-(D(x) - D(G(z)))), mean over pairs; log 2 where the discriminator cannot tell them apart.

    Args:
        real: logits of real rows [B].
        fake: logits of generated rows [B], paired with the real ones.
    """
    return softplus(fake - real).mean()


def rpgan_generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """softplus(-(D(G(z)) - D(x))), mean over pairs. Arguments as for `rpgan_discriminator_loss`."""
    return softplus(real - fake).mean()


@dataclass(frozen=True)
class Adversarial:
    """The two losses of a game; both are functions of the logits (real [B], fake [B]) and give a mean.

    Attributes:
        discriminator: to be minimised by the discriminator.
        generator: to be minimised by the generator; one that does not look at real rows also takes none of them [0].
        paired: whether the generator's loss looks at real rows.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    paired: bool = False


LOSSES: dict[str, Adversarial] = {
    "rpgan": Adversarial(rpgan_discriminator_loss, rpgan_generator_loss, paired=True),
    # -log D(x) - log(1 - D(G(z))) with D = sigmoid(logit); the generator maximises log D(G(z))
    "non-saturating": Adversarial(
        lambda real, fake: softplus(-real).mean() + softplus(fake).mean(), lambda _, fake: softplus(-fake).mean()
    ),
    "hinge": Adversarial(
        lambda real, fake: relu(1 - real).mean() + relu(1 + fake).mean(), lambda _, fake: -fake.mean()
    ),
    "wasserstein": Adversarial(lambda real, fake: fake.mean() - real.mean(), lambda _, fake: -fake.mean()),
}


def logits_and_slopes(critic: Critic, x: Tensor) -> tuple[Tensor, Tensor, Any]:
    """Logits [B], squared slopes |grad_x D(x)|^2 [B], summed over a row's features, and the critic's new buffers.

    The slopes' mean over real rows is R1, over generated ones R2; both enter the loss with weight gamma / 2.
    They are differentiable again, so a gradient with respect to the critic's parameters goes through logits
    and slopes.

    Args:
        critic: [B, ...] to ([B], buffers); rows must not influence each other's logit.
        x: [B, ...].
    """
    pulled: Any = torch.func.vjp(critic, x, has_aux=True)  # typed as if it gave two results
    logits, pull, buffers = pulled
    (slope,) = pull(torch.ones_like(logits))
    return logits, slope.square().flatten(1).sum(-1), buffers


class Judged(NamedTuple):
    """What a discriminator's step knows of a batch.

    Attributes:
        real: logits of the real rows [B].
        fake: logits of the generated rows [B].
        buffers: the critic's new ones.
        penalty: 0-dim; the loss takes gamma times it.
        metrics: of the penalty, for the log.
    """

    real: Tensor
    fake: Tensor
    buffers: Any
    penalty: Tensor
    metrics: dict[str, Tensor]


def unpenalised(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Judged:
    """Logits alone; real and generated rows pass one after the other, so that a batch norm never mixes them."""
    (on_real, _), (on_fake, buffers) = critic(real), critic(fake)
    return Judged(on_real, on_fake, buffers, on_real.new_zeros(()), {})


def r1(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Judged:
    """R1: half the mean squared slope at real rows (Mescheder et al. 2018, equation 9)."""
    on_real, slopes, _ = logits_and_slopes(critic, real)
    on_fake, buffers = critic(fake)
    return Judged(on_real, on_fake, buffers, 0.5 * slopes.mean(), {"r1": slopes.mean()})


def r1_r2(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Judged:
    """R1 and R2: half the mean squared slopes at real and at generated rows (Huang et al. 2024)."""
    logits, slopes, buffers = logits_and_slopes(critic, torch.cat([real, fake]))
    (on_real, on_fake), (at_real, at_fake) = logits.chunk(2), (s.mean() for s in slopes.chunk(2))
    return Judged(on_real, on_fake, buffers, 0.5 * (at_real + at_fake), {"r1": at_real, "r2": at_fake})


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Judged:
    """WGAN-GP: mean (|slope| - 1)^2 between real and generated rows (Gulrajani et al. 2017, equation 3)."""
    share = mix.reshape(-1, *(1,) * (real.dim() - 1))
    _, slopes, _ = logits_and_slopes(critic, share * real + (1 - share) * fake)
    on_real, _ = critic(real)
    on_fake, buffers = critic(fake)
    penalty = ((slopes + 1e-12).sqrt() - 1).square().mean()  # a slope of 0 has no derivative
    return Judged(on_real, on_fake, buffers, penalty, {"gradient_penalty": penalty})


PENALTIES: dict[str, Callable[[Critic, Tensor, Tensor, Tensor], Judged]] = {
    "none": unpenalised,
    "r1": r1,
    "r1+r2": r1_r2,
    "gradient-penalty": gradient_penalty,
}
"""By name: functions of (critic, real rows, generated rows [B, ...], shares [B] in [0, 1) for mixing them)."""
