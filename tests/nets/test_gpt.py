"""The GPT: tied weights, initialisation, causality, the cache, sampling, learning, lanes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from nets.decoding import greedy
from nets.gpt import GPT
from nets.lanes import Execution, call, grad_and_value

pytestmark = pytest.mark.filterwarnings("error::UserWarning")  # a missing batching rule warns
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
POSITION = pytest.mark.parametrize("position", ["learned", "rotary", "none"])
T, V = 8, 6


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def small(dtype=torch.float32, sharp=True, **fields):
    """A small GPT; a sharp one has larger weights, so that its answers differ from token to token."""
    net = GPT((T,), V, **{"hidden_features": 8, "depth": 2, "heads": 2, "expansion": 2, **fields}).to(dtype)
    if sharp:
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.4 * torch.randn_like(p))
    return net.eval()


def close(found, expected, atol=1e-5):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def tokens(rows=3, length=T):
    return torch.randint(V, (rows, length))


def test_the_embedding_is_the_output_and_counts_once():
    net = small()
    names = [name for name, p in net.named_parameters() if p.shape[0] == V]
    assert names == ["embed.weight"]
    assert list(net.state_dict()) == [name for name, _ in net.named_parameters()]
    x = tokens()
    net(x).square().mean().backward()
    both = net.embed.weight.grad.clone()
    features = net.stack(net.position(net.embed(x))).detach()
    net.zero_grad()
    (features @ net.embed.weight.mT).square().mean().backward()
    assert (net.embed.weight.grad - both).abs().max() > 1e-4  # the gradient comes from both ends


def test_the_variance_of_the_residual_stream_at_the_start():
    net = small(sharp=False, hidden_features=64, depth=8).requires_grad_(False)
    assert net.embed.weight.std() == pytest.approx(0.02, rel=0.2)
    assert net.stack.blocks[0].feed[0].weight.std() == pytest.approx(0.02, rel=0.1)
    assert net.stack.blocks[7].feed[2].weight.std() == pytest.approx(0.02 / 4, rel=0.1)
    assert net.stack.blocks[7].attention.out_proj.weight.std() == pytest.approx(0.02 / 4, rel=0.1)
    assert all(not p.any() for name, p in net.named_parameters() if name.endswith("bias"))
    loss = functional.cross_entropy(net(tokens()).flatten(0, 1), tokens().flatten())
    assert loss == pytest.approx(torch.tensor(V).log().item(), rel=0.05)
    assert all("norm" in name for name, _ in small(bias=False).named_parameters() if name.endswith("bias"))


@POSITION
def test_the_past_does_not_see_the_future(position):
    net, x = small(position=position), tokens()
    changed = x.clone()
    changed[:, 5:] = (x[:, 5:] + 1) % V
    close(net(changed)[:, :5], net(x)[:, :5], 1e-6)
    assert (net(changed)[:, 5:] - net(x)[:, 5:]).abs().amax((0, 2)).min() > 1e-3


@BOTH
@POSITION
def test_cached_equals_uncached(dtype, position):
    net, x = small(dtype, position=position), tokens()
    caches, found = net.empty_caches(3), []
    for part in x.split((3, 1, 1, 2, 1), dim=1):
        logits, caches = net.extend(part, caches)
        found.append(logits)
    close(torch.cat(found, 1), net(x), 1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("given", [1, 3])
def test_greedy_in_three_ways(given):
    net, prompt, u = small(torch.float64), tokens(4, given), torch.rand(4, 5)
    expected = prompt
    for _ in range(5):
        expected = torch.cat([expected, net(expected)[:, -1].argmax(-1, keepdim=True)], 1)
    expected = expected[:, given:]
    assert torch.equal(net.generate(prompt, 5, u, temperature=0.0), expected)
    assert torch.equal(net.generate(prompt, 5, u, top_k=1), expected)
    assert len(expected.unique(dim=0)) > 1
    if given == 1:
        assert torch.equal(greedy(net.step, net.empty_caches(4), prompt[:, 0], None, 5), expected)


def test_samples_are_a_function_of_u_and_follow_the_distribution():
    net, rows = small().requires_grad_(False), 4000
    prompt = torch.tensor([[2, 1]]).expand(rows, -1)
    u = torch.rand(rows, 1)
    first = net.generate(prompt, 1, u)
    assert torch.equal(net.generate(prompt, 1, u), first)
    assert not torch.equal(net.generate(prompt, 1, u.flip(0)), first)
    share = torch.softmax(net(prompt[:1])[0, -1], -1)
    counts = torch.bincount(first.flatten(), minlength=V) / rows
    close(counts, share, 0.03)
    best = share.topk(2).indices
    assert set(net.generate(prompt, 1, u, top_k=2).flatten().tolist()) == set(best.tolist())
    assert set(net.generate(prompt, 1, u, top_p=float(share.max()) - 0.01).flatten().tolist()) == {int(best[0])}


def test_a_prompt_must_fit():
    net = small()
    assert net.generate(tokens(2, T), 1, torch.rand(2, 1)).shape == (2, 1)
    for given, length in ((T, 2), (0, 1)):
        with pytest.raises(ValueError, match=f"a prompt of {given} tokens and {length} more do not fit"):
            net.generate(tokens(2, given), length, torch.rand(2, length))
    with pytest.raises(ValueError, match=r"a gpt takes tokens \(T,\); not the shape \(3, 4\)"):
        GPT((3, 4), V)


@BOTH
def test_lanes_with_dropout_equal_single_runs_and_generate(dtype):
    execution = Execution("eager", dtype=dtype)
    net, params, buffers = execution.stack(lambda: small(sharp=False, dropout=0.3), [1, 2])
    assert params["embed.weight"].shape == (2, V, 8)
    x, keys = torch.randint(V, (2, 3, T)), torch.tensor([3, 4])

    def loss(params, buffers, x, key):
        logits, _ = call(net, params, buffers, x[:, :-1], noise=key)
        return functional.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten())

    found = execution.each(grad_and_value(loss))(params, buffers, x, keys)
    expected = Execution("loop", dtype=dtype).each(grad_and_value(loss))(params, buffers, x, keys)
    for name, gradient in found[0].items():
        close(gradient, expected[0][name], 1e-5 if dtype == torch.float32 else 1e-12)

    class Generate(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, prompt, u):
            return self.net.generate(prompt, 4, u, top_p=0.9)

    def generate(params, prompt, u):
        return call(Generate(), {f"net.{n}": p for n, p in params.items()}, {}, prompt, u, training=False)[0]

    u = torch.rand(2, 3, 4)
    together = execution.each(generate)(params, x[..., :2], u)
    alone = Execution("loop", dtype=dtype).each(generate)(params, x[..., :2], u)
    assert torch.equal(together, alone)


@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_learns_a_short_repeating_text(position):
    text = "to be or not to be; "
    known = sorted(set(text))
    period = torch.tensor([known.index(c) for c in text])
    net = GPT((len(text) + 4,), len(known), hidden_features=32, depth=1, heads=2, expansion=2, position=position)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    data = torch.stack([period.repeat(3)[s : s + 13] for s in range(len(text))])
    for _ in range(60):
        loss = functional.cross_entropy(net(data[:, :-1]).flatten(0, 1), data[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    new = net.eval().generate(period[None, :6], 6, torch.rand(1, 6), temperature=0.5)
    assert "".join(known[i] for i in new[0].tolist()) == text[6:12]
