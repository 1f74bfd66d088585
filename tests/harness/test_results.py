"""harness.load: trials, metrics and networks of a run root."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import harness
from harness import learner
from harness.ledger import Ledger
from harness.results import Results
from harness.spec import LearnerConfig, Score, Trial
from tests.harness.synthetic import make_root


class TinyConfig(LearnerConfig):
    width: int = 4


class Tiny(learner.Learner):
    """Builds one linear network a lane; trains nothing."""

    Config = TinyConfig
    unit = "steps"
    score = Score("accuracy", "max", 0.0)

    def start(self, lanes):
        self.lanes = lanes
        return {"progress": torch.zeros(len(lanes), dtype=torch.int64)}

    def network(self, state, lane):
        return nn.Linear(self.lanes.config.width, 2)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setitem(learner.BUILTIN, "tiny", "tests.harness.test_results:Tiny")
    row = {"id": "t0", "learner": "tiny", "label": "tiny", "seed": 3, "state": "done", "config": {"width": 5}}
    (tmp_path / "trials" / "t0").mkdir(parents=True)
    return Results("tiny", [row], tmp_path)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    experiment, rows = make_root(root)
    return Results(experiment["name"], rows, root)


def test_trials_are_a_frame_with_the_configuration_in_columns(synthetic):
    frame = synthetic.trials
    assert len(frame) == 30
    assert frame.index.name == "id"
    assert set(frame[frame.learner == "classifier"]["config.net.kind"]) == {
        "mlp",
        "cnn",
        "gru",
        "transformer",
    }
    assert frame.state.value_counts().to_dict() == {
        "done": 26,
        "running": 1,
        "diverged": 1,
        "planned": 1,
        "failed": 1,
    }


def test_metrics_of_one_trial_and_of_all(synthetic):
    first = synthetic.trials.index[0]
    one = synthetic.metrics(first)
    assert one.progress.is_monotonic_increasing
    assert one["eval/return"].notna().sum() == 10
    everything = synthetic.metrics()
    assert list(everything.columns[:3]) == ["trial", "label", "seed"]
    assert (
        everything[everything.trial == first]["eval/return"].dropna().tolist() == one["eval/return"].dropna().tolist()
    )
    running = synthetic.trials.query("state == 'running'").index[0]
    assert len(synthetic.metrics(running)) == 31  # the torn last line is left out
    with pytest.raises(KeyError, match="no trial"):
        synthetic.metrics("nobody")


def test_a_network_comes_back_with_its_weights(tiny):
    trained = nn.Linear(5, 2)
    save_file(trained.state_dict(), tiny.folder("t0") / "best.safetensors")
    loaded = tiny.network("t0")
    x = torch.randn(3, 5)
    assert torch.equal(loaded(x), trained(x))
    assert not loaded.training
    with pytest.raises(FileNotFoundError, match=r"final\.safetensors"):
        tiny.network("t0", "final")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": torch.zeros(2, 5)}, "bias is missing"),
        ({"weight": torch.zeros(2, 5), "bias": torch.zeros(2), "x": torch.zeros(1)}, "x is not part"),
        ({"weight": torch.zeros(2, 6), "bias": torch.zeros(2)}, "weight has shape"),
        ({"weight": torch.zeros(2, 5), "bias": torch.zeros(2, dtype=torch.float64)}, "bias is torch.float64"),
    ],
)
def test_another_networks_weights_are_refused(tiny, tensors, message):
    save_file(tensors, tiny.folder("t0") / "best.safetensors")
    with pytest.raises(ValueError, match=message):
        tiny.network("t0")


def test_importing_harness_is_light():
    code = "import sys, harness; assert 'torch' not in sys.modules and 'pandas' not in sys.modules; harness.load"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_load_reads_the_ledger(tmp_path):
    trial = Trial("t0", "tiny", 1, {"width": 5, "net": {"depth": 2}}, 3, "tiny width=5")
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with ledger.drive("small", "small.yaml"):
        ledger.register("small", [trial], {"t0": (10, "steps")})
        ledger.set_trials(["t0"], state="done", score=0.5)
    ledger.close()
    results = harness.load("small", tmp_path)
    assert results.trials.loc["t0", ["score", "config.width", "config.net.depth"]].tolist() == [0.5, 5, 2]
    assert results.metrics().empty
    with pytest.raises(KeyError, match="no experiment named 'other'"):
        harness.load("other", tmp_path)
    with pytest.raises(FileNotFoundError, match="a run root"):
        harness.load("small", tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
