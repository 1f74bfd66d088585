"""Known modes: reads what `seedbed run experiments/evidence/gan-modes.yaml` has trained, and trains nothing.

`python -m benchmarks.gan_modes [--root runs] [--json]`: for the ring and the grid the worst seed's figures beside what
is wanted of every seed, and how many seeds are done.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from benchmarks.common import finish, note, parser, trained
from harness import data

__all__ = ["line_of"]

HQ = {"ring-8": 0.92, "grid-25": 0.85}
SPREAD = (0.8, 1.25)


def line_of(name: str, planned: int, scores: pd.DataFrame) -> dict[str, Any]:
    """One line of the table: ranges over seeds and the verdict.

    Args:
        name: of the data set.
        planned: seeds that there are to be.
        scores: of the seeds that are done, a row each: modes, min_mode_share, max_mode_share, hq_share, spread.
    """
    classes = data.card(name).classes
    line: dict[str, Any] = {"done": f"{len(scores)} of {planned}"}
    if not len(scores):
        return {**line, "verdict": "open"}
    low, high = scores.min(), scores.max()
    line |= {column: [float(low[column]), float(high[column])] for column in scores}
    met = {
        "modes": low["modes"] == classes,
        "shares": low["min_mode_share"] >= 0.5 / classes and high["max_mode_share"] <= 2 / classes,
        "hq_share": low["hq_share"] >= HQ[name],
        "spread": low["spread"] >= SPREAD[0] and high["spread"] <= SPREAD[1],
    }
    missed = [what for what, fine in met.items() if not fine]
    verdict = "missed: " + ", ".join(missed) if missed else "met"
    return {**line, "verdict": verdict if len(scores) == planned else "open"}


def main() -> None:
    """Prints the table and its lines as JSON."""
    options = parser("gan_modes", __doc__)
    options.add_argument("--root", default="runs", help="the run root")
    args = options.parse_args()
    results = trained("gan-modes", args.root)
    columns = ["modes", "min_mode_share", "max_mode_share", "hq_share", "spread"]
    last = results.metrics().sort_values("progress").groupby("trial").last()
    lines = {}
    for name in HQ:
        trials = results.trials[results.trials["config.data"] == name]
        done = last.loc[[i for i in trials.index if trials.loc[i, "state"] == "done"]]
        lines[name] = line_of(name, len(trials), done[[f"eval/{c}" for c in columns]].set_axis(columns, axis=1))
    note("| data | seeds | modes | share of a mode | high quality | spread | verdict |\n|---|---|---|---|---|---|---|")
    for name, line in lines.items():
        if line["done"].startswith("0"):
            continue
        shares = [line["min_mode_share"][0], line["max_mode_share"][1]]
        spans = (line["modes"], shares, line["hq_share"], line["spread"])
        cells = " | ".join(f"{low:.3g} to {high:.3g}" for low, high in spans)
        note(f"| {name} | {line['done']} | {cells} | {line['verdict']} |")
    met = sum(line["verdict"] == "met" for line in lines.values())
    finish("gan_modes", {"lines_met": met, "lines": len(lines)}, {"lines": lines}, args)


if __name__ == "__main__":
    main()
