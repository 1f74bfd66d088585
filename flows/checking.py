"""Two checks before a long run: can the network learn one batch, and which learning rates train it?

Sources: Karpathy 2019, "A recipe for training neural networks" (overfit one batch); Smith 2017 (learning-rate range).
Deliberate difference: each rate trains a network of its own, all as lanes of one cohort, instead of one network whose
rate grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from flows.errors import UserError
from harness.experiment import load_experiment
from harness.learner import Lanes, Learner, State, learner_class
from harness.spec import Trial
from nets.lanes import Execution, resolve_device
from supervised.training import Supervised

__all__ = ["learning_rate_range", "one_batch"]

PLAIN = {  # what keeps a batch from being learnt by heart, or changes it
    "augment": (), "label_smoothing": 0.0, "mixup": 0.0, "weight_decay": 0.0, "l1": 0.0, "l2": 0.0,
    "encoder_from": "", "synthetic_from": "",
}  # fmt: skip
LEARNT = 0.05  # share of the loss at the start


def one_batch(file: Path, overrides: Sequence[str], updates: int, *, as_json: bool) -> int:
    """Trains every kind of supervised trial of a file on one batch; exit code 1 if one does not learn it.

    Raises:
        SpecError: the file is wrong.
        UserError: it has no supervised trial.
    """
    found = []
    for trial in _kinds(file, overrides):
        learner = learner_class(trial.learner)
        given: Any = learner.Config.model_validate(trial.config)
        changes = {name: value for name, value in PLAIN.items() if hasattr(given, name)}
        rows = max(min(given.batch, given.card.rows["train"]), given.card.classes)
        config = given.model_copy(update={**changes, "train_rows": rows, "batch": rows, "updates": updates})
        before, after = _trained(learner(), [config], trial.seed, config.budget)
        first, last = (float(metrics["loss"][0]) for metrics in (before, after))
        learnt = last < LEARNT * first
        found.append({"trial": trial.label, "rows": rows, "first": first, "last": last, "learnt": learnt})
    if as_json:
        _print_json({"trials": found})
    else:
        _table(("trial", "rows", "loss at first", "at last", "learnt"), [list(row.values()) for row in found])
    return 0 if all(row["learnt"] for row in found) else 1


def learning_rate_range(
    file: Path, overrides: Sequence[str], low: float, high: float, count: int, chunks: int, *, as_json: bool
) -> int:
    """Trains the first supervised trial of a file for some chunks at `count` rates, `low` to `high`, side by side.

    Raises:
        SpecError: the file is wrong.
        UserError: it has no supervised trial.
    """
    trial = _kinds(file, overrides)[0]
    learner = learner_class(trial.learner)
    given: Any = learner.Config.model_validate(trial.config)
    rates = [low * (high / low) ** (i / (count - 1)) for i in range(count)]
    configs = [given.model_copy(update={"lr": rate, "schedule": "constant", "warmup": 0.0}) for rate in rates]
    before, after = _trained(learner(), configs, trial.seed, chunks * given.chunk)
    lines = list(zip(rates, before["loss"].tolist(), after["loss"].tolist(), strict=True))
    finite = [line for line in lines if line[2] == line[2]]
    best = min(finite, key=lambda line: line[2])[0] if finite else None
    if as_json:
        rows = [{"lr": lr, "first": a, "last": b if b == b else None} for lr, a, b in lines]
        _print_json({"trial": trial.label, "rates": rows, "best": best})
    else:
        shown = [[f"{lr:.1e}", a, b, "lowest" if lr == best else ""] for lr, a, b in lines]
        _table(("learning rate", "loss at first", f"after {chunks} chunks", ""), shown)
    return 0


def _kinds(file: Path, overrides: Sequence[str]) -> list[Trial]:
    """The first trial of every label whose learner can learn from few rows alone, in the order of the file."""
    first: dict[str, Trial] = {}
    for trial in load_experiment(file, overrides).trials:
        learner = learner_class(trial.learner)
        if issubclass(learner, Supervised) and "train_rows" in learner.Config.model_fields:
            first.setdefault(trial.label, trial)
    if not first:
        raise UserError(f"{file}: no supervised trial in it; this check is for the learners classifier and regressor")
    return list(first.values())


def _trained(learner: Learner, configs: Sequence[Any], seed: int, budget: int) -> tuple[Any, Any]:
    """Metrics of the first and of the last chunk, each [K]; all lanes have the same seed."""
    torch.set_num_threads(1)
    lanes = Lanes(tuple(configs), (seed,) * len(configs), Execution(device=resolve_device("auto")))
    state: State = learner.start(lanes)
    first = last = learner.advance(state)
    while int(state["progress"][0]) < budget:
        last = learner.advance(state)
    return first, last


def _table(heading: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in heading:
        table.add_column(name)
    for row in rows:
        table.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else _word(cell) for cell in row))
    Console(highlight=False).print(table)


def _word(cell: Any) -> str:
    return ("yes" if cell else "no") if isinstance(cell, bool) else str(cell)


def _print_json(value: Any) -> None:
    from flows.cli import print_json

    print_json(value)
