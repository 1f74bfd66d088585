"""Every learner's defaults on seeds never looked at before: reads what `experiments/evidence/defaults.yaml` trained.

`python -m benchmarks.defaults [NAME] [--root runs] [--json]` trains nothing and may be asked at any time. A line is one
configuration: how many of its seeds are done, the mean of their scores, the interval that suits their number, and the
worst score with its seed. Defaults were chosen on other seeds, so the worst of these is what a new user may meet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common import finish, note, parser, trained
from harness.report.folders import read_json
from harness.statistics import summarise

__all__ = ["lines_of", "table"]


def name_of(row: Mapping[str, Any]) -> str:
    """What tells a line from others: its learner, data or environment, and network where several are asked for."""
    where = row.get("config.env")
    where = row.get("config.data") if not isinstance(where, str) else where
    kind = row.get("config.net.kind")
    return ", ".join(str(part) for part in (row["learner"], where, kind) if isinstance(part, str))


def lines_of(trials: pd.DataFrame, score_of: Callable[[str], Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line for every configuration: scores of the seeds that are done, in the order of their seeds.

    Args:
        trials: of `harness.load(...)`, with the columns learner, version, seed, state, score and config.*.
        score_of: the id of a trial that is done to the name and the direction ("max" or "min") of its score.
    """
    found: dict[str, dict[str, Any]] = {}
    for identity, row in trials.sort_values("seed").iterrows():
        empty: dict[str, Any] = {"line": name_of(row), "planned": 0, "versions": [], "seeds": [], "scores": []}
        line = found.setdefault(name_of(row), empty)
        line["planned"] += 1
        line["versions"] = sorted({*line["versions"], int(row["version"])})
        if row["state"] in ("done", "diverged"):
            line["seeds"].append(int(row["seed"]))
            line["scores"].append(float(row["score"]))
            line["score"] = dict(score_of(str(identity)))
    return list(found.values())


def worst(line: Mapping[str, Any]) -> tuple[float, int]:
    """The worst score of a line with at least one seed done, and the seed that had it."""
    pick = np.argmax(line["scores"]) if line["score"]["direction"] == "min" else np.argmin(line["scores"])
    return line["scores"][int(pick)], line["seeds"][int(pick)]


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """The lines as a Markdown table."""
    head = ("defaults of", "version", "score", "seeds", "mean", "IQM", "95 % interval", "median", "worst (its seed)")
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for line in lines:
        name = line.get("score", {}).get("name", "")
        versions, seeds = ", ".join(map(str, line["versions"])), f"{len(line['scores'])} of {line['planned']}"
        shown = [line["line"], versions, name, seeds]
        if line["scores"]:
            found, (score, seed) = summarise(line["scores"]), worst(line)
            bounded = found.low is not None and found.high is not None
            ends = f"{found.low:.4g} to {found.high:.4g} ({found.of})" if bounded else ""
            middle = float(np.median(line["scores"]))
            shown += [f"{found.mean:.4g}", f"{found.iqm:.4g}", ends, f"{middle:.4g}", f"{score:.4g} ({seed})"]
        else:
            shown += [""] * 5
        rows.append(f"| {' | '.join(shown)} |")
    return "\n".join(rows)


def main() -> None:
    """Prints the table and its lines as JSON."""
    options = parser("defaults", __doc__)
    options.add_argument("name", nargs="?", default="defaults", help="the experiment")
    options.add_argument("--root", default="runs", help="the run root")
    args = options.parse_args()
    results = trained(args.name, args.root)
    lines = lines_of(results.trials, lambda trial: read_json(results.folder(trial) / "config.json")["score"])
    note(table(lines))
    complete = sum(len(line["scores"]) == line["planned"] for line in lines)
    finish("defaults", {"complete": complete / max(len(lines), 1)}, {"lines": lines}, args)


if __name__ == "__main__":
    main()
