"""Writers of text: reads what `seedbed run experiments/evidence/text-oracle.yaml` (or text-shakespeare) has trained.

`python -m benchmarks.text [--name text-oracle] [--root runs] [--json]` trains nothing and may be asked at any time: a
line whose trials are not all done is open, and says how many are. Means over seeds of the last evaluation with 95 %
intervals (Student's t); a GAN's line before the game is its own evaluation there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from benchmarks.common import cell, finish, note, parser, trained

__all__ = ["lines_of", "table"]

MEASURED = ("nll_oracle", "nll_test", "overlap_4", "distinct_4", "self_overlap_4", "js_4")


def label_of(config: pd.Series) -> str:
    """What people call a line."""
    if config["learner"] != "text-mle":
        return str(config["learner"])
    return "random" if config["config.lr"] == 0 else f"text-mle, {config['config.updates']:.0f} updates"


def lines_of(trials: pd.DataFrame, metrics: pd.DataFrame) -> list[dict[str, Any]]:
    """One line for every writer, moment ("end", and for GANs "before the game") and temperature.

    Args:
        trials: of `harness.load(...)`.
        metrics: likewise.
    """
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    columns = ["trial", "progress", "eval/nll_test"]  # there before the first boundary too
    evaluations = metrics.reindex(columns=[*columns, *metrics.columns.difference(columns)]).dropna(subset=columns)
    for identity, row in trials.iterrows():
        evaluated = evaluations[evaluations["trial"] == identity]
        moments = {"end": evaluated.tail(1) if row["state"] == "done" else evaluated.head(0)}
        start = row.get("config.pretrain", math.nan)
        if not math.isnan(start):
            judge = row.get("config.pretrain_judge", math.nan)
            moments["before the game"] = evaluated[evaluated["progress"] == start + (0 if math.isnan(judge) else judge)]
        for moment, at in moments.items():
            for temperature in row["config.temperatures"]:
                mark = "" if temperature == 1 else f"@{temperature:g}"
                key = label_of(row), moment, f"{temperature:g}"
                line = found.setdefault(key, {"planned": 0, "versions": set(), "values": {n: [] for n in MEASURED}})
                line["planned"] += 1
                line["versions"].add(int(row["version"]))
                for name in MEASURED:
                    column = f"eval/{name}" if name == "nll_test" else f"eval/{name}{mark}"
                    line["values"][name] += at[column].dropna().tolist() if column in at else []
    return [
        {"writer": writer, "moment": moment, "temperature": temperature, **line, "versions": sorted(line["versions"])}
        for (writer, moment, temperature), line in found.items()
    ]


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The lines as a Markdown table; columns without a number are left out."""
    names = [name for name in MEASURED if any(line["values"][name] for line in lines)]
    rows = [f"| writer | moment | temperature | seeds | {' | '.join(names)} |", "|---" * (4 + len(names)) + "|"]
    for line in lines:
        done = max(len(values) for values in line["values"].values())
        seeds = f"{done} of {line['planned']}" + (", open" if done < line["planned"] else "")
        cells = [line["writer"], line["moment"], line["temperature"], seeds]
        rows.append("| " + " | ".join([*cells, *(cell(line["values"][name]) for name in names)]) + " |")
    return "\n".join(rows)


def main() -> None:
    """Prints the table and its lines as JSON."""
    options = parser("text", __doc__)
    options.add_argument("--name", default="text-oracle", help="the experiment")
    options.add_argument("--root", default="runs", help="the run root")
    args = options.parse_args()
    results = trained(args.name, args.root)
    lines = lines_of(results.trials, results.metrics())
    note(table(lines))
    ended = sum(len(line["values"]["nll_test"]) == line["planned"] for line in lines)
    finish("text", {"lines_complete": ended, "lines": len(lines)}, {"lines": lines}, args)


if __name__ == "__main__":
    main()
