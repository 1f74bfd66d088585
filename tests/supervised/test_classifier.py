"""The classifier learner: configuration, the order of rows, learning, what it returns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from harness import data
from harness.learner import Lanes, select
from nets.lanes import Execution
from nets.registry import build
from nets.regularise import cross_entropy
from supervised.classifier import Classifier

KINDS = ("mlp", "cnn", "gru", "transformer")


def _start(configs, seeds=None, mode="eager", dtype=torch.float64, **given):
    learner = Classifier()
    seeds = tuple(seeds or range(len(configs)))
    return learner, learner.start(Lanes(tuple(configs), seeds, Execution(mode, dtype=dtype), **given))


def _config(kind="mlp", **options):
    return Classifier.Config(net={"kind": kind, "hidden_features": 8, "depth": 1}, batch=16, **options)


def test_smoothed_cross_entropy_equals_torch():
    logits, y = torch.randn(7, 4).double(), torch.arange(7) % 4
    for smoothing in (0.0, 0.1, 1.0):
        expected = torch.nn.functional.cross_entropy(logits, y, label_smoothing=smoothing)
        torch.testing.assert_close(cross_entropy(logits, y, smoothing), expected)


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
    assert Classifier.Config(updates=21, batch=10, train_rows=10).budget == 240
    assert {"lr", "label_smoothing", "synthetic_from"} <= set(Classifier.Config.per_lane_fields())


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
    learner, _ = _start([_config()] * 2)
    n, chunk = len(learner.x), learner.chunk
    assert (n, chunk) == (1078, 128)
    stream = torch.cat([learner._index(start) for start in range(0, 18 * chunk, chunk)], dim=1)
    for epoch in (0, 1):
        order = stream[:, epoch * n : (epoch + 1) * n]
        assert torch.equal(order.sort(dim=1).values, torch.arange(n).expand(2, n))
    assert not torch.equal(stream[0, :n], stream[0, n : 2 * n])
    assert not torch.equal(stream[0], stream[1])


def test_rows_are_augmented_as_the_file_says_and_each_lane_by_its_own_noise():
    plain, _ = _start([_config(augment=())] * 2)
    moved, _ = _start([_config()] * 2)
    assert moved.lanes.config.augment == ("shift",)
    (x, shares), (shifted, same) = plain.batches(0), moved.batches(0)
    assert torch.equal(shares, same)
    assert x.shape == (2, 8, 16, 8, 8)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), value=-1.0)
    views = [padded[..., i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    found = torch.stack([(view == shifted).flatten(3).all(-1) for view in views])
    assert found.any(0).all()
    assert (found.sum((1, 2, 3)) > 0).all()
    names = ("flip", "crop", "cutout", "noise")
    several, _ = _start([_config(augment=names)] * 2, seeds=[5, 5])
    x, _ = several.batches(0)
    assert torch.equal(x[0], x[1])
    assert not torch.equal(several.batches(several.chunk)[0], x)


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_network_learns(kind):
    net = {"kind": kind, "hidden_features": 8 if kind == "cnn" else 32, "depth": 1}
    config = Classifier.Config(net=net, epochs=6, batch=32, lr=5e-3, augment=())
    learner, state = _start([config], dtype=torch.float32)
    before = learner.evaluate(state)
    while int(state["progress"][0]) < learner.lanes.config.budget:
        metrics = learner.advance(state)
    after = learner.evaluate(state)
    assert set(after) == {
        *(f"{split}_{what}" for split in ("val", "test", "train") for what in ("accuracy", "loss")),
        "gap", "test_f1", "test_auroc", "test_calibration_error",
    }  # fmt: skip
    assert set(metrics) == {"loss", "accuracy", "grad_norm"}
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


def test_the_picture_shows_mistakes_of_images_and_of_series():
    learner, state = _start([_config()])
    media = learner.media(state, 0)
    assert media["mistakes"].data.dtype == np.uint8
    assert media["mistakes"].data.shape == (58 * 5, 58 * 5)  # 24 images of 8 x 8, seven times as large, with a border
    assert "for" in media["mistakes"].caption
    assert media["confusion"].caption.count(";") == 9
    learner, state = _start([_config(data="italy-power")])
    assert learner.media(state, 0)["mistakes"].data.shape[1] == 114 * 5
    learner, state = _start([_config(data="iris")])
    assert set(learner.media(state, 0)) == {"confusion"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("iris", "mlp"), ("ring-8", "residual-mlp"), ("japanese-vowels", "lstm"), ("gun-point", "cnn-1d")],
)
def test_tables_points_and_series_are_classified(name, kind):
    net = {"kind": kind, "hidden_features": 16, "depth": 1}
    config = Classifier.Config(data=name, net=net, updates=40, batch=32, lr=1e-2)
    assert config.augment == ()
    learner, state = _start([config], dtype=torch.float32)
    before = float(learner.evaluate(state)["val_loss"])
    while int(state["progress"][0]) < config.budget:
        learner.advance(state)
    assert float(learner.evaluate(state)["val_loss"]) < 0.8 * before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "kjv"}, "'kjv' holds tokens"),
        ({"data": "diabetes"}, "'diabetes' has no labels"),
        ({"data": "nowhere"}, "no data set is called 'nowhere'"),
        ({"data": "iris", "augment": ["flip"]}, "augment: flip is for images"),
        ({"train_rows": 7}, "10 classes; 7 do not fit"),
        ({"batch": 10, "accumulate": 3}, "accumulate: 3 parts do not divide"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        Classifier.Config(**options)


def test_parts_of_a_batch_give_the_gradient_of_the_whole_batch():
    whole, parts = (_start([_config(accumulate=n, class_weights="balanced")]) for n in (1, 4))
    for _ in range(2):
        a, b = (learner.advance(state) for learner, state in (whole, parts))
    for name, p in whole[1]["params"].items():
        torch.testing.assert_close(parts[1]["params"][name], p, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(b["grad_norm"], a["grad_norm"], rtol=1e-9, atol=0)


def test_penalties_and_clipping_are_a_lanes_own():
    learner, state = _start([_config(), _config(l1=0.1), _config(l2=0.1)], [1] * 3)
    for _ in range(4):
        learner.advance(state)
    weights = state["params"]["encoder.layers.0.weight"]
    assert weights[1].abs().sum() < weights[0].abs().sum()
    assert weights[2].square().sum() < weights[0].square().sum()
    sgd = {"optimiser": "sgd", "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "lr": 1.0}
    learner, state = _start([_config(clip=0.01, **sgd)])
    before = {n: p.clone() for n, p in state["params"].items()}
    learner.advance(state)
    moved = sum((p - before[n]).square().sum() for n, p in state["params"].items()).sqrt()
    assert 0 < moved <= 8 * 0.01 + 1e-9


def test_the_learning_rate_rises_in_the_warm_up_and_falls_after():
    learner, _ = _start([_config(warmup=0.25, schedule="linear", lr=0.4)])
    rate = [float(learner.schedule(learner.hyper["lr"], done)) for done in (0.0, 0.125, 0.25, 0.625, 1.0)]
    assert rate == pytest.approx([0.0, 0.2, 0.4, 0.2, 0.0])


def test_mixup_mixes_rows_and_labels_alike():
    learner, _ = _start([_config(mixup=0.0, augment=()), _config(mixup=0.4, augment=())], [2, 2])
    x, shares = learner.batches(0)
    assert set(shares[0].unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(shares.sum(-1), torch.ones_like(shares[..., 0]))
    lam = shares[1, 0].max(-1).values.min()  # a row whose neighbour has another label shows max(lam, 1 - lam)
    candidates = [m * x[0, 0] + (1 - m) * x[0, 0].roll(1, 0) for m in (lam, 1 - lam)]
    assert any(torch.allclose(x[1, 0], c) for c in candidates)
    assert not torch.equal(x[1, 0], x[0, 0])


def test_the_average_network_is_judged_and_kept():
    learner, state = _start([_config(ema_half_life=200.0)])
    for _ in range(3):
        learner.advance(state)
    assert not torch.equal(state["average"]["encoder.layers.0.weight"], state["params"]["encoder.layers.0.weight"])
    kept = learner.network(state, 0).state_dict()
    assert all(torch.equal(kept[name], p[0].float()) for name, p in state["average"].items())


def test_sixteen_bits_are_near_and_weights_stay_in_32():
    (a, one), (b, other) = (_start([_config(precision=p)], dtype=torch.float32) for p in ("float32", "bfloat16"))
    loss, narrow = a.advance(one)["loss"], b.advance(other)["loss"]
    assert loss != narrow
    torch.testing.assert_close(loss, narrow, rtol=0.02, atol=0)
    assert all(p.dtype == torch.float32 for p in other["params"].values())


def test_rare_classes_weigh_more_when_balanced():
    learner, _ = _start([_config(data="breast-cancer", class_weights="balanced")])
    counts = np.bincount(data.load("breast-cancer")["train"].y)
    np.testing.assert_allclose(learner.weights, counts.sum() / (2 * counts))
    assert float((learner.weights * torch.as_tensor(counts)).sum()) == pytest.approx(counts.sum())


def test_a_frozen_encoder_stays_in_spite_of_weight_decay():
    donor = build({"kind": "mlp", "hidden_features": 8, "depth": 1, "dropout": 0.0}, (8, 8), 3).state_dict()
    learner, state = _start([_config(freeze_encoder=True, weight_decay=0.1)], encoders=(donor,))
    for _ in range(2):
        learner.advance(state)
    kept = {name for name, p in state["params"].items() if torch.equal(p[0].float(), donor[name])}
    assert kept == {name for name in donor if name.startswith("encoder.")}


def _generator(classes=10, shape=(8, 8)):
    return build({"kind": "mlp-generator", "hidden_features": 8, "classes": classes}, 4, shape).eval()


def test_generated_rows_take_their_share_of_every_batch_and_real_rows_stay():
    config, generator = _config(synthetic_share=0.25, augment=()), _generator().double()
    plain, _ = _start([config] * 2, [4, 4])
    mixed, state = _start([config] * 2, [4, 4], samplers=(None, generator))
    (x, shares), (seen, labels) = plain.batches(128), mixed.batches(128)
    assert torch.equal(seen[0], x[0])
    assert torch.equal(labels[0], shares[0])
    assert torch.equal(seen[1, :, :12], x[1, :, :12])
    assert not (seen[1, :, 12:] == x[1, :, 12:]).flatten(2).all(-1).any()
    rng = mixed.lanes.generators("classifier/generated", 128)[1]
    wanted = torch.as_tensor(rng.integers(10, size=(8, 4)))
    assert torch.equal(labels[1, :, 12:].argmax(-1), wanted)
    made = generator(torch.as_tensor(rng.standard_normal((32, 4))), wanted.flatten())
    torch.testing.assert_close(seen[1, :, 12:].flatten(0, 1), made)
    losses = mixed.advance(state)["loss"]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("generator", [_generator(0), _generator(7), _generator(10, (4, 4))])
def test_a_generator_of_other_rows_is_refused(generator):
    with pytest.raises(ValueError, match="synthetic_from: its network makes"):
        _start([_config()], samplers=(generator,))


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
