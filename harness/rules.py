"""Ending rules: what the driver decides when it hears a report. Learners know none of them."""

from __future__ import annotations

from typing import Any

from harness.messages import Decision, Report
from harness.spec import Score, Trial

__all__ = ["decide", "out_of_patience"]


def out_of_patience(values: list[float | None], patience: int, direction: str) -> bool:
    """Whether the last `patience` evaluations brought no new best value.

    Args:
        values: one an evaluation, oldest first; None (NaN) is never a best.
        patience: evaluations to wait; 0 waits for ever.
        direction: "max" or "min".
    """
    if patience <= 0 or len(values) <= patience:
        return False
    sign = 1.0 if direction == "max" else -1.0
    marks = [float("-inf") if v is None else sign * v for v in values]
    return max(marks[-patience:]) <= max(marks[:-patience])


def decide(report: Report, trials: tuple[Trial, ...], score: Score) -> Decision:
    """Which lanes end here: diverged ones, and those whose patience is over."""
    end: dict[int, tuple[str, str]] = {}
    name = score.select or score.name
    direction = score.select_direction if score.select else score.direction
    for lane, rows in report.evaluations.items():
        config: dict[str, Any] = trials[lane].config
        if lane in report.broken:
            end[lane] = ("diverged", f"NaN or infinity in its state at progress {report.progress:,}")
        elif out_of_patience([r["metrics"].get(name) for r in rows], config.get("patience", 0), direction):
            end[lane] = ("done", f"no better {name} in {config['patience']} evaluations")
    return Decision(end=end)
