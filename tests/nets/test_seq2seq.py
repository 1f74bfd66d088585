"""Sequence to sequence: its masks leak nothing, its ways to decode agree, and it learns to reverse."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nets.decoding import beam, greedy
from nets.lanes import Execution, call, grad_and_value
from nets.registry import build
from nets.seq2seq import AdditiveAttention, DotAttention, Seq2Seq, teacher_forcing

VARIANTS = pytest.mark.parametrize(
    "fields",
    [
        {"cell": "lstm", "attention": "additive", "depth": 2},
        {"cell": "gru", "attention": "dot", "bidirectional": False},
        {"cell": "rnn", "attention": "dot", "depth": 2},
    ],
    ids=["lstm", "gru", "rnn"],
)
START, END = 1, 2
STEPS = 400  # of training


@pytest.fixture(autouse=True)
def strict():
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("error")
        torch.manual_seed(0)
        yield


def _model(**fields) -> Seq2Seq:
    net = build({"kind": "seq2seq", "vocabulary": 9, "hidden_features": 6, **fields}, (5,), 7)
    for p in net.parameters():  # far from uniform predictions, so that a difference shows
        p.data.mul_(2)
    return net


def _batch() -> tuple[Tensor, Tensor]:
    source = torch.randint(1, 9, (3, 5)).masked_fill(torch.arange(5) >= torch.tensor([[5], [3], [1]]), 0)
    return source, torch.cat([torch.full((3, 1), START), torch.randint(7, (3, 4))], 1)


@VARIANTS
def test_padding_of_the_source_changes_nothing(fields):
    net, (source, target) = _model(**fields), _batch()
    logits, weights = net(source, target, with_weights=True)
    assert (weights[1, :, 3:] == 0).all()
    assert (weights[2, :, 0] == 1).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 5))
    longer, _ = net(functional.pad(source, (0, 4)), target, with_weights=True)
    torch.testing.assert_close(longer, logits, rtol=0, atol=1e-6)
    alone = net(source[1:2, :3], target[1:2])
    torch.testing.assert_close(alone, logits[1:2], rtol=0, atol=1e-6)
    other = torch.where(source == 0, 8, source)  # other tokens under the same mask
    changed, memory = net.encode(other, source != 0), net.encode(source)
    for a, b in zip((changed.values, *changed.state), (memory.values, *memory.state), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(net(other, target), logits)


@VARIANTS
def test_the_future_does_not_move_the_past(fields):
    net, (source, target) = _model(**fields), _batch()
    changed = target.clone()
    changed[:, 3:] = (target[:, 3:] + 1) % 7
    a, b = net(source, target), net(source, changed)
    assert torch.equal(a[:, :3], b[:, :3])
    assert not torch.isclose(a[:, 3:], b[:, 3:]).all(-1).any()


@VARIANTS
def test_step_by_step_equals_all_at_once(fields):
    net, (source, target) = _model(**fields), _batch()
    once, seen = net(source, target, with_weights=True)
    logits, weights = net(source, target, torch.rand(3, 5), 1.0, with_weights=True)
    torch.testing.assert_close(logits, once, rtol=0, atol=1e-5)
    torch.testing.assert_close(weights, seen, rtol=0, atol=1e-5)
    memory = net.encode(source)
    for time in range(5):
        logits, memory = net.step(target[:, time], memory)
        torch.testing.assert_close(logits, once[:, time], rtol=0, atol=1e-5)


@VARIANTS
def test_fed_its_own_tokens_it_decodes_greedily(fields):
    net, (source, target) = _model(**fields), _batch()
    free = net(source, target, torch.zeros(3, 5), 0.0).argmax(-1)
    start = target[:, 0]
    assert torch.equal(free, greedy(net.step, net.encode(source), start, None, 5))
    tokens, _ = beam(net.step, net.encode(source), start, END, 5, 1)
    assert torch.equal(tokens[:, 0], greedy(net.step, net.encode(source), start, END, 5))


def test_the_share_decides_at_every_step_between_true_and_own_token():
    net, (source, target) = _model(), _batch()
    u = torch.tensor([[0.9, 0.4, 0.9, 0.9, 0.9], [0.0, 0.0, 0.0, 0.0, 0.0], [0.9, 0.9, 0.9, 0.1, 0.9]])
    logits = net(source, target, u, 0.5)
    own = logits.argmax(-1)
    fed = torch.cat([target[:, :1], torch.where(u[:, 1:] < 0.5, target[:, 1:], own[:, :-1])], 1)
    assert (fed != target).any()
    torch.testing.assert_close(logits, net(source, fed), rtol=0, atol=1e-5)


def test_a_beam_scores_what_the_model_says_and_finds_more_than_greedy():
    net, (source, target) = _model(), _batch()
    tokens, scores = beam(net.step, net.encode(source), target[:, 0], None, 4, 400)
    for i in range(3):
        fed = torch.cat([target[:1, :1].expand(400, 1), tokens[i, :, :-1]], 1)
        chances = net(source[i : i + 1].expand(400, 5), fed).log_softmax(-1).gather(-1, tokens[i].unsqueeze(-1))
        torch.testing.assert_close(chances.sum((1, 2)), scores[i], rtol=1e-4, atol=1e-4)
    first = beam(net.step, net.encode(source), target[:, 0], None, 4, 1)[1]
    assert (scores[:, 0] >= first[:, 0] - 1e-5).all()


@VARIANTS
def test_lanes_equal_single_runs(fields):
    def fresh() -> nn.Module:
        return build({"kind": "seq2seq", "vocabulary": 9, "hidden_features": 4, "dropout": 0.2, **fields}, (5,), 7)

    net, params, buffers = Execution(dtype=torch.float64).stack(fresh, range(3))
    source, target = (torch.stack(parts) for parts in zip(*(_batch() for _ in range(3)), strict=True))
    u, share = torch.rand(3, 3, 5).double(), torch.tensor([1.0, 0.5, 0.0]).double()

    def gradients(params, source, target, u, share, key):
        def loss(params):
            logits, _ = call(net, params, buffers, source, target[:, :4], u[:, :4], share, noise=key)
            return functional.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())

        return grad_and_value(loss)(params)

    args = (params, source, target, u, share, torch.arange(3))
    lanes, singles = (Execution(mode).each(gradients)(*args) for mode in ("eager", "loop"))
    torch.testing.assert_close(lanes[1], singles[1], rtol=0, atol=1e-12)
    for name in params:
        torch.testing.assert_close(lanes[0][name], singles[0][name], rtol=0, atol=1e-12)


def test_attention_by_its_definition():
    query, memory = torch.randn(1, 2, 3), torch.randn(1, 4, 5)
    additive, dot = AdditiveAttention(3, 5, 6), DotAttention(3, 5)
    scores = [
        additive.value.weight[0] @ torch.tanh(additive.query(query[0, 1]) + additive.key.weight @ memory[0, s])
        for s in range(4)
    ]
    expected = torch.softmax(torch.stack(scores), 0)
    seen, weights = additive(query, memory)
    torch.testing.assert_close(weights[0, 1], expected)
    torch.testing.assert_close(seen[0, 1], expected @ memory[0])
    expected = torch.softmax(torch.stack([query[0, 1] @ dot.key.weight @ memory[0, s] for s in range(4)]), 0)
    torch.testing.assert_close(dot(query, memory)[1][0, 1], expected)
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    torch.testing.assert_close(dot(query, memory, nothing)[1], torch.full((1, 2, 4), 0.25))


def test_teacher_forcing_schedules():
    assert teacher_forcing("constant", 0.7, start=0.8) == 0.8
    assert teacher_forcing("linear", 0.25, end=0.2) == pytest.approx(0.8)
    shares = [teacher_forcing("inverse-sigmoid", p / 10, 0.9, 0.1, sharpness=50) for p in range(11)]
    assert all(a > b for a, b in pairwise(shares))
    assert shares[5] == pytest.approx(0.5)
    for p, share in zip(range(11), shares, strict=True):  # Bengio et al.'s k / (k + exp(i / k))
        i = 2 * 50 * math.log(50) * p / 10
        assert (share - 0.1) / 0.8 == pytest.approx(50 / (50 + math.exp(i / 50)))
    lanes = teacher_forcing("linear", torch.tensor([0.0, 1.0]))
    assert torch.equal(lanes, torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="unknown schedule of teacher forcing 'cubic'"):
        teacher_forcing("cubic", 0.0)
    with pytest.raises(ValueError, match="seq2seq takes tokens"):
        build({"kind": "seq2seq", "vocabulary": 9}, (5, 3), 7)


def _reversals(count: int) -> tuple[Tensor, Tensor]:
    """Sources of 2 to 5 symbols out of 6 (tokens 3 to 8), padded; their reversals, ended and padded by END."""
    length = torch.randint(2, 6, (count, 1))
    place = torch.arange(6)
    symbols = torch.randint(3, 9, (count, 6))
    source = torch.where(place < length, symbols, 0)[:, :5]
    backwards = symbols.gather(1, (length - 1 - place).clamp(min=0))
    return source, torch.where(place < length, backwards, END)


@VARIANTS
@pytest.mark.slow
def test_it_learns_to_reverse(fields):
    net = build({"kind": "seq2seq", "vocabulary": 9, "hidden_features": 32, **fields}, (5,), 9)
    adam = torch.optim.Adam(net.parameters(), 5e-3)
    for step in range(STEPS):
        source, target = _reversals(128)
        target_in = functional.pad(target, (1, -1), value=START)
        share = teacher_forcing("linear", step / STEPS, end=0.5)
        logits = net(source, target_in, torch.rand(target.shape), share)
        loss = functional.cross_entropy(logits.flatten(0, 1), target.flatten())
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()
    source, target = _reversals(500)
    start = torch.full((500,), START)
    exact = (greedy(net.step, net.encode(source), start, END, 6) == target).all(1).float().mean().item()
    assert exact >= 0.95
