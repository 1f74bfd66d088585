"""Our recurrent layers beside the scan that they are under vmap, and beside torch's own, in CPU seconds of one thread.

`python -m benchmarks.recurrent [--quick] [--json]`

One layer, one direction, float32, B sequences of T steps with F features and H features of the state, interleaved:
- `lstm_64x28x28x128_scan`, ...: seconds of forward and backward by the scan over those of an ordinary call.
- `..._torch`: those of an ordinary call over those of `torch.nn.LSTM` or `torch.nn.GRU`.
- `..._padded`: by the scan over an ordinary call where half of the sequences end in the middle and others
  later (LSTM, both directions).
- `..._scan_forward`: as `_scan`, without gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import finish, note, parse
from benchmarks.gan import interleaved
from nets.recurrent import Cell, Recurrent

SHAPES = ((64, 28, 28, 128), (8, 128, 4, 64), (1, 100, 8, 32), (64, 24, 128, 128), (32, 64, 128, 256))  # B, T, F, H
TORCHS: dict[Cell, Any] = {"lstm": nn.LSTM, "gru": nn.GRU}


def learning(net: nn.Module, x: Tensor, **flags: Tensor) -> Callable[[], None]:
    """Forward and backward once."""

    def step() -> None:
        net.zero_grad()
        net(x, **flags)[0].square().mean().backward()

    return step


def looking(net: nn.Module, x: Tensor, **flags: Tensor) -> Callable[[], None]:
    """Forward once, without gradients."""

    def step() -> None:
        with torch.no_grad():
            net(x, **flags)

    return step


def measured(cell: Cell, shape: tuple[int, int, int, int], rounds: int, times: int) -> dict[str, float]:
    """The ratios of one shape."""
    batch, steps, features, hidden = shape
    x, never = torch.randn(batch, steps, features), torch.zeros(batch, steps, dtype=torch.bool)
    net, torchs = Recurrent(features, hidden, cell), TORCHS[cell](features, hidden, batch_first=True)
    sides = {
        "ours": learning(net, x), "scan": learning(net, x, reset=never), "torch": learning(torchs, x),
        "look": looking(net, x), "scan_look": looking(net, x, reset=never),
    }  # fmt: skip
    if cell == "lstm":
        both = Recurrent(features, hidden, cell, bidirectional=True)
        lengths = torch.linspace(1, steps, batch).ceil().clamp(min=steps / 2)
        mask = torch.arange(steps) < lengths.unsqueeze(1)
        sides |= {"padded": learning(both, x, mask=mask), "padded_scan": learning(both, x, mask=mask, reset=never)}
    for step in sides.values():
        step()
    found = interleaved({name: (step, times) for name, step in sides.items()}, rounds)
    ratios = {
        "scan": found["scan"] / found["ours"],
        "torch": found["ours"] / found["torch"],
        "scan_forward": found["scan_look"] / found["look"],
    }
    return ratios | ({"padded": found["padded_scan"] / found["padded"]} if cell == "lstm" else {})


def main() -> None:
    """Measures all shapes in turn."""
    options = parse("recurrent", __doc__)
    torch.set_num_threads(1)
    ratios: dict[str, float] = {}
    for cell in TORCHS:
        for shape in SHAPES:
            name = f"{cell}_{'x'.join(map(str, shape))}"
            note(f"{name}:")
            found = measured(cell, shape, *((3, 2) if options.quick else (9, 4)))
            ratios |= {f"{name}_{side}": ratio for side, ratio in found.items()}
    finish("recurrent", ratios, {}, options)


if __name__ == "__main__":
    main()
