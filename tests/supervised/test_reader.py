"""The reader: how stories are laid out, words that trade places, answers, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from harness import data
from harness.learner import Lanes
from harness.randomness import generator
from nets.lanes import Execution
from nets.registry import build
from supervised.reader import Reader, ReaderConfig, exchanged, laid_out, sentences, stories
from supervised.vocabulary import learnt

PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
PEOPLE = ("mary", "john", "sandra", "daniel")
STORY = "Mary went to the garden. Where is Mary?"


def started(mode="eager", seeds=(3,), dtype=torch.float32, **fields):
    learner = Reader()
    config = ReaderConfig(**fields)
    return learner, learner.start(Lanes((config,) * len(seeds), tuple(seeds), Execution(mode, dtype=dtype)))


def test_sentences_end_with_their_marks():
    assert sentences(STORY + " So? ") == ["Mary went to the garden.", "Where is Mary?", "So?"]


def test_the_question_stands_last():
    known = learnt([STORY], "words", 100)
    lines = laid_out(STORY, known, (3, 7)).reshape(3, 7)
    assert not lines[0].any()
    assert known.decoded(lines[2][:4]) == "where is mary ?"
    flat = laid_out(STORY, known, (12,))
    assert flat.tolist() == [0, 0, *known.encoded(STORY)]
    assert known.decoded(laid_out(STORY, known, (3,))) == "is mary ?"
    assert known.decoded(laid_out(STORY, known, (1, 2))) == "where is"


def test_words_trade_places_within_their_group_alone():
    known = learnt(["a b c d e f"], "words", 100)
    table = exchanged(known, [("a", "b", "c"), ("d", "e")], 50, generator(0, "x"))
    assert (np.sort(table, axis=1) == np.arange(len(known))).all()
    moved = {known.spellings[t] for t in table[:, known.numbers["a"]]}
    assert moved == {"a", "b", "c"}
    assert (table[:, known.numbers["f"]] == known.numbers["f"]).all()


def test_an_exchanged_story_still_has_its_answer():
    learner, _ = started(data="stories-1", batch=16, exchange=[PEOPLE, PLACES])
    x, y = learner.rows(0)
    plain, answers = super(Reader, learner).rows(0)
    told = stories("stories-1", True)
    assert not torch.equal(x, plain)
    assert not torch.equal(y, answers)
    for row, answer in zip(x[0].tolist(), y[0].tolist(), strict=True):
        spelt = told.vocabulary.decoded([t for t in row if t]).split()
        asked = spelt[-2]  # ... where is mary ?
        last = len(spelt) - 1 - spelt[:-2][::-1].index(asked) - 2
        assert spelt[last + 4] == told.answers[answer]  # mary went to the PLACE


def test_a_small_reader_learns_one_fact():
    learner, state = started(data="stories-1", updates=160, lr=3e-3, net={"hidden_features": 32, "depth": 2})
    before = learner.evaluate(state)["test_exact"]
    while state["progress"] < learner.lanes.config.budget:
        learner.advance(state)
    scores = learner.evaluate(state)
    assert scores["test_exact"] > max(0.5, before)
    assert scores["majority_exact"] == pytest.approx(
        max(np.mean([a == place for _, a in data.pairs("stories-1")["test"]]) for place in PLACES), abs=0.03
    )
    parts = [scores[f"test_exact_{name}"] for name in ("short", "middling", "long")]
    assert min(parts) <= scores["test_exact"] <= max(parts)
    media = learner.media(state, 0)
    assert media["confusion"].data.sum() == 1000
    assert media["confusion"].labels == PLACES


def test_padding_sentences_are_not_seen():
    config = {"kind": "story-transformer", "vocabulary": 9, "sentence": 3, "hidden_features": 8, "depth": 1, "heads": 2}
    net = build(config, (9,)).eval()
    told = torch.tensor([[0, 0, 0, 1, 2, 0, 3, 4, 5]])
    before = net(told)
    with torch.no_grad():
        net.times[0] += 5.0
    torch.testing.assert_close(net(told), before)
    with pytest.raises(ValueError, match="a multiple of 2"):
        build({**config, "sentence": 2}, (9,))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": "digits"}, "'digits' holds images; this learner takes pairs"),
        ({"exchange": [["Mary"]]}, "exchange: 'Mary' is in no training story of 'stories-1'; words are lower-case"),
        ({"net": {"vocabulary": 9}}, "net: vocabulary follows from the data"),
        ({"net": {"heads": 5}}, "net: 5 heads do not divide a width of 64"),
        ({"net": {"kind": "cnn"}}, "story-transformer"),
    ],
)
def test_bad_configurations_are_refused_by_name(fields, message):
    with pytest.raises(ValidationError, match=message):
        ReaderConfig(**fields)


def test_long_answers_are_refused(tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps({"source": f"Who {i}?", "target": f"the man {i}"}) + "\n" for i in range(20)))
    with pytest.raises(ValidationError, match="has answers of several words"):
        ReaderConfig(data=str(path))
