"""A short leaderboard from a run's summary: for Prefect's artifact and the terminal. The page holds the full one."""

from __future__ import annotations

from typing import Any

__all__ = ["leaderboard"]


def leaderboard(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a label, in the file's order: trials, how many have a result, score's name, mean, worst and best.

    Scores are the ledger's; a label without any has None.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for trial in summary["trials"]:
        groups.setdefault(trial["label"], []).append(trial)
    return [_row(label, trials) for label, trials in groups.items()]


def _row(label: str, trials: list[dict[str, Any]]) -> dict[str, Any]:
    values = [t["score"]["value"] for t in trials if t["score"]["value"] is not None]
    names = [t["score"]["name"] for t in trials if t["score"]["name"]]
    return {
        "label": label,
        "score": names[0] if names else None,
        "trials": len(trials),
        "ended": sum(t["state"] in ("done", "diverged", "pruned") for t in trials),
        "mean": round(sum(values) / len(values), 4) if values else None,
        "least": round(min(values), 4) if values else None,
        "most": round(max(values), 4) if values else None,
    }
