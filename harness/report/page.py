"""Builds the page of an experiment: one self-contained HTML file that asks nobody for anything."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from harness.report import board, figures, media, provenance, text
from harness.report.folders import RunFolder, column, read_folder
from harness.statistics import Group, group_trials, pool_lines

__all__ = ["build_page", "embed_json"]

MOST_POINTS = 500
POINTS_BUDGET = 20_000  # grid points of all curves of one learner
ENDED = ("done", "diverged", "pruned", "failed")


def build_page(experiment: Mapping[str, Any], trials: Sequence[Mapping[str, Any]], root: Path, out: Path) -> Path:
    """Writes the page; what is not there yet (a running trial's result, a failed one's metrics) is left out.

    Args:
        experiment: "name"; optionally "state", "started", "finished" (seconds since 1970, datetime or text)
            and "text" (the experiment file).
        trials: ledger rows.
        root: the run root that holds `trials/<id>/`.
        out: the HTML file; written beside itself first and renamed, so that nobody sees half a page.

    Returns:
        `out`.
    """
    folders = {row["id"]: read_folder(Path(root) / "trials" / row["id"]) for row in trials}
    context = page_context(experiment, trials, folders)
    environment = Environment(loader=PackageLoader("harness.report", "."), autoescape=True, undefined=StrictUndefined)
    html = environment.get_template("page.html.j2").render(context)
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=out.parent, prefix=".page-", suffix=".html")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(html)
        os.chmod(name, 0o644)
        os.replace(name, out)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
    return out


def page_context(
    experiment: Mapping[str, Any], trials: Sequence[Mapping[str, Any]], folders: Mapping[str, RunFolder]
) -> dict[str, Any]:
    """Everything the template prints."""
    scores = {name: _score(name, trials, folders) for name in dict.fromkeys(row["learner"] for row in trials)}
    groups = group_trials(trials, lambda row: scores[row["learner"]]["worst"])
    slots = {(g.learner, g.label): k for k, g in enumerate(groups)}
    shown: dict[str, Any] = {}  # id -> figure
    curves = [_curves(name, groups, folders, slots, scores[name]) for name in dict.fromkeys(g.learner for g in groups)]
    curves = [c for c in curves if c["metrics"]]
    samples, matrices = media.samples(groups, folders, slots), media.matrices(groups, folders, slots)
    for index, panel in enumerate([p for s in samples for p in s["panels"] if "figure" in p] + matrices):
        panel["id"] = f"figure-{index}"
        shown[panel["id"]] = panel.pop("figure")
    entries = provenance.cohorts(trials, folders)
    results = [f.result for f in folders.values() if f.result]
    data = {
        "figures": shown,
        "curves": {c["id"]: c.pop("figures") for c in curves},
        "themes": {scheme: figures.theme(scheme) for scheme in ("light", "dark")},
        "recolour": figures.RECOLOUR,
    }
    return {
        "head": _head(experiment, trials, entries),
        "boards": board.boards(groups, scores, slots),
        "curves": curves,
        "samples": samples,
        "matrices": matrices,
        "trials": [_trial(row, folders[row["id"]], slots) for row in trials],
        "states": [state for state in board.STATES if any(row["state"] == state for row in trials)],
        "cohorts": entries,
        "costs": provenance.costs_by_learner(entries),
        "versions": provenance.distinct(results, "versions"),
        "commits": provenance.distinct(results, "commit"),
        "machines": provenance.distinct(results, "machine"),
        "experiment_file": str(experiment.get("text") or ""),
        "palette": {scheme: [figures.colour(k, scheme) for k in range(len(slots))] for scheme in ("light", "dark")},
        "data": embed_json(data),
        "plotly": Markup(get_plotlyjs()),  # the library itself, unescaped: it contains no closing script tag
        "style": Markup(_asset("page.css")),
        "script": Markup(_asset("page.js")),
    }


def embed_json(value: Any) -> Markup:
    """JSON for a script element: no name or caption in it can close the element."""
    escaped = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        escaped = escaped.replace(character, f"\\u{ord(character):04x}")
    return Markup(escaped)


def _asset(name: str) -> str:
    return resources.files("harness.report").joinpath(name).read_text(encoding="utf-8")


def _score(learner: str, trials: Sequence[Mapping[str, Any]], folders: Mapping[str, RunFolder]) -> dict[str, Any]:
    """{"name", "direction", "worst"} of a learner: from its run folders, else from the learner itself."""
    mine = [row for row in trials if row["learner"] == learner]
    written = [dict(folders[row["id"]].config.get("score") or {}) for row in mine]
    found: dict[str, Any] = {"name": next((row["score_name"] for row in mine if row.get("score_name")), None)}
    for key in ("name", "direction", "worst"):
        found[key] = next((w[key] for w in written if w.get(key) is not None), found.get(key))
    if any(value is None for value in found.values()):
        with contextlib.suppress(KeyError, ImportError, AttributeError):  # a learner of a package that is gone
            from harness.learner import learner_class  # needs torch

            own = learner_class(learner).score
            known = {"name": own.name, "direction": own.direction, "worst": own.worst}
            found = {key: known[key] if value is None else value for key, value in found.items()}
    return {"name": found["name"] or "score", "direction": found["direction"] or "max", "worst": found["worst"]}


def _head(experiment: Mapping[str, Any], trials: Sequence[Mapping[str, Any]], entries: Sequence[dict]) -> dict:
    counted = Counter(row["state"] for row in trials)
    ended = sum(counted[state] for state in ENDED)
    seeds = {row["seed"] for row in trials}
    done = sum(min(row.get("progress") or 0, row.get("budget") or 0) for row in trials)
    budget = sum(row.get("budget") or 0 for row in trials)
    state = str(experiment.get("state") or ("running" if counted["running"] else "done" if ended == len(trials) else "stopped"))
    return {
        "name": str(experiment["name"]),
        "state": state,
        "started": text.moment(experiment.get("started")),
        "finished": text.moment(experiment.get("finished")),
        "built": text.moment(time.time()),
        "trials": len(trials),
        "ended": ended,
        "counts": [(name, counted[name]) for name in board.STATES if counted[name]],
        "reused": sum(bool(row.get("reused")) for row in trials),
        "seeds": len(seeds),
        "learners": list(dict.fromkeys(row["learner"] for row in trials)),
        "labels": len({(row["learner"], row["label"]) for row in trials}),
        "share": round(100 * done / budget) if budget and ended < len(trials) else None,
    } | provenance.cost(entries)


def _curves(
    learner: str,
    groups: Sequence[Group],
    folders: Mapping[str, RunFolder],
    slots: Mapping[Any, int],
    score: Mapping[str, Any],
) -> dict[str, Any]:
    """All metrics of a learner as figures, the score's own first."""
    mine = [g for g in groups if g.learner == learner]
    names = {n: None for g in mine for row in g.trials for line in folders[row["id"]].metrics for n in line}
    names = [n for n in names if n not in ("progress", "seconds")]
    first = f"eval/{score['name']}"
    names = sorted(names, key=lambda n: (n != first, not n.startswith("eval/"), n))
    most = max(50, min(MOST_POINTS, POINTS_BUDGET // max(1, len(names) * len(mine))))
    unit = next((str(row.get("unit")) for g in mine for row in g.trials if row.get("unit")), "progress")
    found = {}
    for name in names:
        lines = []
        for group in mine:
            columns = [column(folders[row["id"]].metrics, name) for row in group.trials]
            with contextlib.suppress(ValueError):  # no finite value yet
                lines.append((group.label, slots[learner, group.label], pool_lines(columns, most)))
        if lines:
            found[name] = figures.curve_figure(lines, name, unit)
    legend = [
        {"label": g.label, "short": text.short(learner, g.label), "slot": slots[learner, g.label], "seeds": g.seeds}
        for g in mine
    ]
    identity = f"curves-{min(slots[g.learner, g.label] for g in mine)}"
    return {"learner": learner, "id": identity, "metrics": list(found), "figures": found, "legend": legend, "unit": unit}


def _trial(row: Mapping[str, Any], folder: RunFolder, slots: Mapping[Any, int]) -> dict[str, Any]:
    result = folder.result
    budget, progress = row.get("budget"), row.get("progress") or 0
    score = row.get("score")
    seconds = provenance.trial_seconds(row, folder)
    cohort = dict(result.get("cohort") or {}) or ({"id": row["cohort"]} if row.get("cohort") else {})
    return {
        "id": row["id"],
        "learner": row["learner"],
        "label": row["label"],
        "slot": slots[row["learner"], row["label"]],
        "seed": row["seed"],
        "state": row["state"],
        "attempts": row.get("attempts") or 0,
        "score": text.NONE if score is None else text.number(score, text.decimals([score])),
        "score_key": "" if score is None else repr(float(score)),
        "score_name": row.get("score_name") or "",
        "reason": str(row.get("reason") or result.get("reason") or ""),
        "progress": text.tidy(int(progress)),
        "unit": str(row.get("unit") or "").replace("_", " "),
        "share": round(100 * min(1.0, progress / budget), 1) if budget else None,
        "time": text.duration(seconds),
        "time_key": "" if seconds is None else repr(seconds),
        "reused": str(row.get("trained_by") or "another experiment") if row.get("reused") else "",
        "config": text.flatten(row.get("config") or folder.config.get("config") or {}),
        "resources": text.flatten(row.get("resources") or folder.config.get("resources") or {}),
        "cohort": text.flatten(cohort),
        "versions": text.flatten(result.get("versions") or {}),
        "machine": text.flatten(result.get("machine") or {}),
        "commit": str(result.get("commit") or ""),
        "weights": str(result.get("weights_sha256") or ""),
        "metrics": [(k, f"{v:.5g}") for k, v in (result.get("metrics") or {}).items() if isinstance(v, int | float)],
        "traceback": folder.traceback,
    }
