"""Our GPT beside a bare training loop: the same split, windows, width and minutes of CPU, by turns in one run.

`python -m benchmarks.language_model [--minutes 15] [--quick] [--json]`. First the two take turns, sixteen updates each,
which gives `updates_ratio`: ours a second over those of the loop (1 or more: not slower). Then each is trained for as
many updates as fit into the minutes, again by turns, its learning rate falling over its own updates; `loss_gap` is the
loss of ours on held-out plays - that of the loop (0 or less: not above). Times are CPU seconds of all threads, so that
what else runs on the machine weighs little.

The loop is written as nanoGPT's (Karpathy 2022): 4 layers, width 128, 4 heads, block 64, 12 windows, learned places,
torch's fused attention and AdamW (1e-3, betas 0.9 and 0.99, decay 0.1 of matrices, clipped at 1), 5 % warm-up, cosine.
On a CPU nanoGPT takes torch's plain AdamW; `fused_ratio` is the speed beside a loop with the fused one.
Ours is the learner `language-model` as it comes, which has the same network.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.common import finish, note, parser
from harness import data
from harness.learner import Lanes
from nets.lanes import Execution
from supervised.language_model import LanguageModel, LanguageModelConfig, windows

__all__ = ["Bare", "Ours", "PlainGPT"]

WIDTH, DEPTH, HEADS, BLOCK, BATCH, TURN = 128, 4, 4, 64, 12, 16


class PlainBlock(nn.Module):
    """Attention and a perceptron, norms first."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, WIDTH] to the same shape."""
        q, k, v = (p.unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in self.qkv(self.norms[0](x)).chunk(3, -1))
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.norms[1](x))))


class PlainGPT(nn.Module):
    """Tokens [B, T] to logits [B, T, V]."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, WIDTH), nn.Embedding(BLOCK, WIDTH)
        self.blocks, self.norm = nn.ModuleList(PlainBlock() for _ in range(DEPTH)), nn.LayerNorm(WIDTH)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                last = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / (math.sqrt(2 * DEPTH) if last else 1))
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of every next token."""
        h = self.tokens(x) + self.places.weight[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        return self.norm(h) @ self.tokens.weight.T


class Bare:
    """The loop."""

    def __init__(self, updates: int, seed: int, fused: bool = False) -> None:
        torch.manual_seed(seed)
        self.stream = torch.from_numpy(data.tokens("shakespeare")["train"].copy())
        self.net, self.rng = PlainGPT(data.card("shakespeare").classes), np.random.default_rng(seed)
        parts = [[p for p in self.net.parameters() if (p.dim() > 1) is matrix] for matrix in (True, False)]
        groups = [{"params": p, "weight_decay": w} for p, w in zip(parts, (0.1, 0.0), strict=True)]
        self.optimiser = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=fused)
        self.updates, self.done = updates, 0

    def turn(self) -> None:
        """TURN updates."""
        for _ in range(TURN):
            first = torch.from_numpy(self.rng.integers(len(self.stream) - BLOCK, size=BATCH))
            index = first[:, None] + torch.arange(BLOCK)
            rate = min(1.0, (self.done + 1) / (0.05 * self.updates))
            rate *= 0.5 * (1 + math.cos(math.pi * min(self.done / self.updates, 1)))
            for group in self.optimiser.param_groups:
                group["lr"] = 1e-3 * rate
            logits = self.net(self.stream[index])
            loss = functional.cross_entropy(logits.flatten(0, 1), self.stream[index + 1].flatten())
            self.optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimiser.step()
            self.done += 1

    def loss(self) -> float:
        """On held-out plays."""
        return held_out(self.net)


class Ours:
    """The learner, one lane."""

    def __init__(self, updates: int, seed: int) -> None:
        config = LanguageModelConfig(updates=updates, batch=BATCH, length=BLOCK)
        self.learner = LanguageModel()
        self.state = self.learner.start(Lanes((config,), (seed,), Execution("loop")))
        self.updates, self.done = config.budget // BATCH, 0

    def turn(self) -> None:
        """TURN updates."""
        for _ in range(TURN // self.learner.lanes.config.updates_of_a_chunk):
            self.learner.advance(self.state)
        self.done += TURN

    def loss(self) -> float:
        """On held-out plays."""
        return held_out(self.learner.network(self.state, 0).eval())


@torch.no_grad()
def held_out(net: nn.Module) -> float:
    """Nats a character on the windows that the learner's own evaluation reads."""
    x, y = (torch.from_numpy(a) for a in windows(data.tokens("shakespeare")["test"], BLOCK, 1000))
    parts = zip(x.split(100), y.split(100), strict=True)
    nats = [functional.cross_entropy(net(a).flatten(0, 1), b.flatten(), reduction="sum") for a, b in parts]
    return float(torch.stack(nats).sum() / y.numel())


def seconds(action: Callable[[], None]) -> float:
    """CPU seconds of an action."""
    began = time.process_time()
    action()
    return time.process_time() - began


def trained(minutes: float, paces: dict[str, float], seed: int) -> dict[str, dict[str, Any]]:
    """Both, by turns, each for the updates that its pace (seconds an update) gives it."""
    runs: dict[str, Bare | Ours] = {}
    for name, kind in (("bare", Bare), ("ours", Ours)):
        runs[name] = kind(max(round(60 * minutes / paces[name] / TURN), 1) * TURN, seed)
    spent = dict.fromkeys(runs, 0.0)
    while any(run.done < run.updates for run in runs.values()):
        for name, run in runs.items():
            if run.done < run.updates:
                spent[name] += seconds(run.turn)
    return {n: {"updates": r.done, "minutes": spent[n] / 60, "loss": r.loss()} for n, r in runs.items()}


def main() -> None:
    """Speed, then loss."""
    options = parser("language_model", __doc__)
    options.add_argument("--minutes", type=float, default=15.0, help="of CPU, to train each")
    options.add_argument("--seeds", type=int, default=1, help="how many")
    args = options.parse_args()
    turns: list[Any] = [Bare(10_000, 0), Ours(10_000, 0), Bare(10_000, 0, fused=True)]
    for run in turns:
        run.turn()  # to warm up
    pairs = [[seconds(run.turn) for run in turns] for _ in range(4 if args.quick else 12)]
    bare, ours, _ = (median(times) / TURN for times in zip(*pairs, strict=True))
    ratios = {"updates_ratio": median(b / o for b, o, _ in pairs), "fused_ratio": median(f / o for _, o, f in pairs)}
    note(f"an update: bare {1e3 * bare:.1f} ms, ours {1e3 * ours:.1f} ms")
    minutes = min(args.minutes, 1.0) if args.quick else args.minutes
    rows = [trained(minutes, {"bare": bare, "ours": ours}, seed) for seed in range(args.seeds)]
    gap = sum(row["ours"]["loss"] - row["bare"]["loss"] for row in rows) / len(rows)
    finish("language_model", {**ratios, "loss_gap": gap}, {"seconds": [bare, ours], "runs": rows}, args)


if __name__ == "__main__":
    main()
