"""seq2seq: rows, the smoothed loss, decoding, baselines, pictures, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from harness.learner import Lanes
from nets.lanes import Execution
from supervised.pictures import CELL, PAPER, attention_maps
from supervised.seq2seq import Seq2Seq, Seq2SeqConfig, looks, smoothed_nll
from supervised.vocabulary import END, PAD, START

KINDS = ("seq2seq", "transformer-seq2seq")
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """Digits to be read out: "407" to "four zero seven"."""
    path = tmp_path_factory.mktemp("pairs") / "numbers.jsonl"
    told = [{"source": f"{i:03d}", "target": " ".join(DIGITS[int(d)] for d in f"{i:03d}")} for i in range(1000)]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in told))
    return str(path)


def started(path, kind="seq2seq", seeds=(3,), mode="loop", **fields):
    learner = Seq2Seq()
    net = {"kind": kind, "hidden_features": 32, "depth": 1, "dropout": 0.0}
    given = {"data": path, "source": "characters", "net": net, "batch": 32, "judged": 40, "lr": 1e-2, **fields}
    config = Seq2SeqConfig(**given)
    return learner, learner.start(Lanes((config,) * len(seeds), tuple(seeds), Execution(mode)))


def test_rows_hold_the_source_the_tokens_before_and_the_tokens_to_come(numbers):
    learner, _ = started(numbers)
    x, y = learner.held["train"]
    source, before = learner.inputs(x)
    assert source.shape[1:] == (3,)
    assert before.shape == y.shape
    assert (before[:, 0] == START).all()
    assert (y[:, -1] == END).all()
    assert torch.equal(before[:, 1:], y[:, :-1])
    pair = learner.corpus.pairs["train"][0]
    assert learner.corpus.source.decoded(source[0].tolist()) == pair[0]
    assert learner.corpus.target.decoded(y[0].tolist()) == pair[1]


def test_the_headline_of_short_targets_can_tell(numbers, tmp_path):
    assert Seq2SeqConfig(data=numbers, source="characters").measure == "chrf"
    assert Seq2SeqConfig(data=numbers, source="characters", measure="bleu").measure == "bleu"
    path = tmp_path / "sentences.jsonl"
    path.write_text("".join(json.dumps({"source": f"{i}", "target": f"this is number {i}"}) + "\n" for i in range(9)))
    long = Seq2SeqConfig(data=str(path), source="characters")
    assert (long.measure, Seq2Seq.score_of(long).name) == ("bleu", "test_bleu")


def test_the_smoothed_loss_equals_torch_and_leaves_padding_out():
    logits, target = torch.randn(3, 4, 9), torch.tensor([[5, 2, 0, 0], [4, 7, 8, 2], [2, 0, 0, 0]])
    for smoothing in (0.0, 0.1):
        expected = functional.cross_entropy(
            logits.flatten(0, 1), target.flatten(), ignore_index=PAD, label_smoothing=smoothing
        )
        torch.testing.assert_close(smoothed_nll(logits, target, smoothing), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_model_learns_to_read_numbers_and_beats_the_baselines(numbers, kind):
    learner, state = started(numbers, kind, updates=160)
    while state["progress"] < learner.lanes.config.budget:
        learner.advance(state)
    scores = {name: float(value[0]) for name, value in learner.evaluate(state).items()}
    assert scores["copy_exact"] == 0
    assert scores["test_exact"] > 0.8
    assert scores["beam_exact"] > 0.8
    assert scores["test_error_rate"] < 0.1 < scores["copy_error_rate"]
    maps = looks(learner.network(state, 0).eval(), *learner.inputs(learner.held["test"][0][:8]))
    assert maps.shape == (8, 4, 3)
    torch.testing.assert_close(maps.sum(-1), torch.ones(8, 4))
    media = learner.media(state, 0)
    assert media["attention"].data.dtype == np.uint8
    assert len(media["mistakes"].data) == len(media["mistakes"].reference) == 12


def test_pairs_that_are_too_long_are_left_out_of_training(numbers):
    config = Seq2SeqConfig(data="stories-1", longest=20)
    assert 0 < config.rows_of_an_epoch < 1000
    assert config.row_shape == (20,)
    assert len(config.corpus.pairs["test"]) == 1000
    assert Seq2SeqConfig(data=numbers, source="characters").corpus.lengths == (3, 4)


def test_the_headline_is_what_the_file_says(numbers):
    score = Seq2Seq.score_of(Seq2SeqConfig(data=numbers, measure="error_rate"))
    assert (score.name, score.direction, score.select) == ("test_error_rate", "min", "val_loss")
    assert Seq2Seq.score_of(Seq2SeqConfig(data=numbers)).direction == "max"


def test_a_map_is_dark_where_attention_is():
    weights = np.array([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]]])
    one = attention_maps(weights, [(["a", "b"], ["x"])]).data
    cells = one[-3 * CELL : -CELL, -3 * CELL : -CELL]  # of "a" and "b", of "x" and the end; the margin is white
    assert cells[::CELL, ::CELL].tolist() == [[0, PAPER], [PAPER, 0]]
    assert (one[-CELL:] == 255).all()
    names = [one[-3 * CELL : -2 * CELL, : -3 * CELL], one[-2 * CELL : -CELL, : -3 * CELL]]
    assert names[0].min() < 128 < names[1].max()
    assert (names[0] < 128).sum() < (names[1] < 128).sum()  # "x" takes less ink than "(end)"
    assert attention_maps(np.ones((1, 2, 2)), [([], ["x"])]).data.shape[0] == 3 * CELL  # a source without tokens
    pairs = [(["\u00e9t\u00e9"], ["x"]), (["ete", "longer"], ["x"]), (["a"], ["x", "longer"])]
    several = attention_maps(np.ones((3, 2, 2)), pairs).data
    width = several.shape[1] // 2
    first, second, third = (attention_maps(np.ones((1, 2, 2)), [pair]).data for pair in pairs)
    assert (several[: len(first), : first.shape[1]] == first).all()
    assert (several[: len(second), width:][:, : second.shape[1]] == second).all()
    assert (several[-len(third) :, : third.shape[1]] == third).all()
    assert (several[-len(third) :, width:] == 255).all()  # nothing beside the third


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": "digits"}, "'digits' holds images; this learner takes pairs"),
        ({"data": "stories-1", "longest": 2}, "longest: no training pair of 'stories-1' has 2 tokens or fewer"),
        ({"net": {"vocabulary": 9}}, "net: vocabulary follows from the data"),
        ({"net": {"kind": "transformer-seq2seq", "heads": 3}}, "net: 3 heads do not divide a width of 128"),
        ({"net": {"kind": "gpt"}}, "transformer-seq2seq"),
    ],
)
def test_bad_configurations_are_refused_by_name(fields, message):
    with pytest.raises(ValidationError, match=message):
        Seq2SeqConfig(**{"data": "stories-1", **fields})
