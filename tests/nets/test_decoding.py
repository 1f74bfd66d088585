"""Decoding against brute force over all sequences, and sampling against the distribution, on small Markov models."""

from __future__ import annotations

import itertools
import math
import warnings

import pytest
import torch
from torch import Tensor

from nets.decoding import beam, choose, greedy, sample

END = 0


def _markov(vocabulary: int, seed: int = 0, bias: float = 0.0):
    """A model whose next token depends on the last two and the time, so that no two sequences tie."""
    table = 2 * torch.randn(9, *(vocabulary,) * 3, generator=torch.Generator().manual_seed(seed)).double()
    table[..., END] += bias

    def step(token: Tensor, state: dict) -> tuple[Tensor, dict]:
        before, time = state["before"], state["time"][0]
        return table[time, before, token], {"before": token, "time": (time + 1,)}

    return table, step


def _score(table: Tensor, start: int, tokens: tuple[int, ...], penalty: float, end: int | None) -> float:
    """The score of a sequence by the definition."""
    total, before, last, count = 0.0, start, start, 0
    for token in tokens:
        total += torch.log_softmax(table[count, before, last], -1)[token].item()
        before, last, count = last, token, count + 1
        if token == end:
            break
    return total / ((5 + count) / 6) ** penalty


def _all(vocabulary: int, length: int, end: int | None) -> list[tuple[int, ...]]:
    """All sequences that hold only `end` behind an `end`."""
    found = itertools.product(range(vocabulary), repeat=length)
    return [s for s in found if end not in s or set(s[s.index(end) :]) == {end}]


def _start(tokens: list[int]) -> tuple[Tensor, dict]:
    start = torch.tensor(tokens)
    return start, {"before": start, "time": (torch.zeros_like(start),)}


@pytest.mark.parametrize("end", [END, None])
@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0])
def test_a_wide_beam_finds_all_sequences_in_the_order_of_their_scores(end, penalty):
    table, step = _markov(3)
    start, state = _start([1, 2])
    every = _all(3, 4, end)
    tokens, scores = beam(step, state, start, end, length=4, width=81, length_penalty=penalty)
    for row, first in enumerate(start.tolist()):
        expected = sorted(((_score(table, first, s, penalty, end), s) for s in every), reverse=True)
        assert [tuple(s) for s in tokens[row].tolist()][: len(every)] == [s for _, s in expected]
        torch.testing.assert_close(scores[row, : len(every)], torch.tensor([v for v, _ in expected]).double())
        assert (scores[row, len(every) :] == -math.inf).all()


def test_the_length_penalty_changes_which_sequence_is_best():
    _, step = _markov(3, bias=1.0)
    start, state = _start([1])
    short, long = (beam(step, state, start, END, 5, 243, p)[0][0, 0].tolist() for p in (0.0, 5.0))
    assert short.count(END) > long.count(END)


@pytest.mark.parametrize("vocabulary", [1, 2, 7, 40])
def test_a_beam_of_one_is_greedy(vocabulary):
    _, step = _markov(vocabulary)
    start, state = _start([*range(vocabulary)])
    tokens, scores = beam(step, state, start, END, 9, 1)
    expected = greedy(step, state, start, END, 9)
    assert torch.equal(tokens[:, 0], expected)
    assert (scores <= 0).all()


def test_a_beam_of_one_is_greedy_where_sums_round_and_logits_tie():
    table = 1 + 1e-7 * torch.randint(4, (6, 6), generator=torch.Generator().manual_seed(0)).float()
    start = torch.arange(6)
    tokens, _ = beam(lambda token, state: (table[token], state), (), start, None, 30, 1)
    assert torch.equal(tokens[:, 0], greedy(lambda token, state: (table[token], state), (), start, None, 30))


