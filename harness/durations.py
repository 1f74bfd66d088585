"""What cohorts took: measured whenever one is trained to its end, kept for its shape and machine under the run root.

A worker's whole time counts, with evaluations, checkpoints and compiling, so that a plan says what a run will cost.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

from harness.files import write_text
from harness.learner import learner_class
from harness.planning import shape_key
from harness.runfolder import facts
from harness.spec import Trial

__all__ = ["expected", "remember"]


def expected(root: Path, cohort: Sequence[Trial]) -> float | None:
    """Seconds of a worker that a cohort should take; None where no cohort of its shape was trained on this machine.

    Of cohorts with other numbers of lanes the nearest counts, in proportion.

    Args:
        root: the run root.
        cohort: trials of one shape, at least one.
    """
    kept = _kept(_file(root, cohort[0]))
    if not kept:
        return None
    lanes = len(cohort)
    nearest = min(kept, key=lambda n: (abs(math.log(n / lanes)), n))
    config = learner_class(cohort[0].learner).Config.model_validate(cohort[0].config)
    return kept[nearest] * config.budget * lanes


def remember(root: Path, cohort: Sequence[Trial], seconds: float, progress: int) -> None:
    """Keeps what a cohort took from its start to a progress; the newest of a number of lanes counts."""
    file = _file(root, cohort[0])
    kept = _kept(file) | {len(cohort): seconds / (progress * len(cohort))}
    write_text(file, json.dumps({str(lanes): rate for lanes, rate in kept.items()}))


def _file(root: Path, trial: Trial) -> Path:
    machine = facts()["machine"]
    here = hashlib.sha256(json.dumps([machine["cpu"], machine["cores"], machine["gpu"]]).encode()).hexdigest()[:8]
    return root / "cache" / "durations" / f"{shape_key(trial, learner_class(trial.learner))}-{here}.json"


def _kept(file: Path) -> dict[int, float]:
    """Number of lanes -> seconds of one lane's unit of progress."""
    try:
        found = {int(lanes): float(rate) for lanes, rate in json.loads(file.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):  # not there, or damaged: measured again
        return {}
    return {lanes: rate for lanes, rate in found.items() if lanes > 0 and math.isfinite(rate)}
