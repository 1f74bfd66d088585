"""Generators beside one another: reads what `seedbed run experiments/evidence/fashion-generators.yaml` has trained.

    python -m benchmarks.generators [--name fashion-generators] [--root runs] [--json]

Means over seeds with 95 % intervals (Student's t) of each trial's last evaluation; a line whose seeds are not all done
is open. The accuracy score (Ravuri & Vinyals 2019) is measured here: for every finished trial a classifier is trained
on rows that its kept network draws, and tested on the real test rows; so are classifiers of as many real rows, and of
all of them, from the same seeds and for as many updates. A measurement takes seconds to minutes and is kept in
ROOT/accuracy_scores.json, so that the command may be stopped, and asked again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.common import cell, finish, note, parser, trained
from harness.statistics import t_interval

__all__ = ["Kept", "gap", "label_of", "lines_of", "table"]

JUDGED = ("precision", "recall", "density", "coverage", "label_accuracy")
SCORE = "accuracy_score"
WANTED = 0.06  # at most, below the accuracy after as many real rows; the best published gap is 0.02 on larger networks
CLASSIFIER: dict[str, Any] = {"net": {"kind": "dcgan", "hidden_features": 16}, "shift": 0, "flip": True}


class Kept:
    """Numbers that are measured once and kept in a JSON file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.values: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}

    def __call__(self, key: str, measure: Callable[[], float]) -> float:
        """The number of that name, measured if it is not there."""
        if key not in self.values:
            self.values[key] = measure()
            part = self.file.with_suffix(".part")
            part.write_text(json.dumps(self.values, indent=1))
            part.replace(self.file)
            note(f"{key}: {self.values[key]:.4f}")
        return self.values[key]


def label_of(trial: pd.Series) -> str:
    """What people call a line."""
    parts = [trial["learner"]]
    parts += [trial[f"config.{name}"] for name in ("generator.kind", "loss") if trial["learner"] == "gan"]
    return ", ".join(parts)


def lines_of(trials: pd.DataFrame, metrics: pd.DataFrame, scores: dict[str, float]) -> list[dict[str, Any]]:
    """One line a label, in the file's order: how many are planned and done, values of each metric by seed.

    Args:
        trials: of `harness.load(...)`.
        metrics: likewise.
        scores: trial -> accuracy score, for those that are done.
    """
    found: dict[str, dict[str, Any]] = {}
    for identity, row in trials.iterrows():
        line = found.setdefault(label_of(row), {"planned": 0, "versions": set(), "seeds": [], "values": {}})
        line["planned"] += 1
        line["versions"].add(int(row["version"]))
        if row["state"] != "done":
            continue
        last = metrics[metrics["trial"] == identity].dropna(subset=["eval/coverage"]).iloc[-1]
        (frechet,) = (name for name in last.index if name.startswith("eval/frechet_") and last[name] == last[name])
        line["seeds"].append(int(row["seed"]))
        values = {name: last.get(name) for name in (frechet, *(f"eval/{name}" for name in JUDGED))}
        for name, value in (values | {SCORE: scores[str(identity)]}).items():
            line["values"].setdefault(name.removeprefix("eval/"), []).append(float(value))
    return [{"line": name, **line, "versions": sorted(line["versions"])} for name, line in found.items()]


