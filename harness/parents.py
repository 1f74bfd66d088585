"""Trials that start from other trials: when they may start, and what they start from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from harness.encoders import check_encoder
from harness.learner import learner_class
from harness.runfolder import check_network
from harness.spec import Trial
from harness.spec_errors import SpecError
from nets.export import load
from nets.transfer import read_weights

__all__ = ["check_parents", "divide", "encoders_of", "samplers_of"]

NO_RESULT = ("failed", "diverged", "pruned")
GIVES = {"encoder_from": "whose encoder it starts from", "synthetic_from": "whose rows it learns from"}

KEEPERS = ("discriminator.safetensors", "encoder.safetensors", "best.safetensors")  # of the encoder, the first there is


def check_parents(trials: Iterable[Trial], states: Mapping[str, str], file: str, root: Path) -> None:
    """Checks that every parent is a trial of this experiment or is done, and that an encoder that is there fits.

    Raises:
        SpecError: one is not, or does not.
    """
    trials = list(trials)
    fitting: set[tuple[str, str]] = set()
    own = {trial.id for trial in trials}
    for trial in trials:
        for parent in trial.parents:
            if parent not in own and states.get(parent) != "done":
                what = f"is {states[parent]}" if parent in states else "is not in this run root"
                mend = "give the id of a trial that is done, or trials.N for an entry above"
                raise SpecError(f"{file}: trials.{trial.entry}: {_field(trial, parent)}: trial {parent} {what}; {mend}")
            if parent not in own and (parent, trial.label) not in fitting:
                _check_encoder(root, trial, parent, file)
                fitting.add((parent, trial.label))


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
            orphans.append((trial, f"trial {lost[0]}, {GIVES[_field(trial, lost[0])]}, is {states[lost[0]]}"))
        elif all(states.get(p) == "done" for p in trial.parents):
            ready.append(trial)
    return ready, orphans


def encoders_of(root: Path, trials: Sequence[Trial]) -> tuple[dict[str, Tensor] | None, ...]:
    """For every trial the weights of the network whose encoder it starts from, or None.

    A GAN's encoder is its discriminator's and a VAE's a network of its own, which they keep beside their generators.
    """
    found: list[dict[str, Tensor] | None] = []
    for parent in (trial.config.get("encoder_from") for trial in trials):
        files = [root / "trials" / f"{parent}" / name for name in KEEPERS]
        there = next((file for file in files if file.is_file()), files[-1])
        if parent:
            check_network(there)
        found.append(read_weights(there) if parent else None)
    return tuple(found)


def _check_encoder(root: Path, trial: Trial, parent: str, file: str) -> None:
    """Refuses an encoder of another shape, where the trial's configuration says what its network is."""
    recipe = learner_class(trial.learner).Config.model_validate(trial.config).encoder_recipe
    if trial.config.get("encoder_from") != parent or recipe is None:
        return
    try:
        (weights,) = encoders_of(root, [trial])
        check_encoder(recipe, weights or {})
    except (OSError, ValueError) as error:
        what = f"the encoder of trial {parent} does not fit this network ({error})"
        raise SpecError(f"{file}: trials.{trial.entry}: encoder_from: {what}") from None


def samplers_of(root: Path, trials: Sequence[Trial]) -> tuple[nn.Module | None, ...]:
    """For every trial the generator whose rows it learns from, or None."""
    found: list[nn.Module | None] = []
    for parent in (trial.config.get("synthetic_from") for trial in trials):
        file = root / "trials" / f"{parent}" / "best.safetensors"
        if parent:
            check_network(file)
        found.append(load(file) if parent else None)
    return tuple(found)


def _field(trial: Trial, parent: str) -> str:
    """The field of a trial's configuration that names a parent."""
    return next(field for field in GIVES if trial.config.get(field) == parent)
