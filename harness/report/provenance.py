"""Where the numbers come from: versions, commits, machines, cohorts, time and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.report import text
from harness.report.folders import RunFolder

__all__ = ["cohorts", "cost", "costs_by_learner", "distinct"]

Row = Mapping[str, Any]


def cohorts(trials: Sequence[Row], folders: Mapping[str, RunFolder]) -> list[dict]:
    """The cohorts that this experiment trained, each once, with wall and CPU seconds; reused trials left out.

    `seconds` of a trial is the training wall time of its cohort, so a cohort's is the largest of its trials'.
    """
    found: dict[str, dict] = {}
    for row in trials:
        cohort = folders[row["id"]].result.get("cohort") or {}
        name = cohort.get("id") or row.get("cohort")
        if not name or row.get("reused"):
            continue
        blank = {"id": name, "learner": row["learner"], "trials": 0, "labels": {}, "seconds": 0.0}
        entry = found.setdefault(name, blank)
        entry["trials"] += 1
        entry["labels"][row["label"]] = None
        entry["seconds"] = max(entry["seconds"], trial_seconds(row, folders[row["id"]]) or 0.0)
        for key in ("mode", "device", "threads", "lanes", "dtype"):
            entry.setdefault(key, cohort.get(key))
            entry[key] = entry[key] if entry[key] is not None else cohort.get(key)
    for entry in found.values():
        entry["labels"] = list(entry["labels"])
        entry["cpu_seconds"] = entry["seconds"] * float(entry["threads"] or 1)
        entry["time"], entry["cpu_time"] = (
            text.duration(entry["seconds"]),
            text.duration(entry["cpu_seconds"]),
        )
    return list(found.values())


def trial_seconds(row: Row, folder: RunFolder) -> float | None:
    """Training wall time of a trial's cohort so far: its result's, the ledger's or its last metrics line's."""
    last = folder.metrics[-1] if folder.metrics else {}
    for value in (folder.result.get("seconds"), row.get("seconds"), last.get("seconds")):
        if isinstance(value, int | float):
            return float(value)
    return None


def cost(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Total wall time of training (as if cohorts ran one after another) and CPU time (wall x threads)."""
    return {
        "time": text.duration(sum(e["seconds"] for e in entries)),
        "cpu_time": text.duration(sum(e["cpu_seconds"] for e in entries)),
    }


def costs_by_learner(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same for every learner, in order of first appearance."""
    names = list(dict.fromkeys(e["learner"] for e in entries))
    rows = []
    for name in names:
        mine = [e for e in entries if e["learner"] == name]
        trials = sum(e["trials"] for e in mine)
        each = sum(e["cpu_seconds"] for e in mine) / trials
        rows.append(
            {
                "learner": name,
                "cohorts": len(mine),
                "trials": trials,
                "each": text.duration(each),
                **cost(mine),
            }
        )
    return rows


def distinct(results: Sequence[Mapping[str, Any]], key: str) -> list[tuple[str, list[tuple[str, int]]]]:
    """For a dict in every result (versions, machine): name -> [(value, in how many trials)]."""
    found: dict[str, Counter] = {}
    for result in results:
        value = result.get(key)
        for name, item in (value if isinstance(value, Mapping) else {key: value}).items():
            if item is not None:
                found.setdefault(name, Counter())[text.tidy(item)] += 1
    return [(name, counts.most_common()) for name, counts in found.items()]
