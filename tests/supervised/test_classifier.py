"""The classifier learner: configuration, the order of rows, learning, what it returns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from harness import data
from harness.learner import Lanes, select
from nets.lanes import Execution
from nets.regularise import cross_entropy
from supervised.classifier import Classifier, shifted

KINDS = ("mlp", "cnn", "gru", "transformer")


def _start(configs, seeds=None, mode="eager", dtype=torch.float64):
    learner = Classifier()
    state = learner.start(Lanes(tuple(configs), tuple(seeds or range(len(configs))), Execution(mode, dtype=dtype)))
    return learner, state


def _config(kind="mlp", **options):
    return Classifier.Config(net={"kind": kind, "hidden_features": 8, "depth": 1}, batch=16, **options)


def test_smoothed_cross_entropy_equals_torch():
    logits, y = torch.randn(7, 4).double(), torch.arange(7) % 4
    for smoothing in (0.0, 0.1, 1.0):
        expected = torch.nn.functional.cross_entropy(logits, y, label_smoothing=smoothing)
        torch.testing.assert_close(cross_entropy(logits, y, smoothing), expected)


def test_shifted_moves_by_a_pixel():
    image = np.arange(1, 10, dtype=np.float32).reshape(1, 3, 3)
    views = shifted(image)
    assert views.shape == (9, 1, 3, 3)
    np.testing.assert_array_equal(views[4], image)
    np.testing.assert_array_equal(views[0, 0], [[0, 0, 0], [0, 1, 2], [0, 4, 5]])
    np.testing.assert_array_equal(views[8, 0], [[5, 6, 0], [8, 9, 0], [0, 0, 0]])


@pytest.mark.parametrize("kind", KINDS)
def test_resolved_configuration_is_complete_and_stable(kind):
    config = Classifier.Config(net={"kind": kind})
    resolved = config.model_dump(mode="json")
    assert resolved["net"]["hidden_features"] > 0
    assert resolved["net"]["depth"] > 0
    assert resolved["lr"] > 0
    assert Classifier.Config(**resolved) == config
    assert Classifier.Config(net={"kind": kind}, lr=0.5).lr == 0.5


def test_budget_is_whole_chunks_of_all_epochs():
    config = Classifier.Config(epochs=3, batch=50)
    assert config.budget % config.chunk == 0
    assert 0 <= config.budget - 3 * data.card("digits").rows["train"] < config.chunk
    assert config.data_sets == ("digits",)
    assert set(Classifier.Config.per_lane_fields()) == {"lr", "weight_decay", "label_smoothing"}


def test_unknown_kind_is_refused():
    with pytest.raises(ValidationError, match="transformer"):
        Classifier.Config(net={"kind": "perceptron"})


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ({"kind": "cnn", "depth": 9}, "net: depth 9 halves an image of 8 x 8 to nothing"),
        ({"kind": "transformer", "heads": 3}, "net: 3 heads do not divide a width of 32"),
        ({"kind": "nature-cnn"}, "net: encoder 'nature-cnn' needs images of 36 x 36 or more"),
        ({"kind": "mlp", "activation": "rel"}, "net: unknown activation 'rel'"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_before_anything_starts(net, message):
    with pytest.raises(ValidationError, match=message):
        Classifier.Config(net=net)


def test_dropout_draws_other_noise_in_every_lane_and_step_and_none_in_evaluation():
    config = _config(lr=0.0)
    dropped = Classifier.Config(net={**config.net.model_dump(), "dropout": 0.5}, batch=16, lr=0.0)
    learner, state = _start([dropped] * 2, seeds=[3, 3])
    first, second = learner.advance(state)["loss"], learner.advance(state)["loss"]
    assert first[0] == first[1]
    assert first[0] != second[0]
    assert torch.equal(learner.evaluate(state)["val_loss"], learner.evaluate(state)["val_loss"])


def test_every_epoch_is_a_permutation_of_the_training_rows():
    learner, _ = _start([_config(shift=False)] * 2)
    n, chunk = learner.train_rows, learner.chunk
    assert chunk == 128
    stream = torch.cat([learner._rows(start).flatten(1) for start in range(0, 18 * chunk, chunk)], dim=1)
    for epoch in (0, 1):
        order = stream[:, epoch * n : (epoch + 1) * n]
        assert torch.equal(order.sort(dim=1).values, torch.arange(n).expand(2, n))
    assert not torch.equal(stream[0, :n], stream[0, n : 2 * n])
    assert not torch.equal(stream[0], stream[1])


def test_shift_changes_views_and_keeps_rows():
    plain, _ = _start([_config(shift=False)])
    moved, _ = _start([_config(shift=True)])
    rows = moved._rows(0)
    assert torch.equal(rows % plain.train_rows, plain._rows(0))
    assert len((rows // plain.train_rows).unique()) == 9


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_network_learns(kind):
    net = {"kind": kind, "hidden_features": 8 if kind == "cnn" else 32, "depth": 1}
    config = Classifier.Config(net=net, epochs=6, batch=32, lr=5e-3, shift=False)
    learner, state = _start([config], dtype=torch.float32)
    before = learner.evaluate(state)
    while int(state["progress"][0]) < learner.lanes.config.budget:
        metrics = learner.advance(state)
    after = learner.evaluate(state)
    assert set(after) == {"val_accuracy", "val_loss", "test_accuracy"}
    assert set(metrics) == {"loss", "accuracy"}
    assert before["val_accuracy"] < 0.3
    assert after["val_accuracy"] > 0.7
    assert after["val_loss"] < before["val_loss"]


def test_network_and_confusion_agree_with_evaluate():
    learner, state = _start([_config("cnn")] * 2)
    learner.advance(state)
    test = data.load("digits")["test"]
    matrix = learner.media(state, 1)["confusion"]
    accuracy = float(learner.evaluate(state)["test_accuracy"][1])
    logits = learner.network(state, 1).double()(torch.as_tensor(2 * test.x - 1).double())
    assert float((logits.argmax(-1).numpy() == test.y).mean()) == pytest.approx(accuracy)
    assert np.trace(matrix.data) / matrix.data.sum() == pytest.approx(accuracy)
    np.testing.assert_array_equal(matrix.data.sum(1), np.bincount(test.y))
    assert matrix.labels == tuple("0123456789")


def test_an_ended_lane_stands_still():
    learner, state = _start([_config()] * 2)
    state["alive"][0] = False
    before = select(state, [0, 1])
    learner.advance(state)
    for name, value in state["params"].items():
        assert torch.equal(value[0], before["params"][name][0])
        assert not torch.equal(value[1], before["params"][name][1])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "figure"), [("mlp", 0.965), ("cnn", 0.975), ("gru", 0.95), ("transformer", 0.95)])
def test_defaults_reach_their_figure(kind, figure):
    learner, state = _start([Classifier.Config(net={"kind": kind})] * 4, dtype=torch.float32)
    budget = learner.lanes.config.budget
    best = torch.zeros(4, 2, dtype=torch.float64)  # validation and test accuracy, chosen by validation
    boundary = budget // 10
    while int(state["progress"][0]) < budget:
        learner.advance(state)
        if int(state["progress"][0]) >= boundary:
            boundary += budget // 10
            scores = learner.evaluate(state)
            now = torch.stack([scores["val_accuracy"], scores["test_accuracy"]], dim=-1)
            best = torch.where(now[:, :1] > best[:, :1], now, best)
    assert best[:, 1].mean() >= figure
