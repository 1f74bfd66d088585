"""Writers of text: roll-outs and advantages, soft tokens, the oracle, and that likelihood learns."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from generative.text_gan import TextGAN, TextGANConfig, advantages, rollouts, verdicts
from generative.text_generator import before, nll, spread
from generative.text_gumbel import TextGumbelConfig, straight_through, write_softly
from generative.text_mle import TextMLE, TextMLEConfig
from harness import data
from harness.data import oracle
from harness.experiment import load_experiment
from harness.learner import BUILTIN, Lanes
from nets.lanes import Execution
from nets.registry import build

V, T, B, R = 7, 5, 3, 2
PROJECT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


def summing(token, state):
    """A writer that remembers: the next token is the sum of all it has read, and one more, modulo V."""
    state = token.reshape(1, -1, 1) if state is None else state + token.reshape(1, -1, 1)
    return 1e4 * functional.one_hot((state[0, :, 0] + 1) % V, V).double(), state


def test_rollouts_keep_the_beginning_and_go_on_from_its_state():
    y = torch.randint(V, (B, T))
    found = rollouts(summing, y, torch.rand(T - 1, T - 1, R, B))
    assert found.shape == (T - 1, R, B, T)
    for t in range(1, T):
        for r in range(R):
            for b in range(B):
                expected = y[b, :t].tolist()
                while len(expected) < T:
                    expected.append((sum(expected) + 1) % V)
                assert found[t - 1, r, b].tolist() == expected


def test_rollouts_are_draws_from_the_writer():
    net = build({"kind": "lstm-language", "hidden_features": 4, "std": 2.0}, (2,), 3).double().requires_grad_(False)

    def step(token, state):
        logits, state = net(token.unsqueeze(1), state)
        return logits.squeeze(1), state

    y = torch.tensor([[2, 0]])
    found = rollouts(step, y, torch.rand(1, 1, 20_000, 1))[0, :, 0, 1]
    wanted = torch.softmax(net(before(y))[0][0, 1], -1)
    torch.testing.assert_close(torch.bincount(found, minlength=3) / 20_000, wanted.float(), atol=0.015, rtol=0)


def test_advantages_are_what_a_token_adds():
    begun, whole = torch.rand(T - 1, B).double(), torch.rand(B).double()
    value = torch.cat([whole.mean().expand(1, B), begun])
    after = torch.cat([begun, whole.unsqueeze(0)])
    torch.testing.assert_close(advantages(begun, whole, 0.0), after - value)
    torch.testing.assert_close(advantages(begun, whole, 1.0), whole - value)
    assert not torch.allclose(advantages(begun, whole, 0.5), after - value)


@pytest.mark.parametrize("value", [advantages, verdicts])
def test_the_policy_gradient_is_the_gradient_of_the_expected_verdict(value):
    """Over all texts of two tokens of two, with exact values: sum p(y) A grad log p(y) = grad sum p(y) D(y)."""
    logits = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)  # first token; second after 0; after 1
    texts = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    verdict = torch.rand(4, dtype=torch.float64)
    logs = torch.log_softmax(logits, -1)
    log_p = torch.stack([logs[0, texts[:, 0]], logs[1 + texts[:, 0], texts[:, 1]]])  # [T, 4]
    p = log_p.sum(0).exp()
    (exact,) = torch.autograd.grad((p * verdict).sum(), logits, retain_graph=True)
    begun = (log_p[1].exp() * verdict).reshape(2, 2).sum(1).repeat_interleave(2).unsqueeze(0).detach()
    (found,) = torch.autograd.grad((p.detach() * (log_p * value(begun, verdict, 0.0)).sum(0)).sum(), logits)
    torch.testing.assert_close(found, exact)


def test_soft_tokens_are_hard_forwards_and_soft_backwards():
    logits = torch.randn(V).double().requires_grad_()
    u, weight = torch.rand(V).double(), torch.randn(V).double()
    row = straight_through(logits, u, 2.0)
    assert sorted(row.tolist()) == pytest.approx([0.0] * (V - 1) + [1.0])
    (found,) = torch.autograd.grad((row * weight).sum(), logits)
    soft = torch.softmax(2.0 * (logits - torch.log(-torch.log(u))), -1)
    (expected,) = torch.autograd.grad((soft * weight).sum(), logits)
    torch.testing.assert_close(found, expected)


def test_soft_tokens_are_draws_at_temperature_1_whatever_beta():
    logits = torch.randn(V)
    rows = straight_through(logits.expand(20_000, V), torch.rand(20_000, V), 50.0)
    torch.testing.assert_close(rows.mean(0), torch.softmax(logits, -1), atol=0.015, rtol=0)


def test_a_soft_text_feeds_its_tokens_back():
    def chain(row, state):
        return 1e4 * row.roll(1, -1), state

    start = functional.one_hot(torch.zeros(B, dtype=torch.int64), V).float()
    rows = write_softly(chain, start, torch.rand(B, T, V), 1.0)
    assert rows.argmax(-1).tolist() == [[1, 2, 3, 4, 5]] * B


def test_likelihood_counts_from_token_0():
    net = build({"kind": "lstm-language"}, (T,), V)
    y = torch.randint(V, (B, T))
    found = nll(net, dict(net.named_parameters()), y)
    logits, _ = net(torch.cat([torch.zeros(B, 1, dtype=torch.int64), y], 1)[:, :-1])
    torch.testing.assert_close(found, -torch.log_softmax(logits, -1).gather(-1, y.unsqueeze(-1)).squeeze(-1))


def test_one_hot_rows_are_read_as_their_tokens():
    y = torch.randint(V, (B, T))
    for net in (
        build({"kind": "lstm-language"}, (T,), V),
        build({"kind": "text-cnn", "vocabulary": V}, (T,), 1),
    ):
        hard, soft = net(y), net(functional.one_hot(y, V).float())
        torch.testing.assert_close(soft, hard)


def test_the_oracle_is_the_same_everywhere_and_knows_its_own_texts():
    net = oracle.network(500)
    again = oracle.network(500).state_dict()
    assert all(torch.equal(p, again[name]) for name, p in net.state_dict().items())
    assert abs(float(net.embed.weight.std()) - 1) < 0.02
    assert np.round(net.embed.weight[0, :3].numpy(), 4).tolist() == pytest.approx([0.5348, -1.2945, 2.0843], abs=1e-4)
    tiny, rows = oracle.network(20), data.load("oracle-tiny")["train"].x
    own, uniform = (nll(tiny, dict(tiny.state_dict()), x) for x in (torch.tensor(rows), torch.randint(20, (2000, 6))))
    counts = np.bincount(rows[:, 0], minlength=20) / len(rows)
    entropy = -(counts[counts > 0] * np.log(counts[counts > 0])).sum()
    assert own[:, 0].mean().item() == pytest.approx(entropy, abs=0.02)  # it writes what it says it writes
    assert uniform.mean() > own.mean() + 1


@pytest.mark.slow
def test_likelihood_learns():
    config = TextMLEConfig(data="oracle-tiny", updates=150, samples=400)
    learner = TextMLE()
    state = learner.start(Lanes((config,), (0,), Execution("loop")))
    before_training = learner.evaluate(state)
    for _ in range(30):
        learner.advance(state)
    after = learner.evaluate(state)
    assert before_training["nll_test"].item() == pytest.approx(np.log(20), abs=0.05)
    assert after["nll_test"].item() < before_training["nll_test"].item() - 0.5
    assert after["nll_oracle@0.6"].item() < after["nll_oracle"].item() < before_training["nll_oracle"].item()


def test_held_out_texts_are_spread_over_all_that_are_stored():
    assert spread(np.arange(101), 5).tolist() == [0, 25, 50, 75, 100]
    assert spread(np.arange(3), 5).tolist() == [0, 1, 2]


def test_phases_of_a_gan_follow_one_another():
    config = TextGANConfig(data="oracle-tiny", pretrain=5, pretrain_judge=5, rounds=5, batch=4, rollouts=1,
                           judge_updates=1, samples=10)  # fmt: skip
    learner = TextGAN()
    state = learner.start(Lanes((config,), (0,), Execution("loop")))
    seen = [set(learner.advance(state)) for _ in range(3)]
    assert seen[0] == {"nll"}
    assert seen[1] == {"d_loss", "d_accuracy"}
    assert seen[2] == {"d_loss", "d_accuracy", "verdict", "advantage", "g_norm"}
    assert config.budget == 15


def test_the_page_about_text_is_sound(tmp_path):
    page = (PROJECT / "docs" / "text.md").read_text()
    (code,) = re.findall(r"^```yaml\n(.*?)^```$", page, flags=re.S | re.M)
    (tmp_path / "e.yaml").write_text(code)
    named = {trial.learner for trial in load_experiment(tmp_path / "e.yaml").trials}
    assert named == {name for name in BUILTIN if name.startswith("text-")}
    assert all((PROJECT / "docs" / link).exists() for link in re.findall(r"\]\((?!http)([^)#]+)\)", page))


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (TextMLEConfig, {"temperatures": [0.5, 2.0]}, "temperatures"),
        (TextMLEConfig, {"temperatures": [1.0, 0.5]}, "temperatures"),
        (TextGANConfig, {"pretrain": 12}, "multiple of 5"),
        (TextGumbelConfig, {"windows": [2, 40]}, "windows"),
        (TextGANConfig, {"windows": [2, 40]}, "windows"),
    ],
)
def test_a_wrong_configuration_is_refused_at_plan_time(config, fields, message):
    with pytest.raises(ValueError, match=message):
        config(**fields)
