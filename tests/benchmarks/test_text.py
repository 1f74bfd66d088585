"""The table of writers: which evaluation stands where, and what is open."""

import pandas as pd

from benchmarks.text import lines_of, table

TRIALS = pd.DataFrame(
    [
        {"id": "a", "learner": "text-gan", "version": 1, "state": "done", "config.lr": 0.1, "config.pretrain": 10.0,
         "config.pretrain_judge": 5.0, "config.temperatures": (0.8, 1.0)},
        {"id": "b", "learner": "text-gan", "version": 1, "state": "running", "config.lr": 0.1, "config.pretrain": 10.0,
         "config.pretrain_judge": 5.0, "config.temperatures": (0.8, 1.0)},
        {"id": "c", "learner": "text-mle", "version": 1, "state": "done", "config.lr": 0.0, "config.updates": 5.0,
         "config.temperatures": (1.0,)},
    ]
).set_index("id")  # fmt: skip
METRICS = pd.DataFrame(
    [
        {"trial": "a", "progress": 15, "eval/nll_test": 3.0, "eval/nll_oracle": 5.0, "eval/nll_oracle@0.8": 4.5},
        {"trial": "a", "progress": 18, "loss": 1.0},
        {"trial": "a", "progress": 20, "eval/nll_test": 3.5, "eval/nll_oracle": 4.0, "eval/nll_oracle@0.8": 3.5},
        {"trial": "b", "progress": 15, "eval/nll_test": 3.2, "eval/nll_oracle": 5.2, "eval/nll_oracle@0.8": 4.7},
        {"trial": "c", "progress": 5, "eval/nll_test": 9.0, "eval/nll_oracle": 9.5},
    ]
)


def test_lines_are_the_end_and_the_moment_before_the_game():
    lines = {(x["writer"], x["moment"], x["temperature"]): x for x in lines_of(TRIALS, METRICS)}
    assert lines["text-gan", "before the game", "1"]["values"]["nll_oracle"] == [5.0, 5.2]
    assert lines["text-gan", "end", "1"]["values"]["nll_oracle"] == [4.0]  # the other seed is not done
    assert lines["text-gan", "end", "0.8"]["values"]["nll_oracle"] == [3.5]
    assert lines["random", "end", "1"]["values"]["nll_test"] == [9.0]
    assert len(lines) == 5


def test_the_table_says_what_is_open():
    rows = table(lines_of(TRIALS, METRICS)).splitlines()
    assert [row for row in rows if "1 of 2, open" in row and row.startswith("| text-gan | end |")]
    assert "| 5.100 +- 1.271 |" in next(row for row in rows if "before the game | 1 |" in row)  # t: 12.706 * 0.1
    assert "js_4" not in rows[0]


def test_it_may_be_asked_before_anything_was_measured():
    assert all(not line["values"]["nll_test"] for line in lines_of(TRIALS, pd.DataFrame()))
