"""How a cohort's lanes are executed: chosen once for a shape, by a short measurement where the work is worth one.

A rule alone decides for short cohorts and where the experiment file names a mode. Otherwise some chunks are trained
and thrown away, eagerly and one lane after another, and compiled where compiling costs little beside the training.
What they take decides; where compiling was not tried out, the learner's own word on what it costs and gains counts.
The choice is kept under the run root: cohorts of that shape are executed alike from then on, so that a trial run twice
has equal bits although the clock never tells the same time twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness.files import write_text
from harness.learner import Lanes, Learner
from nets.lanes import Mode, choose_mode, reset_compiler, why_not_compiled

__all__ = ["Choice", "choose", "measure"]

WORTH_MEASURING = 20.0  # seconds that a cohort is expected to take; below, a measurement would show in the run's time
SHARE = 0.05  # of the expected time that measuring one lane after another may take, and that compiling may


@dataclass(frozen=True)
class Choice:
    """A mode, why, and what was measured: mode -> seconds a chunk takes."""

    mode: Mode
    reason: str
    seconds: Mapping[str, float] = field(default_factory=dict)


def choose(cls: type[Learner], lanes: Lanes, requested: Any, folder: Path, recorded: Any = None) -> Choice:
    """How to execute a cohort.

    Args:
        cls: the learner.
        lanes: its lanes; of the execution only device and dtype count.
        requested: "auto" or a mode.
        folder: where choices are kept, a file each.
        recorded: how the cohort was executed before, if it was.
    """
    config, device = lanes.config, lanes.execution.device
    work = cls.work(config, len(lanes))
    file = folder / f"{_shape(cls, lanes)}.json"
    if recorded:
        kept = _kept(file)
        mode, _ = choose_mode(recorded, work, device)
        return kept if kept and kept.mode == mode else Choice(mode, "so it was when the cohort began")
    choice = Choice(*choose_mode(requested, work, device))
    if requested != "auto" or cls.foreign or cls.paced or work.eager_seconds < WORTH_MEASURING:
        return choice
    if _kept(file) is None:
        seconds, chunks = measure(cls, lanes)
        whole: Any = {f"{mode}_seconds": taken * chunks for mode, taken in seconds.items()}
        mode, reason = choose_mode(requested, replace(work, **whole), device)
        _keep(file, Choice(mode, reason, seconds))
    return _kept(file) or choice


def measure(cls: type[Learner], lanes: Lanes) -> tuple[dict[str, float], float]:
    """Seconds that a chunk takes by mode, and how many chunks a training has; what it trains is thrown away."""
    seconds: dict[str, float] = {}
    chunks = 1.0
    for mode in ("eager", "loop", "compiled"):
        if mode == "loop" and len(lanes) * seconds["eager"] > SHARE * chunks * seconds["eager"]:
            continue  # it could take longer than what it might save
        if mode == "compiled" and not _worth_compiling(cls, lanes, min(seconds.values()) * chunks):
            continue
        execution = replace(lanes.execution, mode=mode)
        learner = cls()
        try:
            state = learner.start(replace(lanes, execution=execution))
            chunks = (learner.budget or lanes.config.budget) / learner.chunk
            learner.advance(state)  # the first call pays for what is only paid once
            seconds[mode] = min(execution.seconds(partial(learner.advance, state)) for _ in range(2))
        finally:
            learner.close()
    reset_compiler()
    return {mode: round(value, 6) for mode, value in seconds.items()}, chunks


def _worth_compiling(cls: type[Learner], lanes: Lanes, expected: float) -> bool:
    """Whether a training of so many seconds is long beside compiling."""
    return not why_not_compiled() and cls.work(lanes.config, len(lanes)).compile_seconds <= SHARE * expected


def _shape(cls: type[Learner], lanes: Lanes) -> str:
    """What two cohorts of one shape have in common, as a short hash."""
    config = lanes.config.model_dump(mode="json", exclude=set(lanes.config.per_lane_fields()))
    execution = {name: str(value) for name, value in asdict(lanes.execution).items() if name != "mode"}
    facts = [f"{cls.__module__}.{cls.__qualname__}", cls.version, len(lanes), config, execution]
    key = json.dumps([*facts, torch.get_num_threads(), torch.__version__], sort_keys=True)
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _kept(file: Path) -> Choice | None:
    try:
        return Choice(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):  # not there, or damaged: measured again
        return None


def _keep(file: Path, choice: Choice) -> None:
    """Writes a choice; of two workers that measured at once the later one counts for both from then on.

    A full disk stops the run here: one that is not kept might come out otherwise next time, with other bits.
    """
    write_text(file, json.dumps(asdict(choice)))