def gap(lines: Sequence[dict[str, Any]], real: dict[int, float]) -> dict[str, Any]:
    """The best complete line by its mean accuracy score, and how far it stays below real rows, seed by seed.

    Args:
        lines: of `lines_of`.
        real: seed -> accuracy after real rows.

    Returns:
        "verdict" ("met" where the interval lies within WANTED, "missed" where it lies above, "undecided" between,
        "open" while a line is not complete), and from the first complete line of two seeds on "line", "gap" (a mean),
        "low" and "high".
    """
    complete = [line for line in lines if len(line["seeds"]) == line["planned"] > 1]
    if not complete:
        return {"verdict": "open"}
    best = max(complete, key=lambda line: np.mean(line["values"][SCORE]))
    pairs = zip(best["seeds"], best["values"][SCORE], strict=True)
    differences = np.array([real[seed] - score for seed, score in pairs])
    low, high = map(float, t_interval(differences))
    verdict = "met" if high <= WANTED else "missed" if low > WANTED else "undecided"
    verdict = verdict if len(complete) == len(lines) else "open"
    return {"line": best["line"], "gap": float(differences.mean()), "low": low, "high": high, "verdict": verdict}


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The lines as a Markdown table."""
    names = list(dict.fromkeys(name for line in lines for name in line["values"]))
    rows = [f"| {' | '.join(['rows of', 'seeds', *names])} |", "|---" * (2 + len(names)) + "|"]
    for line in lines:
        done = len(line["seeds"])
        seeds = f"{done} of {line['planned']}" + (", open" if done < line["planned"] else "")
        rows.append("| " + " | ".join([line["line"], seeds, *(cell(line["values"].get(n, [])) for n in names)]) + " |")
    return "\n".join(rows)


def measured(results: Any, rows: int, updates: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Accuracy scores of finished trials, and lines of real rows: as many as are drawn, then all training rows."""
    from generative.accuracy_score import accuracy, fit_classifier, tensors
    from generative.judge import Judge
    from harness import data

    (name,) = results.trials["config.data"].unique()
    card = data.card(name)
    train, test = (tensors(data.load(name)[split]) for split in ("train", "test"))
    keep = Kept(results.root / "accuracy_scores.json")

    def score(x: torch.Tensor, y: torch.Tensor, seed: int) -> float:
        return accuracy(fit_classifier(x, y, card.classes, updates, seed=seed, **CLASSIFIER), *test)

    def drawn(identity: str, seed: int) -> float:
        labels = torch.arange(rows) % card.classes
        return score(results.learner(identity).draw(results.network(identity, "final"), labels), labels, seed)

    done = results.trials[results.trials["state"] == "done"]
    scores = {}
    for identity, trial in done.iterrows():
        seed = int(trial["seed"])
        scores[identity] = keep(f"{identity}, {rows} rows, {updates} updates", lambda: drawn(identity, seed))  # noqa: B023
    seeds = sorted({int(seed) for seed in results.trials["seed"]})
    ceiling = {name: [float(value)] for name, value in Judge(card).ceiling(rows).items()}
    lines: list[dict[str, Any]] = []
    for count in (rows, len(train[0])):
        x, y = (t[:count] for t in train)
        values = [
            keep(f"{name}, {count} real rows, {updates} updates, seed {seed}", lambda: score(x, y, seed))  # noqa: B023
            for seed in seeds
        ]
        judged = {n: v for n, v in ceiling.items() if n in JUDGED or n.startswith("frechet_")} if not lines else {}
        line = {"line": f"{count} real rows", "planned": len(seeds), "seeds": seeds, "versions": []}
        lines.append({**line, "values": judged | {SCORE: values}})
    return scores, lines


def main() -> None:
    """Measures what is not measured yet; prints the table and its lines as JSON."""
    options = parser("generators", __doc__)
    options.add_argument("--name", default="fashion-generators", help="the experiment")
    options.add_argument("--root", default="runs", help="the run root")
    options.add_argument("--rows", type=int, default=5000, help="that a classifier is trained on")
    options.add_argument("--updates", type=int, default=600, help="of a classifier, on 128 rows each")
    args = options.parse_args()
    torch.set_num_threads(1)
    results = trained(args.name, args.root)
    scores, real = measured(results, args.rows, args.updates)
    lines = lines_of(results.trials, results.metrics(), scores)
    gaps = [gap(lines, dict(zip(line["seeds"], line["values"][SCORE], strict=True))) for line in real]
    note(table([*lines, *real]))
    for line, found in zip(real, gaps, strict=True):
        if "gap" in found:
            span = f"{100 * found['gap']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}] points"
            note(f"{found['line']}: {span} below {line['line']}, wanted at most {100 * WANTED:.0f}: {found['verdict']}")
    ended = sum(len(line["seeds"]) == line["planned"] for line in lines)
    ratios = {"lines_complete": ended, "lines": len(lines)}
    finish("generators", ratios, {"lines": [*lines, *real], "gaps": gaps}, args)


if __name__ == "__main__":
    main()
