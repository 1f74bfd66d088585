"""What changes against a control, seed by seed: reads what an experiment file has trained, and trains nothing.

    python -m benchmarks.paired regularisation --control classifier --metrics gap,test_loss,test_accuracy
    python -m benchmarks.paired gan-augmentation --by train_rows --control synthetic_from= --kept

A line is a label: the control's mean, and the mean over seeds of (its last evaluation - that of the control of the same
seed) with Student's 95 % interval; `apart` where that leaves out 0. With `--by FIELD` a label's control is the one with
the same value of that field. A line whose seeds are not all done says how many are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.common import finish, note, parser, trained
from harness.statistics import t_interval

__all__ = ["differences"]


def differences(
    rows: Sequence[Mapping[str, Any]], control: str, by: str, metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """Paired differences of every label to its control.

    Args:
        rows: one a trial: "label", "seed", the field `by`, and the metrics (None where a trial is not done).
        control: how the label of a control ends.
        by: a field that a label and its control share; "" for none.
        metrics: names.

    Returns:
        One dict a label: "label", "seeds" (pairs that are done) and, from two pairs on, for each metric the mean
        difference, its interval, whether that leaves out 0, and the control's mean.
    """
    controls = {(row.get(by), row["seed"]): row for row in rows if row["label"].endswith(control)}
    found = []
    for label in dict.fromkeys(row["label"] for row in rows if not row["label"].endswith(control)):
        pairs = [(row, controls.get((row.get(by), row["seed"]))) for row in rows if row["label"] == label]
        done = [(a, b) for a, b in pairs if b and a[metrics[0]] is not None and b[metrics[0]] is not None]
        line: dict[str, Any] = {"label": label, "seeds": len(done)}
        for name in metrics if len(done) > 1 else ():
            values = np.array([a[name] - b[name] for a, b in done])
            low, high = map(float, t_interval(values))
            line[name] = {"mean": float(values.mean()), "low": low, "high": high, "apart": low > 0 or high < 0}
            line[name]["control"] = float(np.mean([b[name] for _, b in done]))
        found.append(line)
    return found


def _rows(results: Any, by: str, metrics: Sequence[str], kept: bool) -> list[dict[str, Any]]:
    """What `differences` takes, of the trials of an experiment."""
    rows = []
    for identity, trial in results.trials.iterrows():
        values: dict[str, Any] = dict.fromkeys(metrics)
        if trial["state"] == "done":
            lines = results.metrics(identity)
            if f"eval/{metrics[0]}" not in lines:  # a parent of another kind
                continue
            lines = lines.dropna(subset=[f"eval/{metrics[0]}"])
            place = lines["eval/val_accuracy"].argmax() if kept else -1  # the first of equals, as the worker keeps it
            values = {name: float(lines[f"eval/{name}"].iloc[place]) for name in metrics}
        rows.append({"label": trial["label"], "seed": trial["seed"], by: trial.get(f"config.{by}"), **values})
    return rows


def main() -> None:
    """Prints the differences."""
    options = parser("paired", __doc__)
    options.add_argument("name", help="the experiment's name")
    options.add_argument("--control", required=True, help="how the label of a control ends")
    options.add_argument("--by", default="", help="a field that a label and its control share")
    options.add_argument("--metrics", default="test_loss,test_accuracy", help="names, separated by commas")
    options.add_argument("--kept", action="store_true", help="the kept network instead of the last evaluation")
    options.add_argument("--root", default="runs", help="the run root")
    given = options.parse_args()
    metrics = given.metrics.split(",")
    rows = _rows(trained(given.name, given.root), given.by, metrics, given.kept)
    found = differences(rows, given.control, given.by, metrics)
    for line in found:
        note(f"{line['label']} ({line['seeds']} seeds)")
        for name, d in ((n, line[n]) for n in metrics if n in line):
            interval = f"{d['mean']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}]{' apart' * d['apart']}"
            note(f"    {name:<16} {d['control']:.4f} {interval}")
    finish("paired", {}, {"experiment": given.name, "control": given.control, "lines": found}, given)


if __name__ == "__main__":
    main()
