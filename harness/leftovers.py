"""What killed processes left half written under a run root; the next owner of the folders removes it.

Whose a temporary file is stands in its name (`harness.files`), so that nothing of a living process is touched.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.files import clear_dead
from harness.messages import Job
from harness.runfolder import RunFolder
from harness.spec import Trial

__all__ = ["clear_before_cohort", "clear_before_experiment"]


def clear_before_experiment(root: Path, name: str, trials: Iterable[Trial], cohorts: Iterable[str]) -> None:
    """Clears an experiment's folder, those of its trials and cohorts, and the caches that experiments share.

    Args:
        root: the run root.
        name: of the experiment.
        trials: its trials.
        cohorts: ids of the cohorts that its trials were last in.
    """
    caches = [root / "cache" / "modes", root / "cache" / "durations", root / "wandb"]
    clear_dead(root / "experiments" / name, *caches, *_folders(root, cohorts, trials))


def clear_before_cohort(job: Job) -> None:
    """Clears the folders in which a cohort's worker writes, and those of the cohorts that it starts from."""
    cohorts = [job.cohort, *(name for name, _ in job.sources)]
    clear_dead(*_folders(Path(job.root), cohorts, job.trials))


def _folders(root: Path, cohorts: Iterable[str], trials: Iterable[Trial]) -> list[Path]:
    runs = [folder for trial in trials for folder in RunFolder(root, trial).folders]
    return [root / "cohorts" / name for name in cohorts] + runs
