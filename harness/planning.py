"""Cohorts: which trials train side by side, in which order, and how long that should take.

Trials of one shape (everything but the seed and the fields marked PerLane) become lanes of one cohort.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Mapping, Sequence

from harness.learner import Learner, learner_class
from harness.spec import LearnerConfig, Trial, canonical
from harness.spec_errors import SpecError

__all__ = ["check_room", "expected_seconds", "plan_cohorts", "shape_key"]

Cohort = list[Trial]


def check_room(trials: Sequence[Trial], inline: bool, here: bool) -> None:
    """Several workers a cohort need Ray, and this machine has so many cores and GPUs.

    Args:
        trials: of the experiment.
        inline: the only worker is the driver's own process.
        here: Ray is started on this machine.

    Raises:
        SpecError: they do not fit.
    """
    several = [t.resources for t in trials if t.resources.workers > 1]
    if several and inline:
        text = f"{several[0].workers} workers a cohort need Ray: leave out --executor inline"
        raise SpecError(f"resources.workers: {text}")
    cores = os.cpu_count() or 1
    for trial in trials if inline or here else ():
        _check_device(trial)
    for trial in trials if here else ():
        _check_machine(trial, cores)
    for one in several if here else ():
        if one.workers * one.cpus > cores:
            text = f"{one.workers} workers of {one.cpus} CPUs need more than the {cores} of this machine"
            raise SpecError(f"resources.workers: {text}; lower one, or name a cluster by --ray-address")


def _check_machine(trial: Trial, cores: int) -> None:
    """Ray on this machine would wait for ever for what the machine does not have."""
    import torch

    wanted, gpus = trial.resources, torch.cuda.device_count()
    for name, needed, there in (("cpus", wanted.cpus, cores), ("gpus", wanted.gpus * wanted.workers, gpus)):
        if needed > there:
            text = f"{needed:g} are more than the {there} of this machine; lower it, or name a cluster by --ray-address"
            raise SpecError(f"trials.{trial.entry}.resources.{name}: {text}")


def _check_device(trial: Trial) -> None:
    """A CUDA device that this machine lacks would fail every trial at its start."""
    import torch

    wanted, gpus = trial.resources.device, torch.cuda.device_count()
    if wanted.startswith("cuda") and int(wanted.partition(":")[2] or 0) >= gpus:
        there = f"only {gpus} of them" if gpus else "no CUDA device"
        text = f"{wanted} is asked for, but torch sees {there} on this machine; use auto or cpu"
        raise SpecError(f"trials.{trial.entry}.resources.device: {text}, or name a cluster by --ray-address")


def shape_key(trial: Trial, learner: type[Learner]) -> str:
    """16 hex digits, equal for trials that can be lanes of one cohort: all but the seed and PerLane fields decides."""
    per_lane = set(learner.Config.per_lane_fields())
    shape = {name: value for name, value in trial.config.items() if name not in per_lane}
    resources = trial.resources.model_dump(mode="json")
    key = canonical([trial.learner, trial.version, shape, resources])
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def expected_seconds(cohort: Sequence[Trial], rates: Mapping[str, float] | None = None) -> float:
    """Training time of one cohort, in seconds.

    Args:
        cohort: trials of one shape, at least one.
        rates: measured progress x lanes per second, by shape key or by a trial's label (the shape counts first);
            without either the learner's own rough cost is taken.
    """
    first = cohort[0]
    learner = learner_class(first.learner)
    config: LearnerConfig = learner.Config.model_validate(first.config)
    measured = rates or {}
    rate = measured.get(shape_key(first, learner)) or measured.get(first.label)
    seconds = 1.0 / rate if rate else config.seconds_per_progress
    return seconds * config.budget * len(cohort)


def plan_cohorts(trials: Sequence[Trial], workers: int, rates: Mapping[str, float] | None = None) -> list[Cohort]:
    """Groups trials by shape into cohorts, the longest expected first; the same trials give the same plan.

    A cohort has at most `resources.lanes` lanes, a foreign learner's exactly one. Where there are fewer cohorts than
    workers, the longest is halved until every worker has one.

    Args:
        trials: what is due, in the experiment's order, which lanes keep; none gives no cohorts.
        workers: how many cohorts can train at once, at least 1.
        rates: as for `expected_seconds`.
    """
    groups: dict[str, Cohort] = {}
    for trial in trials:
        groups.setdefault(shape_key(trial, learner_class(trial.learner)), []).append(trial)
    cohorts = [chunk for group in groups.values() for chunk in _chunks(group)]
    seconds = {trial.id: expected_seconds([trial], rates) for trial in trials}

    def cost(cohort: Cohort) -> float:
        return sum(seconds[trial.id] for trial in cohort)

    while len(cohorts) < workers:
        longest = max(cohorts, key=lambda c: (len(c) > 1, cost(c)), default=[])
        if len(longest) < 2:
            break
        place = cohorts.index(longest)
        cohorts[place : place + 1] = _balanced(longest, 2)
    return sorted(cohorts, key=cost, reverse=True)  # stable: equal costs stay in the experiment's order


def _chunks(group: Cohort) -> list[Cohort]:
    most = 1 if learner_class(group[0].learner).foreign else group[0].resources.lanes
    return _balanced(group, math.ceil(len(group) / most))


def _balanced(group: Cohort, parts: int) -> list[Cohort]:
    """`parts` runs of neighbours whose lengths differ by at most one."""
    edges = [len(group) * part // parts for part in range(parts + 1)]
    return [group[start:end] for start, end in itertools.pairwise(edges)]
