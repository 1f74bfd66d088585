"""Whether one network can start from another's encoder: found out without memory, before either is trained."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from harness.spec import Recipe
from nets.registry import build
from nets.transfer import load_encoders

__all__ = ["check_encoder"]


def check_encoder(recipe: Recipe, source: Recipe | Mapping[str, Tensor]) -> None:
    """Gives a network without memory the encoder of another.

    Args:
        recipe: of the network.
        source: the other network's recipe, or its weights.

    Raises:
        ValueError: the encoder is not the network's own in every name and shape; one line says what differs first.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        net = build(*recipe)
        weights = build(*source).state_dict() if isinstance(source, Recipe) else source
        try:
            load_encoders(net, weights)
        except ValueError as error:
            differences = [line for line in str(error).splitlines() if line.startswith("  ")]
            raise ValueError(" ".join((differences or [str(error)])[0].split())) from None
