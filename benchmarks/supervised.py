"""Classifiers beside plain PyTorch loops and Lightning, in CPU seconds of one thread, interleaved in one process.

`python -m benchmarks.supervised [--quick] [--json]`

For a CNN, a GRU, an LSTM and a transformer on Fashion-MNIST (`make data`), rows of 64, AdamW and cross-entropy on all
sides:
- `cnn_over_bare`, `cnn_over_lightning`, ...: seconds of one update, ours (one lane) over those of the loop, and over
  those of `lightning.Trainer` (left out, and said, where the package is missing; its start-up does not count).
- `gru_over_torch`, `lstm_over_torch`: the same over a loop with `torch.nn.GRU`, `torch.nn.LSTM` instead of our layers.
- `cnn_share`, ...: of a whole run through the driver, with evaluations and checkpoints, the share outside the learner.
For small networks on digits, 8 seeds as lanes (compiled, compiling left out and stated) beside eight such loops:
- `mlp_cohort`, `gru_cohort`: seconds of the eight loops over those of the cohort.
And for three networks on Fashion-MNIST, one lane:
- `cnn_bfloat16`, ...: seconds of one update with `precision: bfloat16` over those in 32 bits.
"""

from __future__ import annotations

import importlib.util
import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.common import finish, note, parse, share_outside
from benchmarks.gan import interleaved
from benchmarks.recurrent import TORCHS

BATCH, SEEDS, LR = 64, 8, 1e-3
LARGE: dict[str, dict[str, Any]] = {
    "cnn": {"kind": "cnn", "hidden_features": 16, "depth": 3},
    "gru": {"kind": "gru", "hidden_features": 128},
    "lstm": {"kind": "lstm", "hidden_features": 128},
    "transformer": {"kind": "vit", "patch": 7, "hidden_features": 64, "depth": 2},
}
SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"kind": "mlp", "hidden_features": 64, "depth": 2},
    "gru": {"kind": "gru", "hidden_features": 32},
}
NARROWED: dict[str, dict[str, Any]] = {
    "cnn": {"kind": "cnn", "hidden_features": 20, "depth": 3, "pool": "max", "norm": "batch"},
    "resnet": {"kind": "resnet", "hidden_features": [16, 64, 128], "depth": 1},
    "transformer": LARGE["transformer"],
}
PLAIN: dict[str, Any] = {
    "batch": BATCH, "lr": LR, "schedule": "constant", "warmup": 0.0, "augment": [], "label_smoothing": 0.0,
    "weight_decay": 0.01,
}  # fmt: skip


def rows(name: str) -> tuple[Tensor, Tensor]:
    """Training rows as networks see them, and their classes."""
    from harness import data
    from supervised.training import as_networks_see

    train = data.load(name)["train"]
    x, y = train.x, train.y
    return torch.from_numpy(as_networks_see(data.card(name), x).astype(np.float32)), torch.tensor(y)


def network(name: str, net: dict[str, Any]) -> nn.Module:
    """The same network that the learner builds."""
    from harness import data
    from nets.registry import build

    card = data.card(name)
    return build(net, card.shape, card.classes)


class ByTorch(nn.Module):
    """A classifier of an image's rows with torch's own recurrent layer."""

    def __init__(self, layers: nn.RNNBase, classes: int) -> None:
        super().__init__()
        self.layers, self.head = layers, nn.Linear(layers.hidden_size, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W] or [B, 1, H, W] to [B, classes]."""
        outputs, _ = self.layers(x.reshape(len(x), -1, x.shape[-1]))
        return self.head(outputs[:, -1])


class Loop:
    """One classifier as anybody would write it."""

    def __init__(self, name: str, net: dict[str, Any], by_torch: bool = False) -> None:
        (self.x, self.y), self.net = rows(name), network(name, net)
        if by_torch:
            layers = TORCHS[net["kind"]](self.x.shape[-1], net["hidden_features"], batch_first=True)
            self.net = ByTorch(layers, int(self.y.max()) + 1)
        self.optimiser = torch.optim.AdamW(self.net.parameters(), LR)
        self.order, self.place = torch.randperm(len(self.x)), 0

    def step(self) -> None:
        """One update."""
        if self.place + BATCH > len(self.x):
            self.order, self.place = torch.randperm(len(self.x)), 0
        index = self.order[self.place : self.place + BATCH]
        self.place += BATCH
        output = self.net(self.x[index])
        loss = cross_entropy(output, self.y[index])
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()


class Ours:
    """The learner, chunk by chunk."""

    def __init__(self, name: str, net: dict[str, Any], seeds: int, mode: Any, **fields: Any) -> None:
        from harness.learner import Lanes
        from nets.lanes import Execution
        from supervised.classifier import Classifier

        config = Classifier.Config(data=name, net=net, epochs=1000, **PLAIN, **fields)
        self.learner = Classifier()
        self.updates = config.updates_of_a_chunk
        self.state = self.learner.start(Lanes((config,) * seeds, tuple(range(seeds)), Execution(mode)))
        began = time.process_time()
        self.learner.advance(self.state)
        self.first = time.process_time() - began

    def step(self) -> None:
        """One chunk."""
        self.learner.advance(self.state)


def lightning_side(name: str, net: dict[str, Any]) -> Callable[[int], float]:
    """CPU seconds of one update of Lightning's trainer, mean over so many of them, after the first."""
    import lightning
    from torch.utils.data import DataLoader, TensorDataset

    warnings.filterwarnings("ignore", module="lightning")
    for quiet in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(quiet).setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.clock = network(name, net), [0.0, 0.0]

        def training_step(self, batch: Any, index: int) -> Tensor:
            return cross_entropy(self.net(batch[0]), batch[1])

        def on_train_batch_end(self, *given: Any) -> None:
            self.clock[self.trainer.global_step > 1] = time.process_time()

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), LR)

    loader, module = DataLoader(TensorDataset(*rows(name)), BATCH, shuffle=True), Module()

    def run(updates: int) -> float:
        quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
        trainer = lightning.Trainer(
            max_steps=updates + 1, accelerator="cpu", devices=1, enable_model_summary=False, **quiet
        )
        trainer.fit(module, loader)
        return (module.clock[1] - module.clock[0]) / updates

    return run


