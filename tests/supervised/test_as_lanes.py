"""Classifiers and GANs as lanes: equal to the trial alone, in any order, beside a NaN."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from generative.gan import GAN
from supervised.classifier import Classifier
from tests.lane_checks import differences, start, train

PER_LANE = {
    Classifier: [{}, {"lr": 1e-3, "weight_decay": 0.1}, {"label_smoothing": 0.3}],
    GAN: [{}, {"lr_g": 3e-4, "gamma": 1.0}, {"lr_d": 5e-4}],
}
STILL = {Classifier: {"lr": 0.0}, GAN: {"lr_g": 0.0, "lr_d": 0.0}}
TRAINED = {Classifier: ("params",), GAN: ("g", "d", "ema")}


def _net(kind: str) -> dict[str, Any]:
    return {"net": {"kind": kind, "hidden_features": 8, "depth": 2, "heads": 2}, "batch": 8}


CASES = {
    **{kind: (Classifier, _net(kind)) for kind in ("mlp", "cnn", "gru", "transformer")},
    "ring": (GAN, {"data": "ring-8", "batch": 16, "hidden_features": 8, "depth": 2}),
    "images": (GAN, {"data": "digits", "batch": 8, "hidden_features": 16, "depth": 2, "latent_features": 4}),
}


@pytest.fixture(params=CASES)
def case(request):
    learner_class, options = CASES[request.param]
    configs = [learner_class.Config(**{**options, **per_lane}) for per_lane in PER_LANE[learner_class]]
    return learner_class, options, configs


@pytest.mark.parametrize("mode", ["eager", "loop"])
def test_lane_equals_the_trial_alone(case, mode):
    learner_class, _, configs = case
    _, together = train(learner_class, configs, (5, 6, 7), mode=mode)
    for lane in range(3):
        _, alone = train(learner_class, [configs[lane]], (5 + lane,))
        assert differences(together, alone, [lane], [0]) < 1e-9
    assert differences(together, together, [0], [1]) > 1e-3


def test_permuting_lanes_permutes_results(case):
    learner_class, _, configs = case
    _, a = train(learner_class, configs, (5, 6, 7))
    learner, b = train(learner_class, [configs[i] for i in (2, 0, 1)], (7, 5, 6))
    assert differences(a, b, [0, 1, 2], [1, 2, 0]) < 1e-9
    assert set(learner.evaluate(b)) >= {learner.score.name}


def test_nan_stays_in_its_lane(case):
    learner_class, _, configs = case
    learner, state = start(learner_class, configs, (5, 6, 7))
    for name in TRAINED[learner_class]:
        for weight in state[name].values():
            weight[1] = torch.nan
    metrics = [learner.advance(state) for _ in range(2)][-1]
    scores = learner.evaluate(state)
    clean, untouched = start(learner_class, configs, (5, 6, 7))
    for _ in range(2):
        clean.advance(untouched)
    assert differences(state, untouched, [0, 2], [0, 2]) < 1e-9
    assert any(value[1].isnan() for value in metrics.values())
    for value in scores.values():
        assert value[[0, 2]].isfinite().all()


def test_learning_rate_zero_does_not_move(case):
    learner_class, options, configs = case
    still = learner_class.Config(**{**options, **STILL[learner_class]})
    _, before = start(learner_class, [still, configs[0]], (5, 6))
    _, after = train(learner_class, [still, configs[0]], (5, 6))
    for tree in TRAINED[learner_class]:
        for name, value in after[tree].items():
            torch.testing.assert_close(value[0], before[tree][name][0], rtol=0, atol=1e-15)
            assert not torch.equal(value[1], before[tree][name][1])


def test_starting_again_gives_the_same_bits(case):
    learner_class, _, configs = case
    results = [train(learner_class, configs, (5, 6, 7)) for _ in range(2)]
    assert differences(results[0][1], results[1][1], [0, 1, 2], [0, 1, 2]) == 0
    scores = [learner.evaluate(state) for learner, state in results]
    assert all(torch.equal(scores[0][name], scores[1][name]) for name in scores[0])
