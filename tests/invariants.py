"""What must hold in a run root after every fault."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from harness.ledger import Ledger

__all__ = ["check_invariants", "facts", "weights"]


def weights(root: Path, experiment: str) -> dict[str, str]:
    """Trial id -> sha256 of its final network's file."""
    trials = Ledger(root / "ledger.sqlite").trials(experiment)
    files = {t["id"]: root / "trials" / t["id"] / "final.safetensors" for t in trials}
    return {i: hashlib.sha256(f.read_bytes()).hexdigest() for i, f in files.items()}


def facts(root: Path) -> dict[str, Any]:
    """What must be equal: networks, metrics and results, without seconds."""
    found: dict[str, Any] = {}
    for path in sorted((root / "trials").glob("*/result.json")):
        lines = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
        result = json.loads(path.read_text())
        found[path.parent.name] = (
            hashlib.sha256((path.parent / "final.safetensors").read_bytes()).hexdigest(),
            [{k: v for k, v in line.items() if k != "seconds"} for line in lines],
            {k: result[k] for k in ("state", "reason", "progress", "score", "metrics", "episodes", "best", "left_out")},
        )
        assert result["weights_sha256"] == found[path.parent.name][0]
    return found


def steps(root: Path, trial: str) -> list[int]:
    """Progress of the lines of a trial's metrics."""
    lines = (root / "trials" / trial / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["progress"] for line in lines]


def check_invariants(root: Path, experiment: str, every: int) -> None:
    """Every trial is done, its metrics have no gap and no repeat, its result agrees with the ledger, nothing is left.

    Args:
        root: the run root.
        experiment: its name.
        every: progress between two lines of metrics.
    """
    ledger = Ledger(root / "ledger.sqlite")
    rows = ledger.trials(experiment)
    assert rows
    assert {r["state"] for r in rows} == {"done"}
    assert not ledger.experiment(experiment)["alive"]
    for row in rows:
        result = json.loads((root / "trials" / row["id"] / "result.json").read_text())
        assert result["score"]["value"] == row["score"]
        assert steps(root, row["id"]) == list(range(every, result["progress"] + 1, every))
        assert row["progress"] == result["progress"]
        sha256 = hashlib.sha256((root / "trials" / row["id"] / "final.safetensors").read_bytes()).hexdigest()
        assert sha256 == result["weights_sha256"]
    assert not list(root.glob("cohorts/*/.tmp-*"))
