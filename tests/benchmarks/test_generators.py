"""The table of generators: last evaluations, accuracy scores that are measured once, the gap to real rows."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmarks.generators import Kept, gap, lines_of, table


def _trial(state, seed, kind, loss="rpgan"):
    return {"learner": "gan", "version": 3, "state": state, "seed": seed, "config.generator.kind": kind,
            "config.loss": loss}  # fmt: skip


def _line(name, scores, planned=3):
    seeds = list(range(len(scores)))
    return {"line": name, "planned": planned, "seeds": seeds, "versions": [3], "values": {"accuracy_score": scores}}


def test_a_line_has_the_last_evaluation_of_every_seed_that_is_done():
    trials = pd.DataFrame.from_dict(
        {"a": _trial("done", 0, "dcgan-generator"), "b": _trial("done", 1, "dcgan-generator"),
         "c": _trial("running", 2, "dcgan-generator"), "d": _trial("done", 0, "r3gan-generator")}, orient="index"
    )  # fmt: skip
    judged = {f"eval/{name}": 0.5 for name in ("precision", "recall", "density", "label_accuracy")}
    metrics = pd.DataFrame(
        [{"trial": i, "eval/frechet_fashion_cnn": f, "eval/coverage": f / 10, **judged} for i in "abd" for f in (9, 3)]
        + [{"trial": "a", "loss": 1.0}]
    )
    first, second = lines_of(trials, metrics, {"a": 0.8, "b": 0.7, "d": 0.6})
    assert (first["line"], first["planned"], first["seeds"]) == ("gan, dcgan-generator, rpgan", 3, [0, 1])
    assert first["values"]["frechet_fashion_cnn"] == [3.0, 3.0]
    assert first["values"]["coverage"] == [0.3, 0.3]
    assert first["values"]["accuracy_score"] == [0.8, 0.7]
    assert second["seeds"] == [0]
    assert "| gan, dcgan-generator, rpgan | 2 of 3, open | 3.000 +- 0.000 |" in table([first, second])


@pytest.mark.parametrize(
    ("best", "verdict"),
    [([0.85, 0.86, 0.87], "met"), ([0.7, 0.71, 0.72], "missed"), ([0.84, 0.88, 0.8], "undecided")],
)
def test_the_gap_is_that_of_the_best_line_seed_by_seed(best, verdict):
    real = {0: 0.88, 1: 0.89, 2: 0.90}
    found = gap([_line("worse", [0.5, 0.5, 0.5]), _line("best", best)], real)
    assert found["line"] == "best"
    assert found["gap"] == pytest.approx(sum(real[i] - best[i] for i in range(3)) / 3)
    assert found["low"] <= found["gap"] <= found["high"]
    assert found["verdict"] == verdict


def test_the_verdict_is_open_until_every_line_is_complete():
    real = {0: 0.88, 1: 0.89, 2: 0.90}
    lines = [_line("done", [0.85, 0.86, 0.87]), _line("half", [0.9])]
    found = gap(lines, real)
    assert (found["line"], found["verdict"]) == ("done", "open")
    assert gap(lines[1:], real) == {"verdict": "open"}


def test_what_was_measured_is_not_measured_again(tmp_path):
    calls = []
    for _ in range(2):
        keep = Kept(tmp_path / "scores.json")
        assert keep("a", lambda: calls.append("a") or 0.5) == 0.5
    assert Kept(tmp_path / "scores.json")("b", lambda: 0.25) == 0.25
    assert calls == ["a"]
    assert [file.name for file in tmp_path.iterdir()] == ["scores.json"]
