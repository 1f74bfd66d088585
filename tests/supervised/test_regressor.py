"""The regressor learner: tables and forecasts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.linear_model import LinearRegression

from harness import data
from harness.learner import Lanes
from nets.lanes import Execution
from supervised.regressor import LOSSES, Regressor


def _trained(**options):
    learner, config = Regressor(), Regressor.Config(**options)
    state = learner.start(Lanes((config,), (0,), Execution()))
    while int(state["progress"][0]) < config.budget:
        learner.advance(state)
    return learner, state, {name: float(value) for name, value in learner.evaluate(state).items()}


def test_a_table_is_predicted_about_as_well_as_by_least_squares():
    learner, state, scores = _trained(net={"kind": "mlp", "hidden_features": 32, "depth": 1}, epochs=20, lr=1e-2)
    splits = data.load("diabetes")
    linear = LinearRegression().fit(splits["train"].x, splits["train"].y)
    error = np.sqrt(np.mean((linear.predict(splits["test"].x) - splits["test"].y) ** 2))
    assert scores["test_rmse"] < 1.1 * error
    assert 0.2 < scores["test_r2"] < 1
    assert scores["gap"] == pytest.approx(scores["test_rmse"] - scores["train_rmse"])
    rows = torch.as_tensor(splits["test"].x.copy())
    alone = learner.network(state, 0)(rows) * learner.std + learner.mean
    mae = (alone[:, 0] - torch.as_tensor(splits["test"].y.copy())).abs().mean()
    assert float(mae.detach()) == pytest.approx(scores["test_mae"], rel=1e-5)


def test_an_offset_of_the_targets_changes_nothing(monkeypatch):
    """Unix times: float32 has steps of 128 there, and errors that are measured after adding the offset are lost."""
    splits = data.load("diabetes")
    found = []
    for offset in (0.0, 1.7e9):
        moved = {split: data.Rows(rows.x, rows.y.astype(np.float64) / 100 + offset) for split, rows in splits.items()}
        monkeypatch.setattr(data, "load", lambda name, moved=moved: moved)
        monkeypatch.setattr(data, "few", lambda name, count, moved=moved: moved["train"])
        learner, state, scores = _trained(net={"kind": "mlp", "hidden_features": 16, "depth": 1}, updates=40)
        prediction = learner.predicted(state, learner.held["test"][0])[0, :, 0].numpy()
        error = prediction - moved["test"].y
        assert scores["test_rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-6)
        found.append(scores)
    assert 0.1 < found[0]["test_rmse"] < 1
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_series_are_forecast_better_than_the_naive_forecast():
    net = {"kind": "gru", "hidden_features": 16}
    options = {"data": "italy-power", "horizon": 4, "net": net, "updates": 80, "batch": 32, "lr": 1e-2}
    learner, state, scores = _trained(**options)
    assert learner.predicted(state, learner.held["test"][0]).shape == (1, 1029, 4)
    assert scores["test_mase"] < 1
    history = data.load("italy-power")["train"].x
    naive = np.abs(np.diff(history, axis=1)).mean()
    assert scores["test_mae"] / naive == pytest.approx(scores["test_mase"], rel=1e-5)


def test_losses_are_torchs():
    x, y = torch.tensor([0.0, 3.0]), torch.tensor([0.5, 0.0])
    assert [float(loss(x, y)) for loss in LOSSES.values()] == [4.625, 1.75, 1.3125]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "iris"}, "data: 'iris' has classes; the learner `classifier`"),
        ({"horizon": 2}, "horizon: 'diabetes' has no steps"),
        ({"data": "italy-power"}, "horizon: 'italy-power' has 24 steps"),
        ({"data": "italy-power", "horizon": 24}, "horizon: 'italy-power' has 24 steps"),
        ({"data": "digits"}, "'digits' holds images"),
    ],
)
def test_what_cannot_be_predicted_is_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        Regressor.Config(**options)
