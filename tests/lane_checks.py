"""What must hold for a learner's lanes (docs/design.md, "Write for one, run for many"), as functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from harness.learner import Lanes, Learner, State
from nets.lanes import Execution

__all__ = ["differences", "start", "train"]


def start(
    learner_class: type[Learner], configs: Sequence[Any], seeds: Sequence[int], mode: str = "eager"
) -> tuple[Learner, State]:
    """A learner and its state at progress 0, in float64."""
    learner = learner_class()
    lanes = Lanes(tuple(configs), tuple(seeds), Execution(mode, dtype=torch.float64))  # type: ignore[arg-type]
    return learner, learner.start(lanes)


def train(
    learner_class: type[Learner],
    configs: Sequence[Any],
    seeds: Sequence[int],
    updates: int = 20,
    mode: str = "eager",
) -> tuple[Learner, State]:
    """A learner and its state after at least that many updates of `config.batch` rows."""
    learner, state = start(learner_class, configs, seeds, mode)
    while int(state["progress"][0]) < updates * configs[0].batch:
        learner.advance(state)
    return learner, state


def differences(a: Any, b: Any, lanes_a: Sequence[int], lanes_b: Sequence[int]) -> float:
    """The largest absolute difference between lanes of two states (nested dicts); NaN equals NaN."""
    if isinstance(a, dict):
        assert set(a) == set(b)
        return max((differences(a[name], b[name], lanes_a, lanes_b) for name in a), default=0.0)
    x, y = a[list(lanes_a)].double(), b[list(lanes_b)].double()
    return torch.where(x.isnan() & y.isnan(), 0.0, (x - y).abs()).max().item()
