"""Boundaries: the progress values at which a worker reports, evaluates or checkpoints. Only there can a run stop."""

from __future__ import annotations

from dataclasses import dataclass

from harness.spec import LearnerConfig

__all__ = ["Pace"]


@dataclass(frozen=True)
class Pace:
    """The rhythm of a cohort; every number is a multiple of the learner's chunk.

    Attributes:
        budget: where training ends.
        report, evaluate, checkpoint: progress between two of each.
    """

    budget: int
    report: int
    evaluate: int
    checkpoint: int

    @classmethod
    def of(cls, config: LearnerConfig, chunk: int, budget: int) -> Pace:
        """Rounds the configuration's boundaries up to whole chunks; 0 stands for a share of the budget."""

        def whole(progress: float) -> int:
            return max(1, -(-int(progress) // chunk)) * chunk

        report = whole(config.report_every or budget / 50)
        tenth = 5 * report  # whole reports, so that evaluations and checkpoints add no boundaries of their own
        return cls(
            budget=whole(budget),
            report=report,
            evaluate=whole(config.evaluate_every) if config.evaluate_every else tenth,
            checkpoint=whole(config.checkpoint_every) if config.checkpoint_every else tenth,
        )

    def next(self, progress: int) -> int:
        """The first boundary after `progress`."""
        steps = (self.report, self.evaluate, self.checkpoint)
        return min(self.budget, *((progress // step + 1) * step for step in steps))

    def due(self, what: str, progress: int) -> bool:
        """Whether `what` ("evaluate" or "checkpoint") is due at a boundary; both are at the end."""
        step = self.evaluate if what == "evaluate" else self.checkpoint
        return progress >= self.budget or progress % step == 0
