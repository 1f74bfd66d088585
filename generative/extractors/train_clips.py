"""Trains a classifier of clips or of frames as an extractor: `python -m generative.extractors.train_clips NAME`.

Every update sees clips drawn afresh. A clip's classifier is convolutional over space and time, its logits are the
contents, then the motions; a frame's sees one frame of every clip, its logits are the contents.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from generative.extractors import FOLDER
from generative.extractors.train import command, publish
from harness import data
from harness.data.moving import CLIPS
from harness.randomness import generator, torch_seed
from nets.registry import build

__all__ = ["RECIPES", "train"]

BATCH = 64
CLIP = {"kind": "video-cnn", "hidden_features": 16, "first_stride": 2, "factorised": False, "norm": "batch"}
FRAME = {"kind": "resnet", "hidden_features": [8, 16, 32], "depth": 1}
RECIPES: dict[str, dict[str, Any]] = {
    "moving_shapes_clip": {"data": "moving-shapes", "updates": 600, "net": CLIP},
    "moving_shapes_frame": {"data": "moving-shapes", "updates": 400, "net": FRAME},
    "moving_digits_clip": {"data": "moving-digits", "updates": 2000, "net": CLIP},
    "moving_digits_frame": {"data": "moving-digits", "updates": 2000, "net": FRAME},
}


def fit(name: str, of_frames: bool, net: nn.Module, updates: int, lr: float = 3e-3) -> None:
    """AdamW with a cosine to 0 on content and, of whole clips, motion."""
    what = CLIPS[name]
    optimiser = torch.optim.AdamW(net.parameters(), lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    for update in range(updates):
        rng = generator(0, "extractors/clips", update)
        rows = data.draw_rows(name, rng, (BATCH,))
        x, truth = inputs(rows.x, of_frames, rng.integers(0, what.shape[0], BATCH)), answers(name, rows.y)
        logits = net(x).tensor_split([len(what.contents)], -1)
        pairs = [(guess, y) for guess, y in zip(logits, truth, strict=True) if guess.shape[1]]
        optimiser.zero_grad()
        torch.stack([functional.cross_entropy(guess, y) for guess, y in pairs]).sum().backward()
        optimiser.step()
        schedule.step()


def inputs(clips: Any, of_frames: bool, index: Any) -> Tensor:
    """Clips in [-1, 1], or of each the frame `index`."""
    return torch.as_tensor(2 * (clips[range(len(clips)), index] if of_frames else clips) - 1)


def answers(name: str, labels: Any) -> tuple[Tensor, Tensor]:
    """Contents and motions of labels, int64 [N] each."""
    y = torch.tensor(labels)
    motions = len(CLIPS[name].motions)
    return y // motions, y % motions


@torch.no_grad()
def accuracies(name: str, of_frames: bool, net: nn.Module, split: str) -> dict[str, float]:
    """Accuracy of content, and of motion for whole clips, on a split (of its frames, one of each clip)."""
    rows, what = data.load(name)[split], CLIPS[name]
    x = inputs(rows.x, of_frames, [i % what.shape[0] for i in range(len(rows))])
    logits = torch.cat([net(chunk) for chunk in x.split(200)]).tensor_split([len(what.contents)], -1)
    pairs = zip(("content", "motion"), logits, answers(name, rows.y), strict=True)
    return {part: round((g.argmax(-1) == y).double().mean().item(), 4) for part, g, y in pairs if g.shape[1]}


def train(name: str, folder: Path = FOLDER, **changes: Any) -> dict[str, Any]:
    """Trains, writes `<name>.safetensors` (float16) and `<name>.json`, and returns the card.

    Args:
        name: one of RECIPES.
        folder: where the two files go.
        changes: fields of the recipe that differ.
    """
    recipe = {**RECIPES[name], **changes}
    about, of_frames = data.card(recipe["data"]), name.endswith("_frame")
    what = CLIPS[about.name]
    began = time.process_time()
    torch.manual_seed(torch_seed(0, f"extractors/{name}"))
    outputs = len(what.contents) + (0 if of_frames else len(what.motions))
    net = build(recipe["net"], about.shape[1:] if of_frames else about.shape, outputs)
    fit(about.name, of_frames, net, recipe["updates"])

    def measured(kept: Any) -> dict[str, Any]:
        return {
            "kind": "frames" if of_frames else "video",
            "data": about.name,
            "data_sha256": about.sha256,
            "features": kept.encoder.out_features,
            "net": recipe["net"],
            "recipe": {"updates": recipe["updates"], "batch": BATCH},
            "validation_accuracy": accuracies(about.name, of_frames, kept, "validation"),
            "test_accuracy": accuracies(about.name, of_frames, kept, "test"),
            "test_rows": about.rows["test"],
            "command": f"python -m generative.extractors.train_clips {name}",
        }

    return publish(name, folder, net, measured, began)


if __name__ == "__main__":
    command(RECIPES, train, __doc__)
