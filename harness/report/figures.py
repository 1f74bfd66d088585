"""Figures as plotly JSON: pure functions of plain lists and arrays, for the page and for W&B.

Colours are those of the light scheme; `RECOLOUR` maps every one of them to its partner in the dark scheme.
Both palettes keep labels apart under the common colour-vision deficiencies (measured in test_report.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.statistics import Pooled, thin

__all__ = ["PALETTE", "RECOLOUR", "colour", "curve_figure", "dash", "matrix_figure", "points_figure", "theme"]

PALETTE = {
    "light": ("#1d659e", "#b0460e", "#1c8b7b", "#b576cd", "#a98f25", "#614fed", "#68422d", "#446769"),
    "dark": ("#6792f1", "#ec8619", "#5fe0ab", "#c373a3", "#f2c534", "#9db9ff", "#bf886d", "#9cb1af"),
}
DASHES = ("solid", "dash", "dot", "dashdot")
BAND_OPACITY = 0.16
INK = {"light": "#1c2024", "dark": "#e8eaed"}
MUTED = {"light": "#667079", "dark": "#98a2ad"}
GRID = {"light": "#e7e9ec", "dark": "#2b3036"}
DATA = {"light": "#aab2bb", "dark": "#5f6973"}  # a data set's own points beside samples
RAMP = {
    "light": ("#f5f7f9", "#c5d9eb", "#7fb0da", "#337fbe", "#0f4c81"),
    "dark": ("#1d2127", "#20405e", "#2b679c", "#4f9adb", "#b5dcff"),
}
FONT = "Inter, ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
MOST_POINTS = 1000


def _rgba(colour_: str, opacity: float) -> str:
    red, green, blue = (int(colour_[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def _recolour() -> dict[str, str]:
    pairs = list(zip(PALETTE["light"], PALETTE["dark"], strict=True))
    plain = dict([*pairs, (DATA["light"], DATA["dark"]), *zip(RAMP["light"], RAMP["dark"], strict=True)])
    return plain | {_rgba(a, BAND_OPACITY): _rgba(b, BAND_OPACITY) for a, b in pairs}


RECOLOUR = _recolour()


def colour(slot: int, scheme: str = "light") -> str:
    """The colour of the slot-th label; after eight they repeat with another `dash`."""
    return PALETTE[scheme][slot % len(PALETTE[scheme])]


def dash(slot: int) -> str:
    """The line style of the slot-th label."""
    return DASHES[slot // len(PALETTE["light"]) % len(DASHES)]


def theme(scheme: str) -> dict[str, Any]:
    """A plotly layout (a template's) for one colour scheme, "light" or "dark"."""
    axis = {
        "gridcolor": GRID[scheme],
        "linecolor": GRID[scheme],
        "zeroline": False,
        "tickcolor": GRID[scheme],
        "tickfont": {"color": MUTED[scheme], "size": 11},
        "title": {"font": {"color": MUTED[scheme], "size": 11.5}, "standoff": 8},
    }
    return {
        "font": {"family": FONT, "size": 12, "color": INK[scheme]},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": axis,
        "yaxis": axis,
        "hoverlabel": {
            "bgcolor": "#ffffff" if scheme == "light" else "#20242a",
            "bordercolor": GRID[scheme],
            "font": {"family": FONT, "size": 12, "color": INK[scheme]},
        },
        "showlegend": False,
    }


def numbers(values: Any, digits: int = 5) -> list[float | None]:
    """JSON numbers with `digits` significant digits; None for what is not finite."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    return [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in flat.tolist()]


def curve_figure(lines: Sequence[tuple[str, int, Pooled]], metric: str, unit: str) -> dict[str, Any]:
    """Pooled learning curves with their 95 % bands.

    Args:
        lines: (label, colour slot, curve) each.
        metric: what y is.
        unit: what progress counts.
    """
    data: list[dict[str, Any]] = []
    for label, slot, pooled in lines:
        data += [*_band(label, slot, pooled), _line(label, slot, pooled)]
    layout = {
        "margin": {"l": 40, "r": 14, "t": 10, "b": 40},
        "xaxis": {"title": {"text": unit.replace("_", " ")}, "showgrid": False, "tickformat": "~s"},
        "yaxis": {"title": {"text": ""}, "automargin": True} | _window([pooled for _, _, pooled in lines]),
        "hovermode": "x unified",
        "meta": {"metric": metric},
    }
    return {"data": data, "layout": layout}


def _window(curves: Sequence[Pooled]) -> dict[str, Any]:
    """The y range: all centres, and bands as far as a third of the centres' range beyond (two seeds' are huge)."""
    centres = np.concatenate([c.centre for c in curves]) if curves else np.empty(0)
    bands = np.concatenate([np.concatenate([c.low, c.high]) for c in curves]) if curves else np.empty(0)
    both = np.concatenate([centres, bands])
    both = both[np.isfinite(both)]
    span = np.ptp(centres) if centres.size else 0.0
    if not np.isfinite(span) or span <= 0:
        return {}
    low, high = max(both.min(), centres.min() - span / 3), min(both.max(), centres.max() + span / 3)
    return {"range": numbers([low - 0.03 * (high - low), high + 0.03 * (high - low)])}


def _line(label: str, slot: int, pooled: Pooled) -> dict[str, Any]:
    few = pooled.x.size == 1
    return {
        "type": "scatter",
        "mode": "markers" if few else "lines",
        "name": label,
        "legendgroup": label,
        "x": numbers(pooled.x, 12),
        "y": numbers(pooled.centre),
        "customdata": [int(n) for n in pooled.n],
        "line": {"color": colour(slot), "width": 2, "dash": dash(slot)},
        "marker": {"color": colour(slot), "size": 7},
        "hovertemplate": "%{y:.4~g} <span style='opacity:.6'>n=%{customdata}</span>",
    }


def _band(label: str, slot: int, pooled: Pooled) -> list[dict[str, Any]]:
    finite = np.isfinite(pooled.low) & np.isfinite(pooled.high)
    if finite.sum() < 2:
        return []
    x = numbers(pooled.x[finite], 12)
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": f"{label} 95 %",
            "legendgroup": label,
            "x": x + x[::-1],
            "y": numbers(pooled.low[finite]) + numbers(pooled.high[finite])[::-1],
            "fill": "toself",
            "fillcolor": _rgba(colour(slot), BAND_OPACITY),
            "line": {"width": 0, "color": colour(slot)},
            "hoverinfo": "skip",
            "showlegend": False,
        }
    ]


def points_figure(data: Any, reference: Any = None, caption: str = "", slot: int = 0) -> dict[str, Any]:
    """Samples [N, 2] over the data's own points [M, 2], with equal axes; at most 1,000 of each are drawn.

    Args:
        data: the samples.
        reference: the data; None draws the samples alone.
        caption: the figure's title, for W&B; the page prints its own.
        slot: colour of the samples.
    """
    traces = []
    if reference is not None and len(reference):
        traces.append(_cloud("data", reference, {"color": DATA["light"], "size": 7, "opacity": 0.5}))
    traces.append(_cloud("samples", data, {"color": colour(slot), "size": 3, "opacity": 0.75}))
    layout = {
        "margin": {"l": 30, "r": 8, "t": 8 if not caption else 40, "b": 26},
        "xaxis": {"nticks": 5, "constrain": "domain"},
        "yaxis": {"nticks": 5, "scaleanchor": "x", "constrain": "domain"},
        "hovermode": False,
        "title": {"text": caption},
    }
    return {"data": traces, "layout": layout}


def _cloud(name: str, points: Any, marker: dict[str, Any]) -> dict[str, Any]:
    xy = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    xy = xy[thin(len(xy), MOST_POINTS)]
    x, y = numbers(xy[:, 0], 4), numbers(xy[:, 1], 4)
    return {"type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "marker": marker}


def matrix_figure(counts: Any, labels: Sequence[str] = (), caption: str = "") -> dict[str, Any]:
    """A confusion matrix as a heat map: rows are the truth; colour is the share of the row, text the count.

    Args:
        counts: [R, C], not negative.
        labels: names of rows and columns; () numbers them.
        caption: the figure's title, for W&B; the page prints its own.
    """
    table = np.asarray(counts, dtype=np.float64)
    total = table.sum(axis=1, keepdims=True)
    share = np.divide(table, total, out=np.zeros_like(table), where=total > 0)
    rows, columns = (list(labels) if len(labels) == k else [str(i) for i in range(k)] for k in table.shape)
    stops = np.linspace(0, 1, len(RAMP["light"])).tolist()
    heat = {
        "type": "heatmap",
        "z": [numbers(row, 4) for row in share],
        "x": columns,
        "y": rows,
        "text": [[f"{v:g}" if v else "" for v in row] for row in table.tolist()],
        "texttemplate": "%{text}" if table.size <= 400 else "",
        "hovertemplate": "truth %{y}, predicted %{x}: %{text} (%{z:.1%})<extra></extra>",
        "colorscale": [[s, c] for s, c in zip(stops, RAMP["light"], strict=True)],
        "zmin": 0,
        "zmax": 1,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
    }
    layout = {
        "margin": {"l": 40, "r": 8, "t": 8 if not caption else 40, "b": 40},
        "xaxis": {"title": {"text": "predicted"}, "type": "category", "showgrid": False, "automargin": True},
        "yaxis": {
            "title": {"text": "truth"},
            "type": "category",
            "showgrid": False,
            "autorange": "reversed",
            "automargin": True,
        },
        "title": {"text": caption},
    }
    return {"data": [heat], "layout": layout}
