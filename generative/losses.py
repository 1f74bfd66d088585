"""GAN losses of one trial: relativistic pairing with gradient penalties on real and generated rows (R3GAN).

Papers: Jolicoeur-Martineau 2019 (relativistic pairing); Mescheder et al. 2018 (R1, R2); Huang et al. 2024
(R3GAN).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["logits_and_slopes", "rpgan_discriminator_loss", "rpgan_generator_loss"]


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


def logits_and_slopes(critic: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [B] and squared slopes |grad_x D(x)|^2 [B], summed over a row's features.

    The slopes' mean over real rows is R1, over generated ones R2; both enter the loss with weight gamma / 2.
    They are differentiable again, so a gradient with respect to the critic's parameters goes through logits
    and slopes.

    Args:
        critic: [B, ...] to [B]; rows must not influence each other's logit.
        x: [B, ...].
    """
    logits, pull, *_ = torch.func.vjp(critic, x)
    (slope,) = pull(torch.ones_like(logits))
    return logits, slope.square().flatten(1).sum(-1)
