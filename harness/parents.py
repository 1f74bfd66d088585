"""Trials that start from other trials: when they may start, and what they start from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from harness.spec import Trial
from harness.spec_errors import SpecError
from nets.transfer import read_weights

__all__ = ["check_parents", "divide", "encoders_of"]

NO_RESULT = ("failed", "diverged", "pruned")


def check_parents(trials: Iterable[Trial], states: Mapping[str, str], file: str) -> None:
    """Checks that every parent is a trial of this experiment or is done.

    Raises:
        SpecError: one is not.
    """
    trials = list(trials)
    own = {trial.id for trial in trials}
    for trial in trials:
        for parent in trial.parents:
            if parent not in own and states.get(parent) != "done":
                what = f"is {states[parent]}" if parent in states else "is not in this run root"
                mend = "give the id of a trial that is done, or trials.N for an entry above"
                raise SpecError(f"{file}: trials.{trial.entry}: encoder_from: trial {parent} {what}; {mend}")


def divide(due: Sequence[Trial], states: Mapping[str, str]) -> tuple[list[Trial], list[tuple[Trial, str]]]:
    """(trials whose parents are done, trials whose parents never will be and why); the others wait.

    Args:
        due: trials without a result.
        states: trial -> state, parents included.
    """
    waiting = {trial.id for trial in due}
    ready, orphans = [], []
    for trial in due:
        lost = [p for p in trial.parents if states.get(p) in NO_RESULT and p not in waiting]
        if lost:
            orphans.append((trial, f"trial {lost[0]}, whose encoder it starts from, is {states[lost[0]]}"))
        elif all(states.get(p) == "done" for p in trial.parents):
            ready.append(trial)
    return ready, orphans


def encoders_of(root: Path, trials: Sequence[Trial]) -> tuple[dict[str, Tensor] | None, ...]:
    """For every trial the weights of the network whose encoder it starts from, or None.

    A GAN's encoder is its discriminator's, which it keeps beside its generator.
    """
    found: list[dict[str, Tensor] | None] = []
    for trial in trials:
        folders = [root / "trials" / parent for parent in trial.parents]
        files = [f / name for f in folders for name in ("discriminator.safetensors", "best.safetensors")]
        there = next((file for file in files if file.is_file()), None)
        found.append(read_weights(there or files[-1]) if files else None)
    return tuple(found)
