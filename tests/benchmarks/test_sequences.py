"""The table of the sequence learners: open lines say so, done ones have the last evaluation."""

from __future__ import annotations

import pandas as pd

from benchmarks.sequences import label_of, lines_of, table


def test_a_line_counts_what_is_done_and_takes_the_last_evaluation():
    shared = {"learner": "reader", "version": 1, "config.data": "stories-2", "config.exchange": [("a", "b")]}
    rows = {
        "x": {**shared, "state": "done", "score": 0.9, "config.net.kind": "lstm"},
        "y": {**shared, "state": "running", "score": None, "config.net.kind": "lstm"},
    }
    names = ("test_exact", "val_exact", "train_exact", "majority_exact")
    metrics = pd.DataFrame([{"trial": "x", **{f"eval/{n}": v for n in names}} for v in (0.1, 0.8)])
    (line,) = lines_of(pd.DataFrame.from_dict(rows, orient="index"), metrics)
    assert (line["line"], line["planned"], line["score"]) == ("stories-2, lstm, words exchanged", 2, [0.9])
    assert line["values"]["test_exact"] == [0.8]
    assert "| stories-2, lstm, words exchanged | 1 of 2, open | 0.900 | 0.800 |" in table([line])


def test_a_line_without_a_network_of_ours_is_called_by_its_way():
    assert label_of(pd.Series({"config.data": "gnome-help", "config.way": "head"})) == "gnome-help, head"
