"""Builds the page of an experiment: one self-contained HTML file that asks nobody for anything."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from harness.files import write_text
from harness.outgoing import without_machine
from harness.report import board, figures, media, provenance, text
from harness.report.folders import RunFolder, column, read_folder
from harness.statistics import Group, group_trials, pool_lines

__all__ = ["build_page", "embed_json"]

MOST_POINTS = 500
POINTS_BUDGET = 20_000  # grid points of all curves of one learner
ENDED = ("done", "diverged", "pruned", "failed")


def build_page(
    experiment: Mapping[str, Any], trials: Sequence[Mapping[str, Any]], root: Path, out: Path, shared: bool = False
) -> Path:
    """Writes the page; what is not there yet (a running trial's result, a failed one's metrics) is left out.

    Args:
        experiment: "name"; optionally "state", "started", "finished" (seconds since 1970, datetime or text)
            and "text" (the experiment file).
        trials: ledger rows.
        root: the run root that holds `trials/<id>/`.
        out: the HTML file; written beside itself first and renamed, so that nobody sees half a page.
        shared: it leaves this machine: without machine, versions, commits, tracebacks and absolute paths.

    Returns:
        `out`.
    """
    folders = {row["id"]: read_folder(Path(root) / "trials" / row["id"]) for row in trials}
    if shared:
        folders = {identity: _shareable(folder) for identity, folder in folders.items()}
    context = page_context(experiment, trials, folders)
    if shared:
        context = without_machine(context)
    context |= {"data": embed_json(context["data"]), "shared": shared}
    context |= {"plotly": Markup(get_plotlyjs())}  # the library itself, unescaped: it contains no closing script tag
    context |= {"style": Markup(_asset("page.css")), "script": Markup(_asset("page.js"))}
    loader = PackageLoader("harness.report", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    html = environment.get_template("page.html.j2").render(context)
    write_text(out, html)
    return out


def page_context(
    experiment: Mapping[str, Any], trials: Sequence[Mapping[str, Any]], folders: Mapping[str, RunFolder]
) -> dict[str, Any]:
    """Everything the template prints of an experiment."""
    groups = group_trials(trials, _worst)
    scores = {(g.learner, g.label): _score(g, folders) for g in groups}
    slots = {key: k for k, key in enumerate(scores)}
    shown: dict[str, Any] = {}  # id -> figure
    curves = [_curves(mine, folders, slots, scores) for mine in _by_learner(groups)]
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
        "videos": media.videos(groups, folders, slots),
        "matrices": matrices,
        "trials": [_trial(row, folders[row["id"]], slots) for row in trials],
        "states": [state for state in board.STATES if any(row["state"] == state for row in trials)],
        "cohorts": entries,
        "costs": provenance.costs_by_learner(entries),
        "versions": provenance.distinct(results, "versions"),
        "commits": provenance.distinct(results, "commit"),
        "machines": provenance.distinct(results, "machine"),
        "experiment_file": str(experiment.get("text") or ""),
        "palette": {name: [figures.colour(k, name) for k in range(len(slots))] for name in figures.PALETTE},
        "data": data,
    }


def _shareable(folder: RunFolder) -> RunFolder:
    """A run folder without what says where it was made."""
    kept = {name: value for name, value in folder.result.items() if name not in ("machine", "versions", "commit")}
    return replace(folder, result=kept, traceback="")


def embed_json(value: Any) -> Markup:
    """JSON for a script element: no name or caption in it can close the element."""
    escaped = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        escaped = escaped.replace(character, f"\\u{ord(character):04x}")
    return Markup(escaped)


def _asset(name: str) -> str:
    return resources.files("harness.report").joinpath(name).read_text(encoding="utf-8")


def _score(group: Group, folders: Mapping[str, RunFolder]) -> tuple[str, str]:
    """(name, direction) of a group's score: from its run folders, else from the learner itself."""
    for row in group.trials:
        written = folders[row["id"]].config.get("score")
        if isinstance(written, dict) and written.get("name") and written.get("direction"):
            return str(written["name"]), str(written["direction"])
    own = _own_score(group.trials[0])
    return (own.name, own.direction) if own is not None else (group.trials[0].get("score_name") or "score", "max")


