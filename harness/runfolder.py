"""A trial's own folder: configuration, metrics, media, result, final and best network."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from harness.checkpoint import sha256_file
from harness.files import (
    append,
    make_folder,
    room_for,
    set_aside,
    sync,
    write_bytes,
    write_json,
    write_tensors,
    write_text,
)
from harness.gif import gif
from harness.learner import Media
from harness.packing import separate
from harness.report.folders import read_json
from harness.spec import Trial
from nets.export import metadata_of

__all__ = ["RunFolder", "check_network", "facts", "has_result"]

FILES = ("config.json", "metrics.jsonl", "result.json", "final.safetensors", "best.safetensors", "traceback.txt")
FILM_SECONDS = 8  # that a video over training is meant to last


def has_result(root: Path, trial: str) -> bool:
    """Whether an ended trial's folder is still there, with what was found."""
    return (root / "trials" / trial / "result.json").is_file()


class RunFolder:
    """Writes one trial's files; only the worker that holds the trial does so.

    Args:
        root: the run root.
        trial: whose folder it is.
        experiment: for which it is trained.
    """

    def __init__(self, root: Path, trial: Trial, experiment: str = "") -> None:
        self.trial = trial
        self.experiment = experiment
        self.path = root / "trials" / trial.id
        self.metrics_path = self.path / "metrics.jsonl"
        self._written = hashlib.sha256()

    @property
    def folders(self) -> list[Path]:
        """It and the folders in it."""
        return [self.path, self.path / "media", *self.path.glob("frames/*")]

    def open(self, unit: str, score: Mapping[str, str], keep_bytes: int, progress: int) -> None:
        """Makes the folder ready and cuts metrics and frames back to what a checkpoint at `progress` has committed."""
        self.describe(unit, score)
        for stale in ("result.json", "traceback.txt"):
            (self.path / stale).unlink(missing_ok=True)
        for frame in self.path.glob("frames/*/*.png"):
            if int(frame.stem) > progress:
                frame.unlink()
        with room_for(self.metrics_path), self.metrics_path.open("a+b") as file:
            file.truncate(keep_bytes)
            file.seek(0)
            self._written = hashlib.file_digest(file, "sha256")

    def describe(self, unit: str, score: Mapping[str, str]) -> None:
        """Makes the folder, with what says whose it is."""
        set_aside(self.path, Path.is_dir)
        make_folder(self.path)
        for name in FILES:
            set_aside(self.path / name)
        config = {
            "trial": self.trial.id,
            "learner": self.trial.learner,
            "version": self.trial.version,
            "label": self.trial.label,
            "seed": self.trial.seed,
            "config": self.trial.config,
            "resources": self.trial.resources.model_dump(),
            "unit": unit,
            "score": dict(score),
            "experiment": self.experiment,
        }
        write_json(self.path / "config.json", config)

    def log(self, line: Mapping[str, Any]) -> None:
        """Appends one line of metrics; NaN and infinity become null."""
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        text = json.dumps(clean, allow_nan=False) + "\n"
        append(self.metrics_path, text)
        self._written.update(text.encode())

    @property
    def sha256(self) -> str:
        """Of the metrics as this process kept and wrote them."""
        return self._written.hexdigest()

    def commit(self) -> int:
        """Makes the metrics durable and returns their length in bytes."""
        with room_for(self.metrics_path):
            sync(self.metrics_path)
        return self.metrics_path.stat().st_size

    def network(self, name: str, network: nn.Module, weights: Mapping[str, torch.Tensor] | None = None) -> str:
        """Writes `<name>.safetensors` and returns its sha256; `nets.export.load` rebuilds what `build` made.

        Tied weights are written under each of their names, so that `load_state_dict` finds them all.

        Args:
            name: of the file.
            network: an ordinary one.
            weights: other weights than its own.
        """
        metadata = metadata_of(network) if hasattr(network, "recipe") else None
        weights = network.state_dict() if weights is None else weights
        target = self.path / f"{name}.safetensors"
        write_tensors(target, separate(weights), metadata)
        return sha256_file(target)

    def media(self, items: Mapping[str, Media]) -> None:
        """Writes media: images as PNG, videos as GIF, points, matrices and texts as JSON, each with its caption."""
        folder = self.path / "media"
        for name, item in items.items():
            write_json(folder / f"{name}.json", _media_json(folder, name, item))

    def frames(self, progress: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Keeps one picture a name until `films`."""
        for name, picture in pictures.items():
            folder = self.path / "frames" / name
            _write_png(folder / f"{progress:015d}.png", picture)

    def films(self, unit: str) -> dict[str, Media]:
        """Videos "<name>-over-training" of all frames that were kept, where there are two or more."""
        films = {}
        for folder in sorted(self.path.glob("frames/*")):
            files = sorted(folder.glob("*.png"))
            if len(files) < 2:
                continue
            first, last = (f"{int(files[k].stem):,}" for k in (0, -1))
            caption = f"{folder.name} of the same noise at {len(files)} evaluations, from {first} to {last} {unit}"
            fps = min(max(len(files) / FILM_SECONDS, 2.0), 10.0)
            films[f"{folder.name}-over-training"] = Media("video", _stacked(files), caption=caption, fps=fps)
        return films

    def result(self, result: Mapping[str, Any]) -> None:
        """Writes the result; from here on the trial's folder is complete, also after a power loss."""
        with room_for(self.path):
            for file in (*self.path.glob("config.json"), *self.path.glob("media/*")):
                sync(file)
            if (media := self.path / "media").is_dir():
                sync(media)
        write_json(self.path / "result.json", result, durable=True)

    def holds(self, result: Mapping[str, Any]) -> bool:
        """Whether the folder still has a result that was written, and the networks that it names."""
        try:
            if json.loads((self.path / "result.json").read_text()) != result:
                return False
            sums = _sums(result).items()
            return all(sha256_file(self.path / f"{name}.safetensors") == sha256 for name, sha256 in sums)
        except (OSError, ValueError, RecursionError):
            return False

    def failed(self, traceback: str) -> None:
        """Keeps the traceback of a failed trial."""
        write_text(self.path / "traceback.txt", traceback)


def check_network(file: Path) -> None:
    """Checks that a network in a trial's folder is the one that the trial's result names.

    Raises:
        ValueError: it is damaged, or another one was put in its place.
    """
    expected = _sums(read_json(file.with_name("result.json"))).get(file.stem)
    if expected and file.is_file() and sha256_file(file) != expected:
        mend = "copy it back, or train the trial again in another run root (--root)"
        raise ValueError(f"{file} is damaged: its sha256 is not the one in result.json; {mend}")


def _sums(result: Mapping[str, Any]) -> dict[str, str]:
    """Name -> sha256 of a trial's networks; a result of an older version names the final one only."""
    sums = {"final": result.get("weights_sha256"), **(result.get("networks_sha256") or {})}
    return {name: sha256 for name, sha256 in sums.items() if sha256}


def _write_png(path: Path, picture: np.ndarray) -> None:
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, format="PNG")
    write_bytes(path, encoded.getvalue())


