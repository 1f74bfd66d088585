"""The leaderboard: one board a learner, one entry a label, with the seeds drawn as a strip of dots."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.report import text
from harness.statistics import Group

__all__ = ["boards", "strip"]

MARGIN = 4.0  # per cent of the strip kept free at each side
STATES = ("done", "diverged", "running", "planned", "stopped", "pruned", "failed")


def boards(groups: Sequence[Group], scores: Mapping[Any, tuple[str, str]], slots: Mapping[Any, int]) -> list[dict]:
    """What the template needs of every leaderboard, one a learner and score, best label first.

    Args:
        groups: of `statistics.group_trials`.
        scores: (learner, label) -> (name, direction) of its score.
        slots: (learner, label) -> colour slot.
    """
    found: dict[Any, list[Group]] = {}
    for group in groups:
        found.setdefault((group.learner, *scores[group.learner, group.label]), []).append(group)
    return [_board(learner, score, way, mine, slots) for (learner, score, way), mine in found.items()]


def _board(learner: str, score: str, direction: str, groups: Sequence[Group], slots: Mapping[Any, int]) -> dict:
    sign = -1.0 if direction == "min" else 1.0
    ordered = sorted(groups, key=lambda g: math.inf if g.summary is None else -sign * g.summary.centre)
    span = _span(groups)
    places = text.decimals(span)
    return {
        "learner": learner,
        "score": score,
        "better": "lower is better" if sign < 0 else "higher is better",
        "axis": (text.number(span[0], places), text.number(span[1], places)) if span[1] > span[0] else None,
        "entries": [_entry(g, slots[g.learner, g.label], span, places) for g in ordered],
    }


def _span(groups: Sequence[Group]) -> tuple[float, float]:
    """The common axis of a board's strips: all scores, and intervals as far as half the scores' range beyond.

    Two seeds can have an interval many times as wide as all scores together; it is cut off at the axis' end. So
    are worst scores of another order of magnitude than the rest (a diverged trial may count as 1e30).
    """
    kept = [score for g in groups for identity, _, score in g.scores if identity not in _diverged(g)]
    lost = [score for g in groups for identity, _, score in g.scores if identity in _diverged(g)]
    top = max((abs(score) for score in kept), default=math.inf)
    scores = [score for score in kept + lost if math.isfinite(score) and abs(score) <= 10 * top]
    if not scores:
        return 0.0, 0.0
    least, most = min(scores), max(scores)
    room = (most - least) / 2
    lows = [g.summary.low for g in groups if g.summary is not None and g.summary.low is not None]
    highs = [g.summary.high for g in groups if g.summary is not None and g.summary.high is not None]
    return max(min([least, *lows]), least - room), min(max([most, *highs]), most + room)


def _diverged(group: Group) -> set[str]:
    return {row["id"] for row in group.trials if row["state"] == "diverged"}


def _entry(group: Group, slot: int, span: tuple[float, float], places: int) -> dict:
    counted = Counter(row["state"] for row in group.trials)
    others = [f"{counted[state]} {state}" for state in STATES if counted[state] and state != "done"]
    entry = {
        "label": group.label,
        "short": text.short(group.learner, group.label),
        "slot": slot,
        "n": len(group.scores),
        "seeds": group.seeds,
        "others": ", ".join(others),
        "mean": text.NONE,
        "iqm": text.NONE,
        "interval": text.NONE,
        "of": "",
        "strip": None,
    }
    summary = group.summary
    if summary is None:
        return entry
    entry |= {"mean": text.number(summary.mean, places), "iqm": text.number(summary.iqm, places)}
    if summary.low is not None:
        entry["interval"] = f"{text.number(summary.low, places)} to {text.number(summary.high, places)}"
        entry["of"] = "mean, Student's t" if summary.of == "mean" else "IQM, bootstrap"
    entry["strip"] = strip(group, span, places)
    return entry


def strip(group: Group, span: tuple[float, float], places: int) -> dict:
    """Positions in per cent of the strip's width: a dot a seed, the interval's ends and its centre.

    Values outside the axis (an infinite score, the end of a wide interval) are drawn at its edge.
    """
    lost = _diverged(group)

    def position(value: float) -> float:
        width = span[1] - span[0]
        share = (value - span[0]) / width if width > 0 else 0.5
        share = 0.0 if math.isnan(share) else min(max(share, 0.0), 1.0)
        return round(MARGIN + (100 - 2 * MARGIN) * share, 2)

    summary = group.summary
    assert summary is not None, "a strip is drawn of groups with a score"
    dots = [
        {
            "x": position(score),
            "lost": identity in lost,
            "title": f"seed {seed}: {text.number(score, places)}{' (diverged)' if identity in lost else ''}",
        }
        for identity, seed, score in group.scores
    ]
    ends = None if summary.low is None or summary.high is None else (position(summary.low), position(summary.high))
    return {"dots": dots, "ends": ends, "centre": position(summary.centre)}
