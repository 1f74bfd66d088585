"""`learner: function`: whatever it logs, saves and returns, its result is written and its names are kept apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from harness.checkpoint import load
from harness.driver import Driver, Outcome
from harness.experiment import load_experiment
from harness.spec_errors import SpecError
from tests.own_function import Tied


def drive(folder: Path, call: str, **config: object) -> tuple[Outcome, dict, Path]:
    file = folder / "e.yaml"
    trial = {"learner": "function", "call": f"tests.own_function:{call}", "config": config}
    file.write_text(json.dumps({"name": "e", "trials": [trial]}))
    outcome = Driver(load_experiment(file), folder / "runs", executor="inline").train()
    path = folder / "runs" / "trials" / outcome.trials[0]["id"]
    result = json.loads((path / "result.json").read_text()) if (path / "result.json").exists() else {}
    return outcome, result, path


def test_tied_weights_come_back_tied(tmp_path: Path):
    outcome, result, path = drive(tmp_path, "tied")
    assert [(t["state"], t["score"]) for t in outcome.trials] == [("done", 1.0)]
    assert result["left_out"] == []
    for name in ("final", "best"):
        weights = load_file(path / f"{name}.safetensors")
        assert weights["part"].tolist() == [1, 2]
        net = Tied()
        net.load_state_dict(weights)
        assert net.out.weight is net.embed.weight
        assert torch.equal(net.embed.weight, weights["out.weight"])


def test_a_network_that_cannot_be_written_costs_a_sentence_not_the_result(tmp_path: Path):
    outcome, result, path = drive(tmp_path, "unstorable")
    assert [(t["state"], t["score"]) for t in outcome.trials] == [("done", 2.0)]
    assert result["score"] == {"name": "score", "value": 2.0}
    assert result["weights_sha256"] == ""
    assert len(result["left_out"]) == 2
    assert "the final network could not be written: TypeError: wide is a" in result["left_out"][0]
    assert "wide is a" in (tmp_path / "runs" / "experiments" / "e" / "driver.log").read_text()
    assert not (path / "final.safetensors").exists()


@pytest.mark.parametrize("name", ["progress", "seconds", "_step", "_runtime", "trial", "seed", "state", "media/x"])
def test_a_reserved_name_is_refused_at_run_log(tmp_path: Path, name: str):
    outcome, _, path = drive(tmp_path, "named", metric=name)
    reason = outcome.trials[0]["reason"]
    assert outcome.exit_code == 1
    assert f"the metric `{name}` has a reserved name" in reason
    assert "log it as `my_" in reason
    assert (path / "metrics.jsonl").read_text() == ""


def test_a_value_that_is_no_number_is_named(tmp_path: Path):
    outcome, _, _ = drive(tmp_path, "named", metric="text", value="x")
    reason = "TypeError: run.log: `text` is a str that is not one number; log text=float(...)"
    assert outcome.trials[0]["reason"] == reason


def test_a_headline_with_a_reserved_name_is_refused_by_the_plan(tmp_path: Path):
    file = tmp_path / "e.yaml"
    trial = {"learner": "function", "call": "tests.own_function:named", "score": "seconds"}
    file.write_text(json.dumps({"name": "e", "trials": [trial]}))
    with pytest.raises(SpecError, match=r"trials\.0\.score: the metric `seconds` has a reserved name"):
        load_experiment(file)


@pytest.mark.parametrize(
    ("last", "state", "score"), [("3", "done", 3.0), ("inf", "diverged", -1e30), ("nan", "diverged", -1e30)]
)
def test_infinity_in_its_state_is_kept_and_as_its_score_diverges(tmp_path: Path, last: str, state: str, score: float):
    outcome, result, path = drive(tmp_path, "infinite", last=last)
    assert [(t["state"], t["score"]) for t in outcome.trials] == [(state, score)]
    assert result["state"] == state
    assert json.loads((path / "metrics.jsonl").read_text().splitlines()[0])["score"] is None
    (saved,) = (tmp_path / "runs" / "cohorts").glob("*/ckpt-*")
    assert load(saved).tree["state"]["saved"]["best"] == float("inf")


def test_what_is_returned_and_not_kept_is_told(tmp_path: Path):
    outcome, result, _ = drive(tmp_path, "weights_alone")
    assert (outcome.state, result["score"]["value"]) == ("done", 1.0)
    log = (tmp_path / "runs" / "experiments" / "e" / "driver.log").read_text()
    assert log.count("the function returned a OrderedDict, which is not kept; return an nn.Module to have its") == 1


@pytest.mark.parametrize("kind", ["int", "numpy", "tensor", "float"])
def test_steps_of_all_kinds_are_whole(tmp_path: Path, kind: str):
    _, result, _ = drive(tmp_path, "logs", kind=kind, step=3, power=2)
    assert (result["progress"], result["score"]["value"]) == (3, 100.0)


@pytest.mark.parametrize(
    ("step", "power", "reason"),
    [
        (2.5, 1, "ValueError: run.log: a step is a whole number; got 2.5"),
        (1, 400, "ValueError: run.log: `score` is a whole number beyond 1.8e308; log its logarithm, or less"),
    ],
)
def test_numbers_that_would_be_cut_are_refused(tmp_path: Path, step: float, power: int, reason: str):
    outcome, _, _ = drive(tmp_path, "logs", kind="float", step=step, power=power)
    assert outcome.trials[0]["reason"] == reason
