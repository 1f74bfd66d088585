"""Measures against scikit-learn and their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics

from supervised import measures

N, C = 200, 5


@pytest.fixture
def predicted():
    """Logits of two lanes with ties, and labels that lack one class."""
    rng = np.random.default_rng(3)
    y = torch.as_tensor(rng.integers(0, C - 1, N))
    logits = torch.as_tensor(rng.normal(size=(2, N, C)).round(1))
    logits[1, torch.arange(N), y] += 1.5
    return logits, y


def test_counts_and_shares_equal_scikit_learns(predicted):
    logits, y = predicted
    matrix = measures.confusion(logits.argmax(-1), y, C)
    for lane in range(2):
        guess = logits[lane].argmax(-1)
        np.testing.assert_array_equal(matrix[lane], metrics.confusion_matrix(y, guess, labels=range(C)))
        found = measures.per_class(matrix)[lane]
        wanted = metrics.precision_recall_fscore_support(y, guess, labels=range(C), zero_division=0)
        np.testing.assert_allclose(found, np.stack(wanted, -1), rtol=1e-12)
        assert measures.macro_f1(matrix)[lane] == pytest.approx(metrics.f1_score(y, guess, average="macro"), rel=1e-12)
        assert measures.accuracy(logits, y)[lane] == metrics.accuracy_score(y, guess)
        loss = metrics.log_loss(y, logits[lane].softmax(-1), labels=range(C))
        assert measures.negative_log_likelihood(logits, y)[lane] == pytest.approx(loss, rel=1e-9)


def test_macro_f1_counts_only_classes_that_occur():
    y = torch.tensor([0, 0, 1])
    assert measures.macro_f1(measures.confusion(y, y, 4)) == 1
    guess = torch.tensor([0, 2, 1])
    found = measures.macro_f1(measures.confusion(guess, y, 4))
    assert found == pytest.approx(metrics.f1_score(y, guess, average="macro"))


def test_the_area_under_the_roc_equals_scikit_learns_with_ties(predicted):
    logits, y = predicted
    found = measures.auroc(logits, y)
    for lane in range(2):
        p = logits[lane].softmax(-1)
        areas = [metrics.roc_auc_score(y == c, p[:, c]) for c in range(C - 1)]  # the last has no rows
        assert found[lane] == pytest.approx(np.mean(areas), rel=1e-12)
    two = logits[..., :2]
    labels = y % 2
    p = two[0].softmax(-1)
    areas = [metrics.roc_auc_score(labels == c, p[:, c]) for c in range(2)]
    assert measures.auroc(two, labels)[0] == pytest.approx(np.mean(areas), rel=1e-12)
    assert measures.auroc(two, torch.zeros_like(y)).isnan().all()


def test_the_calibration_error_is_that_of_its_definition(predicted):
    logits, y = predicted
    for lane in range(2):
        confidence, guess = logits[lane].softmax(-1).max(-1)
        expected = 0.0
        for b in range(15):
            inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
            if inside.any():
                right = (guess[inside] == y[inside]).double().mean()
                expected += inside.double().mean() * (right - confidence[inside].mean()).abs()
        assert measures.calibration_error(logits, y)[lane] == pytest.approx(float(expected), rel=1e-9)
    sure = torch.tensor([[50.0, 0.0], [50.0, 0.0]])
    assert measures.calibration_error(sure, torch.tensor([0, 1])) == pytest.approx(0.5)


def test_the_worst_mistakes_are_mistakes_and_in_order():
    logits = torch.tensor([[9.0, 0.0], [0.0, 1.0], [5.0, 0.0], [0.0, 3.0]])
    y = torch.tensor([0, 0, 1, 0])
    assert measures.worst(logits, y, 2).tolist() == [2, 3]
    assert measures.worst(logits, y, 9).tolist() == [2, 3, 1]
    assert measures.worst(logits, torch.tensor([0, 1, 0, 1]), 9).tolist() == []


def test_errors_of_regression_equal_scikit_learns():
    rng = np.random.default_rng(0)
    target, prediction = (torch.as_tensor(rng.normal(size=(30, 3))) for _ in range(2))
    found = measures.r2(torch.stack([prediction, target]), target)
    assert found[0] == pytest.approx(metrics.r2_score(target, prediction), rel=1e-12)
    assert found[1] == 1
    history = torch.tensor([[[0.0], [2.0], [1.0]], [[1.0], [1.0], [2.0]]])  # steps of 2, 1, 0, 1: a mean of 1
    assert measures.mase(prediction, target, history) == pytest.approx(metrics.mean_absolute_error(target, prediction))
