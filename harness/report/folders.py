"""Reads run folders as they are: running, failed and torn ones too. JSON, PNG and GIF only."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["RunFolder", "read_folder", "read_json", "read_metrics"]

TRACEBACK_LINES = 20


@dataclass(frozen=True)
class RunFolder:
    """What a run folder holds; whatever is not there yet is empty.

    Attributes:
        path: the folder.
        config: config.json.
        result: result.json, empty while the trial has not ended.
        metrics: one dict a boundary, "progress" strictly increasing.
        media: name -> its JSON.
        traceback: the last lines of traceback.txt.
    """

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    media: dict[str, dict[str, Any]] = field(default_factory=dict)
    traceback: str = ""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file is missing, torn or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl up to the first torn one; [] where there is no file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    rows: list[dict[str, Any]] = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            break  # a worker may be writing this line just now
        if not isinstance(row, dict) or not isinstance(row.get("progress"), int | float):
            break
        rows.append(row)
    return rows


def column(rows: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """(progress, values) of one metric: NaN where it is null, boundaries without it left out."""
    pairs = [(row["progress"], row[name]) for row in rows if name in row]
    numbers = [float(v) if isinstance(v, int | float) else math.nan for _, v in pairs]
    return [float(p) for p, _ in pairs], numbers


def read_folder(path: Path) -> RunFolder:
    """Reads a run folder; a missing one gives an empty `RunFolder`."""
    traceback = path / "traceback.txt"
    text = traceback.read_text(encoding="utf-8", errors="replace") if traceback.is_file() else ""
    media = {file.stem: read_json(file) for file in sorted((path / "media").glob("*.json"))}
    return RunFolder(
        path,
        read_json(path / "config.json"),
        read_json(path / "result.json"),
        read_metrics(path / "metrics.jsonl"),
        {name: value for name, value in media.items() if value},
        "\n".join(text.rstrip().splitlines()[-TRACEBACK_LINES:]),
    )
