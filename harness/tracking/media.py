"""A trial's media as wandb values: pictures as images, videos as they are, points and matrices as plotly figures,
texts as tables."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import wandb

from harness.outgoing import shorten

__all__ = ["media_values", "whole_table"]

_log = logging.getLogger(__name__)


def media_values(folder: Path) -> dict[str, Any]:
    """All media of one trial as {"media/<name>": wandb value}; what cannot be read is logged and left out."""
    values: dict[str, Any] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            values.update(_values(path))
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s left out: %s", path, error)
    return values


def _values(path: Path) -> dict[str, Any]:
    """The wandb values of one media description.

    Raises:
        ValueError: it is of no known kind.
    """
    about = json.loads(path.read_text())
    key, caption = f"media/{path.stem}", shorten(about.get("caption") or "")
    if about["kind"] in ("points", "matrix"):
        return {key: _figure(about, caption)}
    if about["kind"] == "video":  # the file itself: encoding anew would take moviepy
        return {key: wandb.Video(str(_beside(path, about["file"])), caption=caption, format="gif")}
    if about["kind"] == "text":
        return {key: _table(about["data"], about.get("reference") or ())}
    if about["kind"] != "image":
        raise ValueError(f"unknown kind {about['kind']!r}; known are image, video, points, matrix, text")
    values = {key: wandb.Image(str(_beside(path, about["file"])), caption=caption)}
    if about.get("reference_file"):
        values[f"{key}-reference"] = wandb.Image(str(_beside(path, about["reference_file"])), caption="data")
    return values


def _table(texts: list[str], reference: Sequence[str]) -> wandb.Table:
    """One text a row, and where there are real ones, one of them beside it."""
    if not reference:
        return whole_table(["samples"], [[t] for t in texts])
    return whole_table(["samples", "data"], [list(row) for row in zip_longest(texts, reference)])


def whole_table(columns: list[str | int], rows: list[list[Any]]) -> wandb.Table:
    """A table of which wandb keeps every row: its own limits, 10,000 in the file, cut without a word."""
    wandb.Table.MAX_ROWS = max(wandb.Table.MAX_ROWS, len(rows))
    wandb.Table.MAX_ARTIFACT_ROWS = max(wandb.Table.MAX_ARTIFACT_ROWS, len(rows))
    return wandb.Table(columns=columns, data=rows)


def _figure(about: dict[str, Any], caption: str) -> wandb.Plotly:
    # Imported where they are needed: they take a second of the feeder's one process start.
    import plotly.graph_objects as go

    from harness.report.figures import matrix_figure, points_figure

    if about["kind"] == "points":
        figure = points_figure(about["data"], about.get("reference"), caption)
    else:
        figure = matrix_figure(about["data"], about.get("labels") or (), caption)
    return wandb.Plotly(go.Figure(figure))


def _beside(path: Path, name: str) -> Path:
    """A file beside `path`: a description may not name files elsewhere, because they are uploaded."""
    file = path.parent / Path(name).name
    if not file.is_file():
        raise FileNotFoundError(f"{name} is not there")
    return file