def test_greedy_takes_the_likeliest_and_repeats_the_end():
    table = torch.tensor([[9.0, 0, 0, 5], [0, 0, 9, 0], [0, 0, 0, 9], [9, 0, 0, 0]])
    step = lambda token, state: (table[token], state)  # noqa: E731
    start = torch.tensor([1, 2, 3, 0])
    assert greedy(step, (), start, 3, 4).tolist() == [[2, 3, 3, 3], [3, 3, 3, 3], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert greedy(step, (), start, None, 4)[0].tolist() == [2, 3, 0, 0]


def test_when_all_beams_have_ended_further_steps_cost_nothing():
    _, step = _markov(4, bias=30.0)
    start, state = _start([1, 2, 3])
    tokens, scores = beam(step, state, start, END, 5, 2)
    assert (tokens[:, :, 2:] == END).all()
    assert (tokens[:, 1, 0] != END).all()
    torch.testing.assert_close(scores, beam(step, state, start, END, 9, 2)[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "kept"),
    [(1.0, 0, 1.0, 6), (0.5, 0, 1.0, 6), (1.7, 3, 1.0, 3), (1.0, 0, 0.7, 3), (1.0, 5, 0.9, 4), (1.0, 99, 1e-6, 1)],
)
def test_choose_follows_the_distribution(temperature, top_k, top_p, kept):
    logits = torch.tensor([0.2, 1.5, -math.inf, 1.0, -2.0, 0.9, 0.7]).double()
    count = 20000
    u = (torch.arange(count).double() + 0.5) / count  # evenly spaced: shares are exact to 2 / count
    found = torch.bincount(choose(logits.expand(count, 7), u, temperature, top_k, top_p), minlength=7) / count
    share = torch.softmax(logits / temperature, -1)
    ranked = share.argsort(descending=True)
    expected = torch.zeros_like(share).scatter(0, ranked[:kept], share[ranked[:kept]])
    torch.testing.assert_close(found.double(), expected / expected.sum(), rtol=0, atol=2 / count)
    nucleus = share[ranked][: top_k or None] / share[ranked][: top_k or None].sum()
    if top_p < 1:  # the fewest that reach top_p
        assert nucleus[:kept].sum() >= top_p > nucleus[: kept - 1].sum()


def test_choose_stays_within_the_vocabulary_at_the_edges():
    logits = torch.randn(50, 9)
    logits[:, -2:] = -math.inf
    logits[:, 0] = -math.inf
    for u in (torch.zeros(50), torch.full((50,), 1 - 2.0**-24), torch.ones(50)):
        token = choose(logits, u)
        assert ((token > 0) & (token < 7)).all()
    assert torch.equal(choose(logits, torch.rand(50), temperature=0.0), logits.argmax(-1))
    assert choose(logits.bfloat16(), torch.rand(50)).dtype == torch.int64
    for wrong in ({"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            choose(logits, torch.rand(50), **wrong)


def test_sampling_sequences_follows_the_distribution():
    table, step = _markov(3)
    count = 6000
    start, state = _start([1] * count)
    u = torch.rand(count, 3, generator=torch.Generator().manual_seed(0))
    tokens = sample(step, state, start, 3, u, end=END)
    every = _all(3, 3, END)
    share = torch.tensor([math.exp(_score(table, 1, s, 0.0, END)) for s in every])
    assert share.sum().item() == pytest.approx(1)
    found = torch.stack([(tokens == torch.tensor(s)).all(1).sum() for s in every])
    chi_square = ((found - count * share) ** 2 / (count * share)).sum().item()
    assert found.sum() == count
    assert chi_square < len(every) - 1 + 4 * math.sqrt(2 * (len(every) - 1))  # 4 standard deviations above its mean


def test_decoding_runs_under_vmap_as_alone():
    tables = torch.randn(3, 5, 5)
    start, u = torch.tensor([1, 2]), torch.rand(3, 2, 6)

    def decode(table: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        def step(token: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            return table[token] + state, state + 0.1

        state = torch.zeros(2, 5)
        found = beam(step, state, start, END, 6, 3, 0.6)
        return greedy(step, state, start, END, 6), sample(step, state, start, 6, u, 0.8, 4, 0.9, END), *found

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing batching rule warns
        lanes = torch.vmap(decode)(tables, u)
    for k in range(3):
        for got, expected in zip(lanes, decode(tables[k], u[k]), strict=True):
            torch.testing.assert_close(got[k], expected)
