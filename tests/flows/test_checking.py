"""`seedbed overfit` and `seedbed lr-range`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from flows.cli import app

TEXT = """
name: e
trials:
  - {learner: ppo, env: CartPole-v1}
  - {learner: classifier, batch: 32, net: {kind: mlp, hidden_features: 64, depth: 1}, grid: {net.dropout: [0.0, 0.2]}}
  - {learner: regressor, batch: 16, net: {kind: mlp, hidden_features: 32, depth: 1}}
"""


def seedbed(folder: Path, *arguments: str, text: str = TEXT) -> Result:
    file = folder / "e.yaml"
    file.write_text(text)
    return CliRunner().invoke(app, [arguments[0], str(file), *arguments[1:]])


def test_a_network_that_can_learn_a_batch_does_and_one_without_a_learning_rate_does_not(tmp_path: Path):
    done = seedbed(tmp_path, "overfit", "--updates", "96", "--json", "--set", "trials.2.lr=0")
    assert done.exit_code == 1, done.output
    rows = {row["trial"]: row for row in json.loads(done.stdout.splitlines()[-1])["trials"]}
    assert [row["learnt"] for row in rows.values()] == [True, True, False]
    assert [row["rows"] for row in rows.values()] == [32, 32, 16]
    assert rows["regressor"]["first"] == pytest.approx(rows["regressor"]["last"], rel=0.2)
    shown = seedbed(tmp_path, "overfit", "--updates", "16", "--set", "trials.1.lr=0.01")
    assert "learnt" in shown.stdout


def test_a_range_of_learning_rates_shows_those_that_train(tmp_path: Path):
    arguments = ("--low", "1e-6", "--high", "1e4", "--count", "6", "--chunks", "4", "--json")
    done = seedbed(tmp_path, "lr-range", *arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    assert [row["lr"] for row in found["rates"]] == pytest.approx([1e-6, 1e-4, 1e-2, 1, 1e2, 1e4])
    assert found["best"] == pytest.approx(1e-2)
    last = [row["last"] for row in found["rates"]]
    assert last[2] < min(last[0], last[5] or 1e9)


def test_a_file_without_supervised_trials_is_refused(tmp_path: Path):
    for command in ("overfit", "lr-range"):
        done = seedbed(tmp_path, command, text="name: e\ntrials: [{learner: ppo, env: CartPole-v1}]")
        assert done.exit_code == 1
        assert "no supervised trial in it" in done.stderr
