"""Classifiers beside published accuracies: reads what `fashion-mnist.yaml` or `mnist-1d.yaml` has trained.

`python -m benchmarks.accuracies [NAME] [--root runs] [--json]` trains nothing and may be asked at any time. A line is a
data set and a network: test accuracy at the best validation (the score, as the page has it) and at the last evaluation,
means over seeds with 95 % intervals (Student's t); what is not done yet is open, and says how far its first seed is.

Fashion-MNIST: at least so much is wanted (published: its README's table; XGBoost 89.8, a CNN below 100,000 parameters
92.5, GRU 89.7, ResNet-18 94.9 %). MNIST-1D: within 2 points of Greydanus & Kobak 2024 on either side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.common import cell, finish, note, parser, trained

__all__ = ["Wanted", "lines_of", "table", "verdict"]


@dataclass(frozen=True)
class Wanted:
    """What a line is held against.

    Attributes:
        least: the test accuracy that is wanted.
        most: above it the published finding is not reproduced either.
        parameters: so many, or more, are too many.
    """

    least: float
    most: float = 1.0
    parameters: float = math.inf


def near(published: float) -> Wanted:
    """Within 2 points of a published accuracy."""
    return Wanted(published - 0.02, published + 0.02)


WANTED = {
    "fashion-mnist, mlp": Wanted(0.895),
    "fashion-mnist, cnn": Wanted(0.92, parameters=100_000),
    "fashion-mnist, gru": Wanted(0.89),
    "fashion-mnist, resnet": Wanted(0.935),
    "fashion-mnist, vit": Wanted(0.88),
    "mnist-1d, logistic": near(0.32),
    "mnist-1d, mlp": near(0.68),
    "mnist-1d, cnn-1d": near(0.94),
    "mnist-1d, gru": near(0.91),
    "mnist-1d-shuffled, logistic": near(0.32),
    "mnist-1d-shuffled, mlp": near(0.68),
    "mnist-1d-shuffled, cnn-1d": near(0.56),
    "mnist-1d-shuffled, gru": near(0.57),
}


def label_of(config: Mapping[str, Any]) -> str:
    """What people call a line: a perceptron with shortcuts is one, and one whose layers are all linear is logistic."""
    linear = config.get("config.net.activation") == "identity"
    return f"{config['config.data']}, {'logistic' if linear else config['config.net.kind'].removeprefix('residual-')}"


def lines_of(trials: pd.DataFrame, metrics: pd.DataFrame) -> list[dict[str, Any]]:
    """One line for every data set and network.

    Args:
        trials: of `harness.load(...)`.
        metrics: likewise.
    """
    found: dict[str, dict[str, Any]] = {}
    for identity, row in trials.iterrows():
        line = found.setdefault(label_of(row), {"planned": 0, "versions": set(), "score": [], "last": [], "val": []})
        line["planned"] += 1
        line["versions"].add(int(row["version"]))
        own = metrics[metrics["trial"] == identity] if len(metrics) else metrics
        seen = own.dropna(subset=["eval/val_accuracy"]) if "eval/val_accuracy" in own else own.iloc[:0]
        if not len(seen):
            continue
        best = seen.loc[seen["eval/val_accuracy"].idxmax()]  # the first of equals, as the worker keeps it
        if row["state"] == "done":
            line["score"].append(float(row["score"]))
            line["last"].append(float(seen["eval/test_accuracy"].iloc[-1]))
            line["val"].append(float(best["eval/val_accuracy"]))
        else:
            line.setdefault("so_far", [float(best["eval/test_accuracy"]), int(seen["progress"].iloc[-1])])
    return [{"line": name, **line, "versions": sorted(line["versions"])} for name, line in found.items()]


def verdict(line: Mapping[str, Any], parameters: int) -> str:
    """met, above, below or too large; open while a seed is missing."""
    wanted = WANTED.get(line["line"])
    if wanted is None:
        return ""
    if len(line["score"]) < line["planned"]:
        after = "{:.4f} after {:,} rows".format(*line["so_far"]) if "so_far" in line else "nothing yet"
        return f"open: {after}"
    mean = sum(line["score"]) / len(line["score"])
    if parameters >= wanted.parameters:
        return "too large"
    return "below" if mean < wanted.least else "above" if mean > wanted.most else "met"


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """The lines, each with "parameters" and "verdict", as a Markdown table."""
    names = ("data, network", "parameters", "seeds", "test accuracy", "at the last evaluation", "validation", "wanted")
    rows = [f"| {' | '.join(names)} | verdict |", "|---" * (1 + len(names)) + "|"]
    for line in lines:
        wanted = WANTED.get(line["line"])
        least, most = (wanted.least, wanted.most) if wanted else (0.0, 1.0)
        asked = f"{least:.2f} to {most:.2f}" if most < 1 else f">= {least:.3f}" * (wanted is not None)
        seeds = f"{len(line['score'])} of {line['planned']}"
        values = map(cell, (line["score"], line["last"], line["val"]))
        shown = [line["line"], f"{line['parameters']:,}", seeds, *values, asked, line["verdict"]]
        rows.append(f"| {' | '.join(shown)} |")
    return "\n".join(rows)


def parameters_of(folder: Path) -> int:
    """How many numbers the network of a run folder learns; 0 where its trial has not begun."""
    import torch

    from harness import data
    from harness.report.folders import read_json
    from nets.registry import build

    config = read_json(folder / "config.json").get("config")
    if not config:
        return 0
    card = data.card(config["data"])
    with torch.device("meta"):
        return sum(p.numel() for p in build(config["net"], card.shape, card.classes).parameters())


def main() -> None:
    """Prints the table and its lines as JSON."""
    options = parser("accuracies", __doc__)
    options.add_argument("name", nargs="?", default="fashion-mnist", help="the experiment")
    options.add_argument("--root", default="runs", help="the run root")
    args = options.parse_args()
    results = trained(args.name, args.root)
    lines = lines_of(results.trials, results.metrics())
    for line in lines:
        trial = next(i for i, row in results.trials.iterrows() if label_of(row) == line["line"])
        line["parameters"] = parameters_of(results.folder(trial))
        line["verdict"] = verdict(line, line["parameters"])
    note(table(lines))
    finish("accuracies", {"met": sum(line["verdict"] == "met" for line in lines)}, {"lines": lines}, args)


if __name__ == "__main__":
    main()
