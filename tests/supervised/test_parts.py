"""A batch in parts, one after another (`accumulate`) or in several workers: the gradient is the undivided batch's."""

import pytest
import torch

from harness import data
from harness.gang import Gang
from harness.learner import BUILTIN, Lanes, Learner, learner_class
from nets.lanes import Execution
from tests.conformance.test_learners import RHYMES, SMALL

SEEDS = (3, 4)
PLAIN = {"kind": "mlp", **SMALL}
# Without batch norm and dropout, whose moments and noise belong to a part.
CASES = {
    "classifier": {"net": PLAIN, "class_weights": "balanced", "mixup": 0.4, "l1": 1e-2, "l2": 1e-2},
    "regressor": {"net": PLAIN, "objective": "huber"},
    "language-model": {"data": RHYMES, "net": {**SMALL, "heads": 2, "dropout": 0.0}},
    "seq2seq": {"data": "gnome-en-fr", "net": {"kind": "seq2seq", **SMALL, "depth": 1, "dropout": 0.0}, "l2": 1e-2},
    "seq2seq transformer": {
        "data": "gnome-en-fr",
        "net": {"kind": "transformer-seq2seq", **SMALL, "depth": 1, "heads": 2, "dropout": 0.0},
    },
    "reader": {"data": "stories-2", "net": {**SMALL, "heads": 2, "dropout": 0.0}},
}


@pytest.fixture(autouse=True)
def translations(monkeypatch):
    """Pairs of 1 to 7 words, of which the data set is said to be made."""
    card = data.card("stories-1")
    rows = [(" ".join("abcdefg"[: 1 + i % 7]), " ".join("gfedcba"[: 1 + i * 3 % 7])) for i in range(60)]
    splits = dict.fromkeys(card.rows, rows)
    told, known = data.pairs, data.card
    monkeypatch.setattr(data, "pairs", lambda name: splits if name == "gnome-en-fr" else told(name))
    monkeypatch.setattr(data, "card", lambda name: card if name == "gnome-en-fr" else known(name))


class Told(Gang):
    """A worker of several that keeps what it tells the others; its mean is its own part of theirs."""

    def mean(self, tree):
        self.__dict__["told"] = tree
        return tree


def started(case, accumulate=1, gang=None):
    """A learner of two lanes in float64."""
    learner = learner_class(case.split()[0])()
    config = learner.Config(**{"epochs": 1, "batch": 12, "accumulate": accumulate, "clip": 0.0, **CASES[case]})
    lanes = Lanes((config,) * len(SEEDS), SEEDS, Execution(dtype=torch.float64), gang=gang or Gang())
    return learner, learner.start(lanes)


def numbers(learner):
    """What the third update of the first chunk takes."""
    x, target = learner.rows_of_updates(0)[2]
    return learner.hyper, x, target, learner.lanes.keys("noise", 0, 1)[:, 0]


def undivided(case):
    """Gradients and metrics of a batch at once."""
    learner, state = started(case)
    return learner._gradients_each(state, *numbers(learner))


def same(found, expected):
    """The largest error of gradients and of metrics, each relative to the norm of its tensor."""
    pairs = [(a[name], b[name]) for a, b in zip(found, expected, strict=True) for name in b]
    return max(float((a - b).norm() / b.norm().clamp(min=1e-30)) for a, b in pairs if b.norm() > 1e-9)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("parts", [2, 3, 12])
def test_a_batch_in_parts_has_its_own_gradient(case, parts):
    learner, state = started(case, parts)
    grads, _, metrics = learner._gradients_each(state, *numbers(learner))
    whole, _, measured = undivided(case)
    assert same((grads, metrics), (whole, measured)) < 1e-9


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_workers_find_the_gradient_of_the_batch_together(case, accumulate):
    told = []
    for rank in range(3):
        learner, state = started(case, accumulate, Told(rank, 3))
        weights = {name: state[name] for name in ("params", "buffers", "optimiser")}
        learner._update_together(weights, numbers(learner), state["alive"])
        told.append(learner.lanes.gang.told)
    means = [{name: sum(one[i][name] for one in told) / 3 for name in told[0][i]} for i in (0, 2)]
    whole, _, measured = undivided(case)
    assert same(means, (whole, measured)) < 1e-9


def test_every_learner_that_shares_its_rows_is_here():
    alone = Learner.rows_to_share.__func__
    sharing = {name for name in BUILTIN if learner_class(name).rows_to_share.__func__ is not alone}
    refused = {"retriever"}  # takes one row at a time: all others of a batch are its wrong answers
    elsewhere = {"finetune"}  # tests/supervised/test_finetune_own.py
    assert sharing == {case.split()[0] for case in CASES} | refused | elsewhere


def test_the_parts_of_these_batches_are_unequal():
    for case in ("seq2seq", "seq2seq transformer"):
        learner, _ = started(case)
        tokens = learner.counted(numbers(learner)[2]).reshape(len(SEEDS), 3, -1).sum(-1)
        assert (tokens.max(-1).values > tokens.min(-1).values).any()