def _worst(row: Mapping[str, Any]) -> float | None:
    """What a diverged trial counts as: the worker wrote it into the ledger, else the learner knows."""
    if row.get("score") is not None:
        return float(row["score"])
    own = _own_score(row)
    return None if own is None else own.worst


def _own_score(row: Mapping[str, Any]) -> Any:
    """The learner's own `Score` for a row's configuration; None for a learner of a package that is gone."""
    from harness.learner import learner_class  # torch: only where nothing was written yet

    try:
        kind = learner_class(row["learner"])
        return kind.score_of(kind.Config(**(row.get("config") or {})))
    except (KeyError, ImportError, AttributeError, ValueError):
        return None


def _head(experiment: Mapping[str, Any], trials: Sequence[Mapping[str, Any]], entries: Sequence[dict]) -> dict:
    counted = Counter(row["state"] for row in trials)
    ended = sum(counted[state] for state in ENDED)
    seeds = {row["seed"] for row in trials}
    shares = [min(1.0, (row.get("progress") or 0) / row["budget"]) for row in trials if row.get("budget")]
    guess = "running" if counted["running"] else "done" if ended == len(trials) else "stopped"
    state = str(experiment.get("state") or guess)
    return {
        "name": str(experiment["name"]),
        "state": state,
        "started": text.moment(experiment.get("started")),
        "finished": "" if state in ("running", "planned") else text.moment(experiment.get("finished")),
        "built": text.moment(time.time()),
        "trials": len(trials),
        "ended": ended,
        "counts": [(name, counted[name]) for name in board.STATES if counted[name]],
        "reused": sum(bool(row.get("reused")) for row in trials),
        "seeds": len(seeds),
        "learners": list(dict.fromkeys(row["learner"] for row in trials)),
        "labels": len({(row["learner"], row["label"]) for row in trials}),
        "share": round(100 * sum(shares) / len(shares)) if shares and ended < len(trials) else None,
    } | provenance.cost(entries)


def _by_learner(groups: Sequence[Group]) -> list[list[Group]]:
    names = dict.fromkeys(g.learner for g in groups)
    return [[g for g in groups if g.learner == name] for name in names]


def _curves(
    mine: Sequence[Group],
    folders: Mapping[str, RunFolder],
    slots: Mapping[Any, int],
    scores: Mapping[Any, Any],
) -> dict[str, Any]:
    """All metrics of one learner's groups as figures, the score's own first."""
    learner = mine[0].learner
    lines_of = [line for g in mine for row in g.trials for line in folders[row["id"]].metrics]
    first = f"eval/{scores[learner, mine[0].label][0]}"
    names = sorted(
        {name for line in lines_of for name in line} - {"progress", "seconds"},
        key=lambda name: (name != first, not name.startswith("eval/"), name),
    )
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
        {
            "label": g.label,
            "short": text.short(learner, g.label),
            "slot": slots[learner, g.label],
            "seeds": g.seeds,
        }
        for g in mine
    ]
    identity = f"curves-{slots[learner, mine[0].label]}"
    return {"learner": learner, "id": identity, "metrics": list(found), "figures": found, "legend": legend}


def _trial(row: Mapping[str, Any], folder: RunFolder, slots: Mapping[Any, int]) -> dict[str, Any]:
    result = folder.result
    budget, progress = row.get("budget"), row.get("progress") or 0
    score = row.get("score")
    seconds = provenance.trial_seconds(row, folder)
    metrics = result.get("metrics") or {}
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
        "metrics": [(k, f"{v:.5g}") for k, v in metrics.items() if isinstance(v, int | float)],
        "traceback": folder.traceback,
    }
