"""The table of defaults: a line a configuration, the worst seed named, in the direction of its score."""

from __future__ import annotations

import pandas as pd

from benchmarks.defaults import lines_of, table, worst


def _trial(learner, seed, score, state="done", **config):
    named = {f"config.{name}": value for name, value in config.items()}
    return {"learner": learner, "version": 3, "seed": seed, "state": state, "score": score, **named}


ROWS = {
    "a": _trial("ppo", 1001, 148.3, env="CartPole-v1"),
    "b": _trial("ppo", 1000, 500.0, env="CartPole-v1"),
    "c": _trial("ppo", 1002, None, state="running", env="CartPole-v1"),
    "d": _trial("regressor", 1000, 55.0, data="diabetes", **{"net.kind": "mlp"}),
    "e": _trial("regressor", 1001, 61.0, data="diabetes", **{"net.kind": "mlp"}),
    "f": _trial("classifier", 1000, None, state="planned", data="digits", **{"net.kind": "cnn"}),
}
SCORES = {"a": ("return", "max"), "d": ("test_rmse", "min")}
LIKE = {"a": "a", "b": "a", "d": "d", "e": "d"}


def _lines():
    def score_of(trial):
        name, direction = SCORES[LIKE[trial]]
        return {"name": name, "direction": direction}

    return lines_of(pd.DataFrame.from_dict(ROWS, orient="index"), score_of)


def test_the_worst_seed_is_found_in_the_direction_of_the_score():
    agent, classifier, regressor = sorted(_lines(), key=lambda line: (line["line"] != "ppo, CartPole-v1", line["line"]))
    assert (agent["planned"], agent["seeds"], worst(agent)) == (3, [1000, 1001], (148.3, 1001))
    assert (regressor["line"], worst(regressor)) == ("regressor, diabetes, mlp", (61.0, 1001))
    assert (classifier["planned"], classifier["scores"]) == (1, [])


def test_a_row_says_how_many_seeds_it_rests_on_and_an_open_line_shows_no_figure():
    text = table(_lines())
    assert "| ppo, CartPole-v1 | 3 | return | 2 of 3 | 324.1 | 324.1 |" in text
    assert "| 148.3 (1001) |" in text
    assert "| classifier, digits, cnn | 3 |  | 0 of 1 |  |  |  |  |  |" in text
