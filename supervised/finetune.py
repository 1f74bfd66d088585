"""A pretrained network on a new task, in seven ways that one grid compares: `learner: finetune`.

Papers: Devlin et al. 2019 (all weights), Howard & Ruder 2018 (rates by layer, gradual unfreezing), Hu et al. 2021
(LoRA), Dettmers et al. 2023 (adapters in every linear layer). The task follows from the data: texts with classes, the
next token of a text, images with classes.

    full       all weights are trained             layerwise  the same, slower the nearer a layer is to the input
    head       the trunk stays as it was read      gradual    one layer more, from the head down, every few updates
    lora       adapters and head                   scratch    control: all weights, random at first
                                                   random     control: a new head on a trunk that stays random

Deliberate differences: rates fall linearly to 0 in every way (Howard & Ruder's triangle is steeper); a new head has a
rate of its own; layers that are frozen keep their batch norm's moments (a random trunk's are those of the training
rows); a trunk that stays frozen is run once, without its dropout.

State: the network and torch's AdamW; what is saved are trained parameters, buffers and the optimiser. Dropout is seeded
from (seed, progress) at every update, so that on a CPU a resumed run equals an uninterrupted one bit for bit.

Legend: N rows of a split, B rows of a batch, T tokens, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from harness import data
from harness.learner import LaneError, Lanes, Learner, Media, Metrics, State
from harness.randomness import generator, torch_seed
from harness.spec import Score
from nets import lora
from nets.schedules import linear, warmup
from nets.transfer import freeze, layers, unfreeze, unfreeze_top
from supervised import finetune_rows, measures
from supervised.controls import text_controls
from supervised.finetune_config import FROZEN, RANDOM, FinetuneConfig, PretrainedConfig
from supervised.finetune_models import find
from supervised.finetune_nets import build, calibrate, tokenizer
from supervised.finetune_rows import Split

__all__ = ["Finetune", "FinetuneConfig", "prepare", "rated"]

SHOWN = 8  # mistakes
CONTINUED = 24  # tokens of a continuation


def prepare(net: nn.Module, config: FinetuneConfig, seed: int) -> None:
    """Freezes what the way leaves alone, and puts adapters in where it says so; `seed` is theirs."""
    if config.way in FROZEN:
        freeze(net, ["trunk"])
    elif config.way == "gradual":
        unfreeze_top(net, 1)
    elif config.way == "lora":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            lora.adapt(net, config.adapt, config.rank, config.alpha)
        if config.task != "language":
            unfreeze(net, ["head"])


def rated(net: nn.Module, config: FinetuneConfig) -> list[dict[str, Any]]:
    """Groups of torch's optimiser: the trainable parameters layer by layer, the last layer first, each with its "rate".

    With rates by layer the trunk's last layer has `lr`, the one before it `rate_decay` times that, and so on.
    """
    decay = config.rate_decay if config.way == "layerwise" else 1.0
    parameters, found, depth = dict(net.named_parameters()), [], 0
    for names in reversed(layers(net)):
        head = names[0].startswith("head.")
        trained = [parameters[name] for name in names if parameters[name].requires_grad]
        if trained:
            found.append({"params": trained, "rate": config.head_lr if head else config.lr * decay**depth})
        depth += not head
    return found


class Finetune(Learner):
    """One pretrained network; K = 1."""

    Config: ClassVar[type[PretrainedConfig]] = FinetuneConfig
    unit = "rows"
    score = Score("test_accuracy", "max", worst=0.0, select="val_accuracy")
    foreign = True
    version = 2  # batch norms of random trunks have moments of their own

    @classmethod
    def score_of(cls, config: FinetuneConfig) -> Score:
        """Accuracy; for a text the loss of the next token."""
        if config.task == "language":
            return Score("test_loss", "min", worst=100.0, select="val_loss", select_direction="min")
        return cls.score

    @classmethod
    def rows_to_share(cls, config: FinetuneConfig) -> int:
        """Rows of a batch."""
        return config.batch

    def start(self, lanes: Lanes) -> State:
        """The network as its way begins, rows in its own tokens, an optimiser of what is trained."""
        self.lanes, self.chunk, self.seed = lanes, lanes.config.batch, lanes.seeds[0]
        config: FinetuneConfig = lanes.config
        source, self.task = find(config.model), config.task
        self.tokenizer = None if self.task == "images" else tokenizer(source)
        self.rows, self.classes = self.read(config)
        pairs = data.pairs(config.data) if self.task == "texts" else {}
        self.texts = [text for text, _ in pairs.get("test", ())]
        self.controls = text_controls(pairs["train"][: len(self.rows["train"].y)], pairs["test"]) if pairs else {}
        seed = torch_seed(self.seed, "finetune/init")
        pretrained = config.way not in RANDOM
        net = build(source, self.task, len(self.classes), config.side, pretrained, seed)
        self.net: Any = net.to(lanes.execution.device, lanes.execution.dtype)
        self.forward: Any = self.net
        self.untouched = float(self._judged("test")[0].mean()) if self.task == "language" else math.nan
        prepare(self.net, config, seed)
        if config.way == "random":
            batches = self.rows["train"].x.split(config.batch)
            calibrate(self.net, lambda rows: self.net.features(rows.to(lanes.execution.device)), batches)
        if config.way in FROZEN:  # its trunk is a function that never changes: one pass over the rows is enough
            self.rows = {s: Split(self._run(self.net.features, rows.x), rows.y) for s, rows in self.rows.items()}
            self.forward = self.net.head
        self.optimiser = torch.optim.AdamW(rated(self.net, config), lr=0.0, weight_decay=config.weight_decay)
        return {"progress": torch.zeros(1, dtype=torch.int64)}

    def advance(self, state: State) -> Metrics:
        """One update on B rows."""
        config: FinetuneConfig = self.lanes.config
        progress = int(state["progress"][0])
        gang = self.lanes.gang
        self._thaw(progress)
        x, y = (gang.part(rows, 0) for rows in self._batch(progress))
        _train(self.net)
        with self._seeded(progress + gang.rank):
            logits = self.forward(x)
        loss = functional.cross_entropy(logits.flatten(0, -2), y.flatten())
        right = (logits.argmax(-1) == y).double().mean()
        self.optimiser.zero_grad()
        loss.backward()
        loss, right = self._together(loss.detach(), right)
        if not loss.isfinite():
            raise LaneError((0,), f"the loss is {loss.item()}")
        trained = [p for group in self.optimiser.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(trained, config.clip)
        done = (progress + config.batch / 2) / config.budget
        for group in self.optimiser.param_groups:
            group["lr"] = warmup(config.warm_up, linear)(group["rate"], done)
        self.optimiser.step()
        state["progress"] = state["progress"] + self.chunk
        found = {"loss": loss, "accuracy": right, "grad_norm": norm}
        return {name: value.double().reshape(1).cpu() for name, value in found.items()}

    def evaluate(self, state: State) -> Metrics:
        """Loss and accuracy on held-out rows; macro F1 of classes; for a text what a token and a character cost."""
        scores: dict[str, float] = {}
        for split, name in (("validation", "val"), ("test", "test")):
            losses, guess, y = self._judged(split)
            scores |= {f"{name}_loss": float(losses.mean()), f"{name}_accuracy": float((guess == y).double().mean())}
        if self.task == "language":
            test = self.rows["test"]
            bits = scores["test_loss"] * test.y.numel() / math.log(2)
            scores |= {"test_perplexity": math.exp(scores["test_loss"]), "untouched_test_loss": self.untouched}
            scores["test_bits_per_character"] = bits / test.characters
        else:
            scores["test_f1"] = float(measures.macro_f1(measures.confusion(guess, y, len(self.classes))))
            scores |= self.controls
        return {name: torch.tensor([value], dtype=torch.float64) for name, value in scores.items()}

    def network(self, state: State, lane: int) -> nn.Module:
        """An ordinary network, adapters merged: tokens (or images with pixels in [0, 1]) to logits."""
        return lora.merged(self.net).cpu()

    def companions(self, state: State, lane: int) -> dict[str, nn.Module]:
        """What LoRA has trained, alone: its adapters and the head."""
        if self.lanes.config.way != "lora":
            return {}
        kept = nn.ParameterDict({name.replace(".", "/"): p for name, p in self._trained().items()})
        return {"adapters": kept}

    def media(self, state: State, lane: int) -> dict[str, Media]:
        """Classes: who is taken for whom, and the worst mistakes in words; a text: how test rows go on."""
        if self.task == "language":
            return {"continued": self._continued()}
        losses, guess, y = self._judged("test")
        found = {
            "confusion": Media(
                kind="matrix",
                data=measures.confusion(guess, y, len(self.classes)).long().numpy(),
                labels=self.classes,
                caption=f"{len(y)} held-out rows: rows are the truth, columns the prediction",
            )
        }
        if self.task == "texts":
            found["mistakes"] = self._mistakes(losses, guess, y)
        return found

    def save(self, state: State) -> Any:
        """Trained parameters, buffers and the optimiser; what is frozen comes from the model's own files again."""
        return {
            "progress": int(state["progress"][0]),
            "params": {name: p.detach() for name, p in self._trained().items()},
            "buffers": dict(self.net.named_buffers()),
            "optimiser": self.optimiser.state_dict(),
        }

    def load(self, tree: Any) -> State:
        """Takes back what `save` gave."""
        self._thaw(max(tree["progress"] - self.chunk, 0))  # as far as the update before it had come
        own = {**dict(self.net.named_parameters()), **dict(self.net.named_buffers())}
        with torch.no_grad():
            for name, value in {**tree["params"], **tree["buffers"]}.items():
                own[name].copy_(value)
        self.optimiser.load_state_dict(tree["optimiser"])
        return {"progress": torch.tensor([tree["progress"]], dtype=torch.int64)}

    # Parts

    def read(self, config: Any) -> tuple[dict[str, Split], tuple[str, ...]]:
        """The splits as the network takes them, and the names of the classes."""
        most = {"train": config.train_rows, "validation": config.held_rows, "test": config.held_rows}
        limits = {split: rows or 2**40 for split, rows in most.items()}
        if self.task == "language":
            return finetune_rows.language(config.data, self.tokenizer, config.length, limits), ()
        if self.task == "images":
            splits, classes = finetune_rows.images(config.data, config.train_rows)
        elif self.task == "texts":
            splits, classes = finetune_rows.texts(config.data, self.tokenizer, config.length)
        else:
            splits, classes = finetune_rows.pairs(config.data, self.tokenizer, config.length), ()
        return {s: Split(rows.x[: limits[s]], rows.y[: limits[s]]) for s, rows in splits.items()}, classes

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.net.named_parameters() if p.requires_grad}

    def _together(self, *measured: Tensor) -> tuple[Tensor, ...]:
        """Means over the workers that train together: of gradients and buffers in place, of what was measured."""
        if self.lanes.gang.size > 1:
            own = {n: p.grad for n, p in self._trained().items() if p.grad is not None}
            buffers = dict(self.net.named_buffers())
            measured, grads, means = self.lanes.gang.mean((measured, own, buffers))
            for target, mean in ((own, grads), (buffers, means)):
                for name, value in mean.items():
                    target[name].copy_(value)
        return measured

    def _thaw(self, progress: int) -> None:
        """Gradual: one layer more, from the head down, for every `unfreeze_every` updates that are done."""
        config: FinetuneConfig = self.lanes.config
        if config.way == "gradual":
            unfreeze_top(self.net, 1 + progress // (config.batch * config.unfreeze_every))
            for group in rated(self.net, config)[len(self.optimiser.param_groups) :]:
                self.optimiser.add_param_group(group)

    def _batch(self, progress: int) -> tuple[Tensor, Tensor]:
        """B rows: an epoch is a permutation, and batches run on from one epoch into the next."""
        rows = self.rows["train"]
        n = len(rows.y)
        epochs = range(progress // n, (progress + self.chunk - 1) // n + 1)
        order = np.concatenate([generator(self.seed, "finetune/rows", e).permutation(n) for e in epochs])
        index = order[progress - epochs[0] * n :][: self.chunk]
        device = self.lanes.execution.device
        return rows.x[index].to(device), rows.y[index].to(device)

    def _judged(self, split: str) -> tuple[Tensor, Tensor, Tensor]:
        """(losses, guesses, truth) of a split's rows, or of all their tokens; on the CPU."""
        rows, losses, guesses = self.rows[split], [], []
        for x, y in zip(rows.x.split(self.chunk), rows.y.split(self.chunk), strict=True):
            logits = self._run(self.forward, x).flatten(0, -2)
            losses.append(functional.cross_entropy(logits, y.flatten(), reduction="none").double())
            guesses.append(logits.argmax(-1))
        return torch.cat(losses), torch.cat(guesses), rows.y.flatten()

    def _run(self, function: Any, x: Tensor) -> Tensor:
        """What a part of the network makes of rows, in batches, without training it; on the CPU."""
        self.net.eval()
        with torch.no_grad():
            batches = [function(part.to(self.lanes.execution.device)).cpu() for part in x.split(self.chunk)]
        return torch.cat(batches)

    @contextmanager
    def _seeded(self, progress: int) -> Iterator[None]:
        """Inside, dropout draws from (seed, progress)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(self.seed, "finetune/dropout", progress))
            yield

    def _mistakes(self, losses: Tensor, guess: Tensor, y: Tensor) -> Media:
        """The texts with the largest losses among those that are taken for another class."""
        wrong = [i for i in losses.argsort(descending=True).tolist() if guess[i] != y[i]][:SHOWN]
        lines = [f"{self.classes[guess[i]]} for {self.classes[y[i]]}: {self.texts[i]}" for i in wrong]
        return Media("text", np.array(lines, dtype=str), caption="The worst mistakes: prediction, truth, the text")

    def _continued(self) -> Media:
        """The likeliest tokens, one by one, after the first half of two test rows."""
        tokenizer: Any = self.tokenizer
        rows = self.rows["test"].x[:2]
        half = rows.shape[1] // 2
        text = rows[:, :half]
        for _ in range(CONTINUED):
            text = torch.cat([text, self._run(self.net, text)[:, -1:].argmax(-1)], 1)
        made = np.array([f"{tokenizer.decode(t[:half])} [...] {tokenizer.decode(t[half:])}" for t in text])
        true = np.array([tokenizer.decode(t) for t in rows])
        return Media("text", made, reference=true, caption="After [...]: the likeliest words; beside it the text")


def _train(net: nn.Module) -> None:
    """Training mode, but for batch norms that are frozen: their moments belong to their weights."""
    net.train()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.weight.requires_grad:
            module.eval()
