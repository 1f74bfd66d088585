"""Classifiers beside published accuracies: what is missing is open, what differs from the published is not met."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmarks.accuracies import lines_of, table, verdict


def _trial(state, score, **config):
    return {"version": 3, "state": state, "score": score, **{f"config.{name}": value for name, value in config.items()}}


def test_a_line_has_the_score_at_the_best_validation_beside_the_last_evaluation():
    series = {"data": "mnist-1d", "net.kind": "mlp"}
    rows = {
        "x": _trial("done", 0.33, **series, **{"net.activation": "identity"}),
        "y": _trial("done", 0.7, **series, **{"net.activation": "relu"}),
        "z": _trial("running", None, **series, **{"net.activation": "relu"}),
    }
    shown = [("x", 10, 0.4, 0.33), ("x", 20, 0.3, 0.2), ("y", 10, 0.8, 0.7), ("z", 10, 0.5, 0.6), ("z", 20, 0.4, 0.65)]
    metrics = pd.DataFrame(shown, columns=["trial", "progress", "eval/val_accuracy", "eval/test_accuracy"])
    logistic, mlp = lines_of(pd.DataFrame.from_dict(rows, orient="index"), metrics)
    assert (logistic["line"], logistic["score"], logistic["last"]) == ("mnist-1d, logistic", [0.33], [0.2])
    assert (mlp["line"], mlp["score"], mlp["planned"], mlp["so_far"]) == ("mnist-1d, mlp", [0.7], 2, [0.6, 20])
    assert verdict(logistic, 2050) == "met"
    assert verdict(mlp, 15210) == "open: 0.6000 after 20 rows"
    for line in (logistic, mlp):
        line |= {"parameters": 2050, "verdict": verdict(line, 2050)}
    row = "| mnist-1d, logistic | 2,050 | 1 of 1 | 0.330 | 0.200 | 0.400 | 0.30 to 0.34 | met |"
    assert row in table([logistic, mlp])


@pytest.mark.parametrize(
    ("name", "score", "parameters", "found"),
    [
        ("fashion-mnist, cnn", 0.93, 99_999, "met"),
        ("fashion-mnist, cnn", 0.93, 100_000, "too large"),
        ("fashion-mnist, cnn", 0.91, 99_999, "below"),
        ("mnist-1d-shuffled, gru", 0.70, 5_000, "above"),
        ("digits, mlp", 0.70, 5_000, ""),
    ],
)
def test_the_verdict_says_how_a_line_misses(name, score, parameters, found):
    assert verdict({"line": name, "planned": 1, "score": [score]}, parameters) == found
