"""Run folders as the worker writes them, made without training."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

__all__ = ["RESULT", "inspect", "make_trial", "metrics_path", "row", "write_lines"]

RESULT = {"state": "done", "reason": "budget", "score": {"name": "eval/return", "value": 497.5}}


def metrics_path(root: Path, trial_id: str) -> Path:
    """metrics.jsonl of a trial."""
    return root / "trials" / trial_id / "metrics.jsonl"


def make_trial(root: Path, number: int, lines: int = 20, media: bool = False) -> dict[str, Any]:
    """A finished trial's folder; returns what the driver gives to `Tracker.open`."""
    trial = {
        "id": f"{number:016x}",
        "learner": "ppo",
        "version": 1,
        "label": "ppo lr=0.1",
        "seed": number,
        "config": {"env": "CartPole-v1", "lr": 0.1, "net": {"hidden": [64, 64]}, "clip": None},
    }
    folder = root / "trials" / trial["id"]
    (folder / "media").mkdir(parents=True, exist_ok=True)
    config = {"trial": trial["id"], **{k: v for k, v in trial.items() if k != "id"}, "unit": "steps"}
    (folder / "config.json").write_text(json.dumps(config))
    write_lines(root, trial["id"], 0, lines)
    (folder / "result.json").write_text(json.dumps({"trial": trial["id"], **RESULT, "progress": lines * 100}))
    if media:
        _media(folder / "media")
    return trial


def write_lines(root: Path, trial_id: str, first: int, upto: int) -> int:
    """Append lines first..upto-1; returns the file's size, i.e. what is committed."""
    path = metrics_path(root, trial_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for k in range(first, upto):
            line: dict[str, Any] = {"progress": 100 * (k + 1), "seconds": 0.25 * k, "loss": math.exp(-k / 7)}
            line["entropy"] = None if k % 5 == 3 else 1 / (k + 1)
            if k % 4 == 3:
                line["eval/return"] = 20.0 * k
            file.write(json.dumps(line) + "\n")
    return path.stat().st_size


def _media(folder: Path) -> None:
    Image.new("RGB", (8, 8), (200, 30, 30)).save(folder / "digits.png")
    digits = {"kind": "image", "caption": "samples", "file": "digits.png", "reference_file": None}
    points = {
        "kind": "points",
        "data": [[0.0, 1.0], [2.0, 3.0]],
        "reference": [[0.5, 0.5]],
        "caption": "ring",
    }
    matrix = {"kind": "matrix", "data": [[5, 1], [0, 7]], "labels": ["0", "1"], "caption": "confusion"}
    frames = [Image.new("P", (8, 8), k) for k in range(3)]
    frames[0].save(folder / "episode.gif", save_all=True, append_images=frames[1:])
    video = {"kind": "video", "caption": "return 3", "file": "episode.gif"}
    texts = {"kind": "text", "caption": "texts", "data": ["to be", "or not"], "reference": ["that is"]}
    all_media = {"digits": digits, "ring": points, "confusion": matrix, "episode": video, "texts": texts}
    for name, about in all_media.items():
        (folder / f"{name}.json").write_text(json.dumps(about))


def row(trial: dict[str, Any], root: Path, **more: Any) -> dict[str, Any]:
    """The trial's row in the object that `seedbed run --json` prints."""
    keys = {key: trial[key] for key in ("id", "learner", "label", "seed")}
    folder = str(root / "trials" / trial["id"])
    return {**keys, "state": "done", "attempts": 1, "score": RESULT["score"], "folder": folder, **more}


def inspect(folder: Path) -> dict[str, Any]:
    """An offline run through wandb's own reader: config, history lines (without wandb's columns), summary."""

    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    records = [json.loads(text) for text in done.stdout.splitlines()]
    about: dict[str, Any] = {"config": {}, "summary": {}}
    for record in records:
        update = record.get("run", {}).get("config", {}).get("update", {})
        about["config"].update({key: value for key, value in update.items() if key != "_wandb"})
        about["summary"].update(record.get("summary", {}).get("update", {}))
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    about["runs"] = [record["run"] for record in records if record["type"] == "run"]
    about["media"] = {key: value for item in history for key, value in item.items() if key.startswith("media/")}
    about["history"] = [{k: v for k, v in item.items() if not k.startswith(("_", "media/"))} for item in history]
    return about
