"""What must hold for a learner's lanes (docs/design.md, "Write for one, run for many"), as functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from harness.learner import Lanes, Learner, State, select
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


def differences(a: State, b: State, lanes_a: Sequence[int], lanes_b: Sequence[int]) -> float:
    """The largest absolute difference between lanes of two states; NaN equals NaN."""
    largest = 0.0
    leaves = (pytree.tree_leaves(select(state, lanes)) for state, lanes in ((a, lanes_a), (b, lanes_b)))
    for x, y in zip(*leaves, strict=True):
        gap = torch.where(x.double().isnan() & y.double().isnan(), 0.0, (x.double() - y.double()).abs())
        largest = max(largest, gap.max().item())
    return largest
