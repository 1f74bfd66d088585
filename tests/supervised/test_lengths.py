"""Batches of like length: which rows they hold, and that cutting their padding off changes nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from harness.learner import Lanes
from nets.lanes import Execution
from supervised.lengths import Alike
from supervised.seq2seq import Seq2Seq, Seq2SeqConfig

ROWS, BATCH = 331, 8


@pytest.fixture(scope="module")
def alike():
    return Alike(np.random.default_rng(0).integers(0, 30, ROWS), BATCH)


def test_rows_of_a_group_are_of_like_length(alike):
    slack = np.random.default_rng(0).integers(0, 30, ROWS)
    assert sorted(np.concatenate(alike.groups).tolist()) == list(range(ROWS))
    assert len(alike.groups) == 8
    for rows, cut, after in zip(alike.groups, alike.cuts, [*alike.cuts[1:], 30], strict=True):
        assert slack[rows].min() == cut
        assert slack[rows].max() <= after
    assert alike.saved > 0.8 * slack.mean()


def test_every_batch_comes_once_and_epochs_are_fair(alike):
    updates = 20 * ROWS // BATCH - len(alike.groups)
    places = [alike.place(u) for u in range(updates)]
    numbers = [sorted(n for g, n in places if g == group) for group in range(len(alike.groups))]
    assert all(found == list(range(len(found))) for found in numbers)
    for epoch in range(1, 20):  # no group is ahead of its share by more than a batch
        seen = places[: epoch * ROWS // BATCH - len(alike.groups)]
        for group, rows in enumerate(alike.groups):
            assert abs(sum(g == group for g, _ in seen) * BATCH - epoch * len(rows)) <= BATCH * len(alike.groups)
    orders = [[g for g, _ in places[e * ROWS // BATCH : (e + 1) * ROWS // BATCH]] for e in range(2)]
    assert orders[0] != orders[1] != sorted(orders[1])
    assert [alike.place(u) for u in (700, 3, 41)] == [places[700], places[3], places[41]]  # in any order of asking


def test_a_batch_takes_the_rows_that_follow_and_ends_a_round_before_the_next(alike):
    size = len(alike.groups[0])
    seen = [row for number in range(11) for turn, place in alike.span(0, number)
            for row in range(turn * size, (turn + 1) * size)[place]]  # fmt: skip
    assert seen == list(range(11 * BATCH))


def test_one_group_where_there_are_few_rows():
    few = Alike(np.array([3, 1, 2]), 8)
    assert (len(few.groups), few.cuts, few.saved) == (1, [1], 1.0)
    assert [few.place(u) for u in range(3)] == [(0, 0), (0, 1), (0, 2)]
    assert sum(place.stop - place.start for _, place in few.span(0, 0)) == 8


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Words of 1 to 12 letters, to be spelled backwards."""
    path = tmp_path_factory.mktemp("pairs") / "words.jsonl"
    rng = np.random.default_rng(1)
    told = {"".join(rng.choice(list("abcdef"), rng.integers(1, 13))) for _ in range(300)}
    path.write_text("".join(json.dumps({"source": w, "target": " ".join(w[::-1])}) + "\n" for w in sorted(told)))
    return str(path)


def started(path, kind, seeds):
    net = {"kind": kind, "hidden_features": 8, "depth": 1, "dropout": 0.1}
    config = Seq2SeqConfig(data=path, source="characters", net=net, batch=4, lr=1e-2)
    learner = Seq2Seq()
    return learner, learner.start(Lanes((config,) * len(seeds), tuple(seeds), Execution("eager", dtype=torch.float64)))


@pytest.mark.parametrize("kind", ["seq2seq", "transformer-seq2seq"])
def test_lanes_of_unlike_rows_equal_trials_alone(words, kind):
    both, state = started(words, kind, (3, 4))
    for _ in range(3):
        both.advance(state)
    widths = {x.shape[-1] for x, _ in both.rows_of_updates(0)}
    assert len(widths) > 2
    for k, seed in enumerate((3, 4)):
        alone, own = started(words, kind, (seed,))
        for _ in range(3):
            alone.advance(own)
        for name, value in own["params"].items():
            torch.testing.assert_close(state["params"][name][k], value[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["seq2seq", "transformer-seq2seq"])
def test_padding_that_is_cut_off_changes_no_loss(words, kind):
    learner, state = started(words, kind, (3,))
    s, t = learner.corpus.lengths
    for x, y in learner.rows_of_updates(0):
        cut = t - y.shape[-1]
        assert x.shape[-1] == s + t - 2 * cut
        source, before = learner.inputs(x[0])
        padded = torch.zeros(len(source), s + t, dtype=torch.int64)
        padded[:, : s - cut], padded[:, s : s + t - cut] = source, before
        target = torch.nn.functional.pad(y[0], (0, cut))
        params = {name: p[0] for name, p in state["params"].items()}
        torch.testing.assert_close(learner._nll(params, {}, padded, target), learner._nll(params, {}, x[0], y[0]))
