"""Language models: windows, loss, bits a byte, samples, what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from harness import data
from harness.learner import Lanes
from nets.lanes import Execution
from supervised.language_model import LanguageModel, LanguageModelConfig, continued, corpus, windows

RHYMES = str(Path(__file__).parent / "rhymes.txt")
SMALL = {"data": RHYMES, "length": 16, "batch": 8, "net": {"hidden_features": 16, "depth": 1, "heads": 2}, "sampled": 5}


def started(mode="loop", seeds=(3,), **fields):
    learner = LanguageModel()
    config = LanguageModelConfig(**{**SMALL, **fields})
    return learner, learner.start(Lanes((config,) * len(seeds), tuple(seeds), Execution(mode)))


def test_windows_do_not_overlap_and_reach_from_first_to_last():
    x, y = windows(np.arange(101), 10, 4)
    assert x[:, 0].tolist() == [0, 30, 60, 90]
    assert np.array_equal(y, x + 1)
    assert len(windows(np.arange(101), 10, 99)[0]) == 10


def test_a_batch_is_windows_of_the_training_text_and_their_successors():
    learner, _ = started(seeds=(1, 2))
    x, y = learner.batches(0)
    assert x.shape == y.shape == (2, 8, 8, 16)
    text = data.spelled(RHYMES, learner.stream.numpy())
    assert all(data.spelled(RHYMES, row.numpy()) in text for row in x.flatten(0, 2))
    assert torch.equal(x[..., 1:], y[..., :-1])
    assert not torch.equal(x[0], x[1])
    assert not torch.equal(learner.batches(learner.chunk)[0], x)


def test_loss_is_that_of_the_network_and_bits_are_counted_over_bytes():
    learner, state = started(units="bytes", judged=3)
    scores = learner.evaluate(state)
    x, y = windows(corpus(RHYMES, "bytes", 1024).streams["test"], 16, 3)
    logits = learner.network(state, 0).eval()(torch.as_tensor(x))
    expected = functional.cross_entropy(logits.flatten(0, 1), torch.as_tensor(y).flatten())
    torch.testing.assert_close(scores["test_loss"][0], expected.detach())
    torch.testing.assert_close(scores["test_bits_per_byte"], scores["test_loss"] / math.log(2))
    torch.testing.assert_close(scores["test_perplexity"], scores["test_loss"].exp())


@pytest.mark.parametrize("kind", ["gpt", "lstm-language"])
def test_a_small_model_learns(kind):
    net = {"kind": kind, "hidden_features": 32, "depth": 1}
    learner, state = started(net=net, updates=80, lr=1e-2)
    before = learner.evaluate(state)["test_loss"]
    while state["progress"] < learner.lanes.config.budget:
        learner.advance(state)
    assert learner.evaluate(state)["test_loss"] < before - 0.7


def test_samples_go_on_from_held_out_text_and_are_always_the_same():
    learner, state = started(sampled=20)
    media, again = learner.media(state, 0)["samples"], learner.media(state, 0)["samples"]
    assert media.data.tolist() == again.data.tolist()
    for written, real in zip(media.data, media.reference, strict=True):
        assert len(written) == len(real) == 8 + 20
        assert written[:8] == real[:8]


def test_no_more_than_the_window_is_read():
    seen = []

    def net(tokens):
        seen.append(tokens.shape[1])
        return functional.one_hot((tokens + 1) % 5, 5).float() * 50

    written = continued(net, torch.tensor([[0, 1]]), torch.full((1, 4), 0.5), length=3)
    assert written.tolist() == [[0, 1, 2, 3, 4, 0]]
    assert seen == [2, 3, 3, 3]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": "digits"}, "'digits' holds images; this learner takes tokens"),
        ({"data": "oracle-tiny"}, "data: 'oracle-tiny' is no text"),
        ({"length": 500}, "length: 500 tokens, but .* holds out 96 characters"),
        ({"net": {"heads": 3}}, "net: 3 heads do not divide a width of 128"),
        ({"net": {"kind": "seq2seq"}}, "lstm-language"),
        ({"freeze_encoder": True}, "freeze_encoder: a language model is one whole"),
        ({"batch": 9, "accumulate": 2}, "accumulate: 2 parts do not divide a batch of 9"),
    ],
)
def test_bad_configurations_are_refused_by_name(fields, message):
    with pytest.raises(ValidationError, match=message):
        LanguageModelConfig(**{**SMALL, **fields})
