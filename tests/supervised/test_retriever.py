"""Retrieval: what is trained, exact resume, ranks against closed forms; on a tiny random model."""

import json

import numpy as np
import pytest
import torch

from harness.checkpoint import pack, unpack
from harness.learner import Lanes
from supervised.finetune_nets import TEMPERATURE, Matching
from supervised.retriever import Retriever, RetrieverConfig, scored
from supervised.text_measures import found_at, tf_idf
from tests.supervised.test_finetune import SEED, models, moved, one_thread, same, weights  # noqa: F401

LETTERS = "abcdefghijklmnop"


@pytest.fixture
def started(models, monkeypatch):  # noqa: F811
    """A function that starts a learner: a question is one letter, its passage has the letter among others."""
    from harness import data

    pairs = [(letter, f"{letter} z {letter} y") for letter in LETTERS]
    splits = {"train": pairs, "validation": pairs[:4], "test": pairs[4:10]}
    monkeypatch.setattr(data, "pairs", lambda name: splits)

    def start(way, updates=6, **fields):
        config = RetrieverConfig(model=str(models / "bert"), way=way, updates=updates, batch=5, length=8, **fields)
        learner = Retriever()
        return learner, learner.start(Lanes((config,), (SEED,)))

    return start


def numbers(metrics):
    return {name: float(value) for name, value in metrics.items()}


def test_a_logit_is_a_cosine_over_the_temperature():
    x = torch.tensor([[[3.0, 4.0], [1.0, 0.0]], [[0.0, 2.0], [0.0, -5.0]]])
    expected = torch.tensor([[0.6, -0.8], [0.0, -1.0]]) / TEMPERATURE
    torch.testing.assert_close(Matching(2)(x), expected)


def test_the_rank_of_equal_scores_is_the_last_one_s():
    scores = np.array([[0.1, 0.9, 0.5], [0.5, 0.5, 0.1], [1.0, 0.0, 0.0]])
    ranks = found_at(scores, np.array([1, 0, 2]))
    assert ranks.tolist() == [1, 2, 3]
    assert scored(ranks) == {"recall_1": 1 / 3, "recall_5": 1.0, "mrr": pytest.approx((1 + 1 / 2 + 1 / 3) / 3)}


def test_tf_idf_equals_scikit_learn_s():
    from sklearn.feature_extraction.text import TfidfVectorizer

    passages = ["the cat sat on the mat", "a dog sat", "birds fly over the dog"]
    questions = ["the dog", "where is the mat on the floor", "unknown words only"]
    theirs = TfidfVectorizer(token_pattern=r"\w+").fit(passages)
    expected = (theirs.transform(questions) @ theirs.transform(passages).T).toarray()
    known = set(theirs.vocabulary_)
    asked = [[word for word in q.split() if word in known] for q in questions]
    found = tf_idf([q.split() for q in questions], [p.split() for p in passages])
    assert asked[2] == []
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_it_learns_and_says_what_training_has_changed(started):
    learner, state = started("full", updates=60, lr=1e-2)
    before = numbers(learner.evaluate(state))
    assert before["untouched_mrr"] == before["test_mrr"] < 1
    assert before["tfidf_recall_1"] == 0  # of equal passages in two splits the last one counts
    passages = len(LETTERS) + 4 + 6
    assert learner._near("test", learner._vectors()).shape == (6, passages)
    assert "rank" in learner.media(state, 0)["mistakes"].reference[0]
    for _ in range(60):
        metrics = learner.advance(state)
    after = numbers(learner.evaluate(state))
    assert float(metrics["accuracy"]) == 1
    assert after["untouched_mrr"] == before["untouched_mrr"]
    assert after["test_mrr"] == 0.5  # the passage of a test question stands among those of training too
    assert after["test_recall_5"] == 1


@pytest.mark.parametrize("way", ["full", "head", "lora", "random"])
def test_a_resumed_run_equals_an_uninterrupted_one(started, way):
    learner, state = started(way)
    for _ in range(3):
        learner.advance(state)
    tensors, skeleton = pack(learner.save(state))
    saved = unpack(json.loads(json.dumps(skeleton)), {name: t.clone() for name, t in tensors.items()})
    other, _ = started(way)
    torch.rand(7)  # nobody else's random numbers matter
    again = other.load(saved)
    for _ in range(2):
        a, b = learner.advance(state), other.advance(again)
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert same(other.save(again), learner.save(state))
    assert same(dict(other.evaluate(again)), dict(learner.evaluate(state)))


def test_a_frozen_trunk_stays_and_the_layer_behind_it_begins_as_the_identity(started):
    learner, state = started("head")
    before = weights(learner)
    assert torch.equal(before["head.project.weight"], torch.eye(8))
    for _ in range(3):
        learner.advance(state)
    assert moved(before, weights(learner)) == {"head.project.weight"}
    pairs = learner.network(state, 0)
    assert pairs(torch.randint(5, 20, (3, 2, 6))).shape == (3, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": "drug-reviews"}, "has no pairs of a question and its passage"),
        ({"data": "gnome-en-fr", "batch": 1}, "has no wrong answers beside it"),
        ({"data": "gnome-en-fr", "weights": "0" * 64}, "has sha256"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(models, fields, message):  # noqa: F811
    with pytest.raises(ValueError, match=message):
        RetrieverConfig(**{"model": str(models / "bert"), **fields})
