"""A cohort on its way through the driver, and where its last checkpoint may lie."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.checkpoint import newest_progress
from harness.experiment import Experiment
from harness.learner import learner_class
from harness.spec import Trial

__all__ = [
    "Cohort",
    "Sources",
    "budgets_of",
    "config_of",
    "left_over",
    "left_overs",
    "new_cohort",
    "saved_progress",
    "sources_of",
]

Sources = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass
class Cohort:
    """Trials of one shape, one a lane.

    Attributes:
        id: the same trials from the same sources have the same id.
        sources: cohorts that these lanes were cut from, the latest first, with their lanes there.
        mode: how the lanes are executed, once it is known.
        fence: the number under which its worker may commit.
        deaths: workers that died in a row without progress in between.
        ended: lanes that have a result or have failed.
    """

    id: str
    trials: tuple[Trial, ...]
    sources: Sources = ()
    mode: str | None = None
    fence: int = 0
    deaths: int = 0
    death_progress: int = -1
    progress: int = 0
    ended: set[int] = field(default_factory=set)

    @property
    def alive(self) -> list[int]:
        """Lanes that still train."""
        return [k for k in range(len(self.trials)) if k not in self.ended]

    @property
    def label(self) -> str:
        """For people: what trains here."""
        labels = list(dict.fromkeys(t.label for t in self.trials))
        return labels[0] if len(labels) == 1 else f"{labels[0]} and {len(labels) - 1} more"


def config_of(trial: Trial) -> Any:
    """A trial's configuration as its learner's own type."""
    return learner_class(trial.learner).Config.model_validate(trial.config)


def budgets_of(trials: Sequence[Trial]) -> dict[str, tuple[int, str]]:
    """Trial id -> (how much progress it makes in all, the unit of that)."""
    return {t.id: (config_of(t).budget, learner_class(t.learner).unit) for t in trials}


def sources_of(cohort: str, older: Sources, lanes: Sequence[int]) -> Sources:
    """Where lanes cut from a cohort find their last checkpoint: its own, or those it was itself cut from."""
    return ((cohort, tuple(lanes)), *((name, tuple(index[k] for k in lanes)) for name, index in older))


def new_cohort(trials: tuple[Trial, ...], sources: Sources = (), mode: str | None = None) -> Cohort:
    """A cohort that no worker has opened yet."""
    key = "\n".join([*(t.id for t in trials), repr(sources)])
    return Cohort(hashlib.sha256(key.encode()).hexdigest()[:12], trials, sources, mode)


def saved_progress(root: Path, cohort: Cohort) -> int:
    """Where a cohort goes on when it is opened: at the newest checkpoint, its own or of those it was cut from."""
    names = (cohort.id, *(name for name, _ in cohort.sources))
    found = (newest_progress(root / "cohorts" / name) for name in names)
    return next((progress for progress in found if progress is not None), 0)


def left_over(
    row: Mapping[str, Any], due: Mapping[str, Trial], experiment: Experiment, settled: Mapping[str, str | None]
) -> Cohort | None:
    """What is to be trained of a cohort that an earlier run left unfinished.

    The cohort goes on as it was where it is this experiment's and each lane is either due or ended in this very cohort;
    else the lanes that are due are cut from it. (A lane that ended elsewhere still trains in this cohort's checkpoint.)

    Args:
        row: the cohort's row in the ledger.
        due: trials to train, by id.
        experiment: what is run.
        settled: trials that have a result or have failed -> the cohort in which they were trained.
    """
    ids = row["trials"]
    known = {t.id: t for t in experiment.trials}
    lanes = [k for k, i in enumerate(ids) if i in due]
    ended = {k for k, i in enumerate(ids) if i not in due and settled.get(i) == row["id"]}
    if not lanes:
        return None
    sources = tuple((cohort, tuple(index)) for cohort, index in row["sources"])
    own = row["experiment"] == experiment.name and row["state"] != "split"
    if own and len(lanes) + len(ended) == len(ids) and all(i in known for i in ids):
        return Cohort(row["id"], tuple(known[i] for i in ids), sources, row["mode"], ended=ended)
    return new_cohort(tuple(due[ids[k]] for k in lanes), sources_of(row["id"], sources, lanes), row["mode"])


def left_overs(
    rows: Sequence[Mapping[str, Any]],
    rest: dict[str, Trial],
    experiment: Experiment,
    settled: Mapping[str, str | None],
) -> list[Cohort]:
    """The cohorts that earlier runs left unfinished, as far as their trials are due; this experiment's own ones first.

    Args:
        rows: those cohorts' rows in the ledger.
        rest: trials to train, by id; what a cohort takes is removed from it.
        experiment: what is run.
        settled: trials that have a result or have failed -> the cohort in which they were trained.
    """
    cohorts = []
    for row in sorted(rows, key=lambda row: (row["experiment"] != experiment.name, row["state"] == "split")):
        cohort = left_over(row, rest, experiment, settled)
        if cohort is not None:
            cohorts.append(cohort)
            for trial in cohort.trials:
                rest.pop(trial.id, None)
    return cohorts
