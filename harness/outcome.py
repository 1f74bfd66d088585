"""What a run would do, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.spec import Trial

__all__ = ["Outcome", "Plan"]


@dataclass(frozen=True)
class Plan:
    """What a run would do: trials that are due, in cohorts, and what is done already.

    Attributes:
        cohorts: with their weights: rough seconds, by which they are ordered.
        lost: done trials whose run folders were deleted or moved; with `--retry-failed` they are due.
        expected: seconds of a worker that each should take; None while none of its shape was trained on this machine.
    """

    due: tuple[Trial, ...]
    done: tuple[Trial, ...]
    failed: tuple[Trial, ...]  # failed before; run again with `--retry-failed`
    cohorts: tuple[tuple[tuple[Trial, ...], float], ...]
    expected: tuple[float | None, ...] = ()
    lost: tuple[Trial, ...] = ()

    @property
    def lost_text(self) -> str:
        """One sentence about results that only the ledger still knows; empty where there are none."""
        if not self.lost:
            return ""
        count = "1 done trial has" if len(self.lost) == 1 else f"{len(self.lost)} done trials have"
        where = f"trials/{self.lost[0].id}" + (" and others" if len(self.lost) > 1 else "")
        return f"{count} no results on disk any more ({where}): put them back, or train again with --retry-failed"


@dataclass(frozen=True)
class Outcome:
    """How an experiment stands, from the ledger."""

    state: str  # done, failed, stopped
    trials: list[dict[str, Any]]
    reason: str = ""

    @property
    def exit_code(self) -> int:
        """0 all trials have a result, 1 some failed, 130 stopped."""
        return {"done": 0, "failed": 1, "stopped": 130}[self.state]