def large(kind: str, rounds: int, times: int) -> dict[str, float]:
    """Seconds of one update of each side, medians over rounds."""
    ours, loop = Ours("fashion-mnist", LARGE[kind], 1, "loop"), Loop("fashion-mnist", LARGE[kind])
    fused = Ours("fashion-mnist", LARGE[kind], 1, "loop", optimiser="adamw-fused")
    sides = {
        "ours": (ours.step, times), "fused": (fused.step, times), "bare": (loop.step, times * ours.updates),
    }  # fmt: skip
    if kind in TORCHS:
        sides["torch"] = (Loop("fashion-mnist", LARGE[kind], by_torch=True).step, times * ours.updates)
    if importlib.util.find_spec("lightning") is None:
        note("lightning is not installed (pip install lightning): its side is left out")
        found = interleaved(sides, rounds)
    else:
        fit, taken = lightning_side("fashion-mnist", LARGE[kind]), []
        parts = []
        for _ in range(rounds):
            parts.append(interleaved(sides, 1))
            taken.append(fit(times * ours.updates))
        found = {name: float(np.median([part[name] for part in parts])) for name in sides}
        found["lightning"] = float(np.median(taken))
        note(f"lightning {1e3 * found['lightning']:.2f} ms an update")
    return found | {name: found[name] / ours.updates for name in ("ours", "fused")}


def one_run(kind: str, updates: int) -> str:
    """The experiment file of one large network."""
    net = ", ".join(f"{key}: {value}" for key, value in LARGE[kind].items())
    entry = f"learner: classifier, data: fashion-mnist, updates: {updates}, resources: {{mode: loop}}"
    return f"name: one\ntrials: [{{{entry}, net: {{{net}}}}}]\n"


def cohort(kind: str, rounds: int, times: int) -> tuple[float, float]:
    """(eight loops over eight lanes, CPU seconds of the first chunk with compiling)."""
    ours, loop = Ours("digits", SMALL[kind], SEEDS, "compiled"), Loop("digits", SMALL[kind])
    found = interleaved({"ours": (ours.step, times), "bare": (loop.step, times * ours.updates)}, rounds)
    return SEEDS * ours.updates * found["bare"] / found["ours"], ours.first


def sixteen_bits(kind: str, rounds: int, times: int) -> float:
    """An update in bfloat16 over one in float32."""
    sides = {
        precision: (Ours("fashion-mnist", NARROWED[kind], 1, "loop", precision=precision).step, times)
        for precision in ("float32", "bfloat16")
    }
    found = interleaved(sides, rounds)
    return found["bfloat16"] / found["float32"]


def main() -> None:
    """Measures all sides in turn."""
    from supervised.classifier import Classifier

    options = parse("supervised", __doc__)
    torch.set_num_threads(1)
    rounds, times, updates = (3, 1, 300) if options.quick else (7, 4, 2000)
    ratios: dict[str, float] = {}
    details: dict[str, Any] = {"compile_seconds": {}, "seconds": {}}
    for kind in LARGE:
        note(f"{kind}:")
        found = details["seconds"][kind] = large(kind, rounds, times)
        for peer in ("bare", "torch", "lightning"):
            if peer in found:
                ratios[f"{kind}_over_{peer}"] = found["ours"] / found[peer]
                ratios[f"{kind}_fused_over_{peer}"] = found["fused"] / found[peer]
        ratios[f"{kind}_share"] = share_outside(Classifier, one_run(kind, updates))
    for kind in SMALL:
        note(f"{SEEDS} small {kind}s:")
        ratios[f"{kind}_cohort"], details["compile_seconds"][kind] = cohort(kind, rounds, 4 * times)
    for kind in NARROWED:
        note(f"{kind} in 16 bits:")
        ratios[f"{kind}_bfloat16"] = sixteen_bits(kind, rounds, times)
    finish("supervised", ratios, details, options)


if __name__ == "__main__":
    main()