def _media_json(folder: Path, name: str, item: Media) -> dict[str, Any]:
    if item.kind == "image":
        _write_png(folder / f"{name}.png", item.data)
        reference = None
        if item.reference is not None:
            reference = f"{name}-reference.png"
            _write_png(folder / reference, item.reference)
        return {"kind": "image", "caption": item.caption, "file": f"{name}.png", "reference_file": reference}
    if item.kind == "video":
        write_bytes(folder / f"{name}.gif", gif(item.data, item.fps))
        return {"kind": "video", "caption": item.caption, "file": f"{name}.gif"}
    if item.kind == "text":
        lines = {"data": item.data.tolist(), "reference": [] if item.reference is None else item.reference.tolist()}
        return {"kind": "text", "caption": item.caption, **lines}
    data: dict[str, Any] = {"kind": item.kind, "caption": item.caption, "data": _rounded(item.data)}
    if item.kind == "points":
        data["reference"] = [] if item.reference is None else _rounded(item.reference)
    else:
        data["labels"] = list(item.labels)
    return data


def _stacked(files: Sequence[Path]) -> np.ndarray:
    """PNG files of one size, [T, H, W] or [T, H, W, 3]."""
    pictures = []
    for file in files:
        with Image.open(file, formats=("PNG",)) as picture:
            pictures.append(np.asarray(picture))
    return np.stack(pictures)


def _rounded(array: np.ndarray) -> list[Any]:
    return np.round(np.nan_to_num(array.astype(np.float64)), 5).tolist()


@lru_cache(maxsize=1)
def facts() -> dict[str, Any]:
    """What can change bits, of this process: versions, commit of the project, machine."""
    names = ("seedbed", "torch", "numpy", "gymnasium", "ray", "prefect", "wandb")
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "versions": {"python": platform.python_version(), **{n: _version(n) for n in names}},
        "commit": _commit(),
        "machine": {"cpu": _cpu_name(), "cores": os.cpu_count(), "platform": platform.platform(), "gpu": gpu},
    }


def _version(name: str) -> str | None:
    try:
        return installed(name)
    except ModuleNotFoundError:
        return None


def _commit() -> str | None:
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
