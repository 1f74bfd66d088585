"""Readers, seq2seq, language models, retrieval: reads what an experiment of `experiments/evidence/` has trained.

`python -m benchmarks.sequences [--name stories] [--root runs] [--json]`, for stories, pronunciation, translation,
language-model and transfer-retrieval, trains nothing and may be asked at any time: a line whose trials are not all done
is open, and says how many are. Means over seeds of the score at its best validation ("score", as the page has it) and
of the last evaluation, with 95 % intervals (Student's t).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from benchmarks.common import cell, finish, note, parser, trained

__all__ = ["lines_of", "table"]

MEASURED = {
    "reader": ("test_exact", "val_exact", "train_exact", "majority_exact"),
    "language-model": ("test_loss", "test_perplexity", "test_bits_per_byte", "gap"),
    "retriever": tuple(
        f"{way}_{name}" for way in ("test", "untouched", "tfidf") for name in ("recall_1", "recall_5", "mrr")
    ),
    "seq2seq": tuple(
        f"{way}_{name}" for name in ("bleu", "chrf", "error_rate", "exact") for way in ("test", "beam", "dictionary")
    ),
}


def label_of(config: pd.Series) -> str:
    """What people call a line."""
    cell = config.get("config.net.cell")
    exchanged = config.get("config.exchange")
    kind = config.get("config.net.kind")
    parts = [config["config.data"], kind if isinstance(kind, str) else config["config.way"]]
    parts += [cell] if isinstance(cell, str) else []
    parts += ["words exchanged"] if isinstance(exchanged, list) and exchanged else []
    return ", ".join(parts)


def lines_of(trials: pd.DataFrame, metrics: pd.DataFrame) -> list[dict[str, Any]]:
    """One line for every entry of the file and point of its grid.

    Args:
        trials: of `harness.load(...)`.
        metrics: likewise.
    """
    found: dict[str, dict[str, Any]] = {}
    for identity, row in trials.iterrows():
        names = MEASURED[row["learner"]]
        line = found.setdefault(label_of(row), {"planned": 0, "versions": set(), "score": [], "values": {}})
        line["planned"] += 1
        line["versions"].add(int(row["version"]))
        if row["state"] != "done":
            continue
        line["score"].append(float(row["score"]))
        own = metrics[metrics["trial"] == identity]
        for name in names:
            line["values"].setdefault(name, []).append(float(own[f"eval/{name}"].dropna().iloc[-1]))
    return [{"line": name, **line, "versions": sorted(line["versions"])} for name, line in found.items()]


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The lines as a Markdown table."""
    names = list(dict.fromkeys(name for line in lines for name in line["values"]))
    rows = [f"| {' | '.join(['what', 'seeds', 'score', *names])} |", "|---" * (3 + len(names)) + "|"]
    for line in lines:
        done = len(line["score"])
        seeds = f"{done} of {line['planned']}" + (", open" if done < line["planned"] else "")
        values = [line["score"], *(line["values"].get(name, []) for name in names)]
        rows.append("| " + " | ".join([line["line"], seeds, *map(cell, values)]) + " |")
    return "\n".join(rows)


def main() -> None:
    """Prints the table and its lines as JSON."""
    options = parser("sequences", __doc__)
    options.add_argument("--name", default="stories", help="the experiment")
    options.add_argument("--root", default="runs", help="the run root")
    args = options.parse_args()
    results = trained(args.name, args.root)
    lines = lines_of(results.trials, results.metrics())
    note(table(lines))
    ended = sum(len(line["score"]) == line["planned"] for line in lines)
    finish("sequences", {"lines_complete": ended, "lines": len(lines)}, {"lines": lines}, args)


if __name__ == "__main__":
    main()
