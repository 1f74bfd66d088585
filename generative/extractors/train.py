"""Trains an extractor and writes its weights (float16) and its card: `python -m generative.extractors.train NAME`.

One thread, so that the same versions on the same machine give the same bits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import nn

from generative.accuracy_score import RESNET, accuracy, fit_classifier, tensors
from generative.extractors import FOLDER, Extractor, features
from harness import data
from nets import export

__all__ = ["RECIPES", "command", "publish", "train"]

RECIPES: dict[str, dict[str, Any]] = {
    "digits_cnn": {"data": "digits", "updates": 1200},
    "mnist_cnn": {"data": "mnist-5k", "updates": 700},
    "fashion_cnn": {"data": "fashion-mnist", "updates": 3400, "shift": 0, "flip": True},
}


def train(name: str, folder: Path = FOLDER, **changes: Any) -> dict[str, Any]:
    """Trains, writes `<name>.safetensors` and `<name>.json`, and returns the card.

    Args:
        name: one of RECIPES.
        folder: where the two files go.
        changes: fields of the recipe that differ.
    """
    recipe = {**RECIPES[name], **changes}
    about = data.card(recipe.pop("data"))
    splits = data.load(about.name)
    began = time.process_time()
    net = fit_classifier(*tensors(splits["train"]), about.classes, **recipe)

    def measured(kept: Any) -> dict[str, Any]:
        x, y = tensors(splits["test"])
        return {
            "kind": about.kind,
            "data": about.name,
            "data_sha256": about.sha256,
            "features": features(Extractor(kept), x[:1]).shape[1],
            "net": recipe.pop("net", RESNET),
            "recipe": recipe,
            "validation_accuracy": round(accuracy(kept, *tensors(splits["validation"])), 4),
            "test_accuracy": round(accuracy(kept, x, y), 4),
            "test_rows": len(x),
            "command": f"python -m generative.extractors.train {name}",
        }

    return publish(name, folder, net, measured, began)


def publish(
    name: str, folder: Path, net: nn.Module, measured: Callable[[Any], dict[str, Any]], began: float
) -> dict[str, Any]:
    """Writes `<name>.safetensors` (float16) and `<name>.json`, and returns the card.

    Args:
        name: of the extractor.
        folder: where the two files go.
        net: of `nets.registry.build`, trained.
        measured: the card's own part, of the network whose weights are rounded.
        began: `time.process_time()` before training.
    """
    weights = folder / f"{name}.safetensors"
    export.save(net.half(), weights)
    card = {
        "name": name,
        **measured(export.load(weights).float().eval()),
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "bytes": weights.stat().st_size,
        "cpu_seconds": round(time.process_time() - began),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }
    (folder / f"{name}.json").write_text(json.dumps(card, indent=2) + "\n")
    return card


def command(recipes: Mapping[str, Any], make: Callable[[str], dict[str, Any]], description: str | None) -> None:
    """The command line of a module that trains extractors: a name, on one thread; prints the card."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("name", choices=sorted(recipes))
    torch.set_num_threads(1)
    print(json.dumps(make(parser.parse_args().name), indent=2))


if __name__ == "__main__":
    command(RECIPES, train, __doc__)
