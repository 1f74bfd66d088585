"""Extractors: small classifiers, trained here, whose penultimate layer is what images are compared by.

A Frechet distance is nothing without the name of its extractor, so the name is part of the metric's
(`frechet_fashion_cnn`), and the weights are pinned by the sha256 in the card beside them. The numbers compare with one
another, never with those of another extractor. `python -m generative.extractors.train NAME` makes one anew.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nets import export

__all__ = ["FOLDER", "Extractor", "ExtractorError", "card", "extractor", "extractor_of", "features", "names"]

FOLDER = Path(__file__).parent
BATCH = 500  # rows that go through an extractor at once


class ExtractorError(Exception):
    """An extractor does not exist or its file is damaged; the text is the complete message."""


class Extractor(nn.Module):
    """A classifier cut before its head. Any module that takes [B, *shape] in [0, 1] and gives [B, F] may stand here.

    Args:
        net: a `nets.registry.Network`, an encoder and a head: images in [-1, 1] to logits.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net: Any = net.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, *shape] in [0, 1] to features [B, F]."""
        return self.net.encoder(2 * images - 1).flatten(1)

    def logits(self, features: Tensor) -> Tensor:
        """Features [B, F] to logits [B, C]."""
        return self.net.head(features)


def names() -> list[str]:
    """Names of all extractors that are shipped."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


@cache
def card(name: str) -> dict[str, Any]:
    """What an extractor is: "name", "data", "test_accuracy", "sha256", "command", "date" and more.

    Raises:
        ExtractorError: there is no such extractor.
    """
    if name not in names():
        raise ExtractorError(f"no extractor is called {name!r}; there are {', '.join(names()) or 'none'}")
    return json.loads((FOLDER / f"{name}.json").read_text())


@cache
def extractor(name: str) -> Extractor:
    """The extractor of that name, in float32 on the CPU.

    Raises:
        ExtractorError: there is no such extractor, or its weights are not those of its card.
    """
    path, pinned = FOLDER / f"{name}.safetensors", card(name)["sha256"]
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
    if found != pinned:
        raise ExtractorError(f"the weights of extractor {name!r} ({found}) are not those of its card ({pinned})")
    return Extractor(export.load(path).float())


def extractor_of(data: str) -> str | None:
    """The name of the extractor of images that was trained on a data set; None where there is none."""
    found = (name for name in names() if card(name)["data"] == data and card(name)["kind"] == "images")
    return next(found, None)


@torch.no_grad()
def features(module: nn.Module, rows: Tensor) -> Tensor:
    """Features float64 [N, F] of rows [N, *shape] in [0, 1], some at a time."""
    return torch.cat([module(chunk).flatten(1).double() for chunk in rows.float().split(BATCH)])
