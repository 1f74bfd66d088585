"""What there is to look at: samples beside data, episodes, confusion matrices, chosen from the run folders."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.gif import still
from harness.report.figures import matrix_figure, points_figure
from harness.report.folders import RunFolder
from harness.statistics import Group, thin

__all__ = ["data_uri", "matrices", "samples", "videos"]

MOST_SEEDS = 4
MOST_VIDEOS = 2  # of one label: a video weighs as much as a hundred curves
MOST_BYTES = 400_000
MOST_BYTES_OF_VIDEOS = 12_000_000
MOST_PIXELS = 800
MOST_TEXTS = 24
MOST_CHARACTERS = 400  # of one text


def data_uri(path: Path) -> str | None:
    """A PNG file as a data URI, drawn smaller where it is large; None where it cannot be read."""
    try:
        raw = path.read_bytes()
        with Image.open(io.BytesIO(raw), formats=("PNG",)) as image:
            image.load()
            if len(raw) > MOST_BYTES:
                image.thumbnail((MOST_PIXELS, MOST_PIXELS))
                shrunk = io.BytesIO()
                image.save(shrunk, format="PNG", optimize=True)
                raw = shrunk.getvalue()
    except (OSError, ValueError):
        return None
    return _as_uri("png", raw)


def _as_uri(kind: str, raw: bytes) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(raw).decode()


def samples(groups: Sequence[Group], folders: Mapping[str, RunFolder], slots: Mapping[Any, int]) -> list[dict]:
    """Sets of panels (points, images and texts), one set a label and name; at most four seeds of each are shown.

    Of more than four seeds those at even steps from the lowest score to the highest are taken, so that the choice
    flatters nobody.
    """
    sets = []
    for group in groups:
        slot = slots[group.learner, group.label]
        for name in _names(group, folders, ("points", "image", "text")):
            chosen = _choose(group, folders, name, MOST_SEEDS)
            drawn = (_panel(row, folders[row["id"]], name, slot) for row in chosen)
            panels = [panel for panel in drawn if panel is not None]
            if panels:
                having = sum(name in folders[row["id"]].media for row in group.trials)
                facts = {"label": group.label, "slot": slot, "name": name, "caption": panels[0]["caption"]}
                sets.append({**facts, "shown": len(panels), "having": having, "panels": panels})
    return sets


def _names(group: Group, folders: Mapping[str, RunFolder], kinds: tuple[str, ...]) -> list[str]:
    names: dict[str, None] = {}
    for row in group.trials:
        for name, media in folders[row["id"]].media.items():
            if media.get("kind") in kinds:
                names[name] = None
    return list(names)


def _choose(group: Group, folders: Mapping[str, RunFolder], name: str, most: int) -> list[Mapping[str, Any]]:
    having = [row for row in group.trials if name in folders[row["id"]].media]
    if len(having) <= most:
        return having
    scored = {identity: score for identity, _, score in group.scores}
    ranked = sorted(having, key=lambda row: (row["id"] not in scored, scored.get(row["id"], 0.0), row["seed"]))
    return [ranked[k] for k in thin(len(ranked), most)]


def _panel(row: Mapping[str, Any], folder: RunFolder, name: str, slot: int) -> dict | None:
    media = folder.media[name]
    panel: dict[str, Any] = {
        "seed": row["seed"],
        "caption": str(media.get("caption") or ""),
        "kind": media["kind"],
    }
    if media["kind"] == "image":
        panel["image"] = _image(folder, media.get("file"))
        panel["reference"] = _image(folder, media.get("reference_file"))
        return panel if panel["image"] else None
    if media["kind"] == "text":
        panel["texts"], panel["reference"] = _lines(media.get("data")), _lines(media.get("reference"))
        return panel if panel["texts"] else None
    try:
        panel["figure"] = points_figure(media["data"], media.get("reference"), slot=slot)
    except (KeyError, TypeError, ValueError):
        return None
    return panel


def _lines(texts: Any) -> list[str]:
    """At most `MOST_TEXTS` texts as far as they are texts; a line break is shown, so that every text is one line."""
    lines = [t.replace("\n", "\u21b5") for t in texts if isinstance(t, str)] if isinstance(texts, list) else []
    return [line[:MOST_CHARACTERS] for line in lines[:MOST_TEXTS]]


def _image(folder: RunFolder, file: Any) -> str | None:
    path = _own(folder, file)
    return None if path is None else data_uri(path)


def _own(folder: RunFolder, file: Any) -> Path | None:
    """A file of the run folder's own media; None for a name that leads elsewhere."""
    return folder.path / "media" / file if isinstance(file, str) and Path(file).name == file else None


def videos(groups: Sequence[Group], folders: Mapping[str, RunFolder], slots: Mapping[Any, int]) -> list[dict]:
    """One entry a label and name with the videos of at most two of its seeds, as long as the page stays light."""
    found, written = [], 0
    for group in groups:
        for name in _names(group, folders, ("video",)):
            drawn = (_video(row, folders[row["id"]], name) for row in _choose(group, folders, name, MOST_VIDEOS))
            panels = [panel for panel in drawn if panel is not None]
            written += sum(len(panel["video"]) for panel in panels)
            if panels and written <= MOST_BYTES_OF_VIDEOS:
                slot = slots[group.learner, group.label]
                found.append({"label": group.label, "slot": slot, "name": name, "panels": panels})
    return found


def _video(row: Mapping[str, Any], folder: RunFolder, name: str) -> dict[str, Any] | None:
    """A GIF and its first frame, for readers who want nothing to move; None where it cannot be shown."""
    path = _own(folder, folder.media[name].get("file"))
    try:
        if path is None or path.stat().st_size > MOST_BYTES:
            return None
        raw = path.read_bytes()
        first = still(raw)
    except (OSError, ValueError):
        return None
    caption = str(folder.media[name].get("caption") or "")
    return {"seed": row["seed"], "caption": caption, "video": _as_uri("gif", raw), "still": _as_uri("png", first)}


def matrices(groups: Sequence[Group], folders: Mapping[str, RunFolder], slots: Mapping[Any, int]) -> list[dict]:
    """One matrix a label and name: the sum over the seeds whose matrices have the same labels."""
    found = []
    for group in groups:
        for name in _names(group, folders, ("matrix",)):
            tables = [folders[row["id"]].media[name] for row in group.trials if name in folders[row["id"]].media]
            total = _total(tables)
            if total is not None:
                counts, n = total
                correct = float(np.trace(counts) / counts.sum()) if counts.sum() else 0.0
                found.append(
                    {
                        "label": group.label,
                        "slot": slots[group.learner, group.label],
                        "name": name,
                        "caption": str(tables[0].get("caption") or ""),
                        "n": n,
                        "correct": f"{correct:.2%}".replace("%", " %"),
                        "figure": matrix_figure(counts, [str(k) for k in tables[0].get("labels") or ()]),
                    }
                )
    return found


def _total(tables: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, int] | None:
    arrays = []
    for table in tables:
        try:
            array = np.asarray(table["data"], dtype=np.float64)
        except (KeyError, TypeError, ValueError):
            continue
        if array.ndim == 2 and array.size and table.get("labels") == tables[0].get("labels"):
            arrays.append(array)
    same = [array for array in arrays if array.shape == arrays[0].shape]
    return (np.sum(same, axis=0), len(same)) if same else None
