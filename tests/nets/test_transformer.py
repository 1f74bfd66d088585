"""Transformers over sequences, images and tokens, and from sequence to sequence: masks, shapes, decoding, lanes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from nets.decoding import greedy
from nets.registry import build
from nets.transformer import Seq2SeqTransformer, Transformer, TransformerStack, pooled
from nets.vit import ViT, patches

pytestmark = pytest.mark.filterwarnings("error::UserWarning")  # a missing batching rule warns
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
NORM_FIRST = pytest.mark.parametrize("norm_first", [True, False])
SMALL = {"hidden_features": 8, "depth": 2, "heads": 2, "expansion": 2}
START, END = 1, 2


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def close(found, expected, atol=1e-5):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@NORM_FIRST
def test_a_causal_stack_does_not_see_the_future(norm_first):
    net = TransformerStack(8, 2, norm_first=norm_first, heads=2, causal=True, rotary=True)
    x = torch.randn(2, 6, 8)
    changed = torch.cat([x[:, :4], torch.randn(2, 2, 8)], 1)
    close(net(changed)[:, :4], net(x)[:, :4], 1e-6)
    assert (net(changed)[:, 4:] - net(x)[:, 4:]).abs().max() > 1e-3


@BOTH
@NORM_FIRST
def test_a_decoder_stack_with_caches_equals_one_without(dtype, norm_first):
    net = TransformerStack(8, 2, norm_first=norm_first, heads=2, causal=True, memory_features=6).to(dtype)
    x, memory = torch.randn(3, 5, 8, dtype=dtype), torch.randn(3, 4, 6, dtype=dtype)
    padding = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    caches, projected, parts = net.empty_caches(3, 5), net.project(memory), []
    for part in x.split(1, dim=1):
        y, caches = net.extend(part, caches, projected, padding)
        parts.append(y)
    expected = net(x, memory=memory, memory_padding=padding)
    assert expected.isfinite().all()  # the last row has no memory at all
    close(torch.cat(parts, 1), expected, 1e-5 if dtype == torch.float32 else 1e-12)


def test_drop_path_grows_with_the_depth():
    net = TransformerStack(8, 4, drop_path=0.2, heads=2)
    assert [b.drop_path.rate for b in net.blocks] == pytest.approx([0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize("pool", ["mean", "first", "last"])
def test_pooling_leaves_padding_out(pool):
    x = torch.randn(3, 4, 2)
    padding = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]], dtype=torch.bool)
    seen = [x[0, :2], x[1], x[2, [0, 2]]]
    take = {"mean": lambda s: s.mean(0), "first": lambda s: s[0], "last": lambda s: s[-1]}[pool]
    close(pooled(x, pool, padding), torch.stack([take(s) for s in seen]))
    close(pooled(x, pool), torch.stack([take(row) for row in x]))
    assert pooled(x, pool, torch.ones(3, 4, dtype=torch.bool)).isfinite().all()


@pytest.mark.parametrize("pool", ["mean", "first", "last"])
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary", "none"])
def test_padded_tokens_change_nothing(pool, position):
    net = Transformer((6,), vocabulary=7, padding=True, pool=pool, position=position, **SMALL)
    tokens = torch.tensor([[3, 4, 5, 0, 0, 0], [1, 2, 3, 4, 5, 6]])
    found = net(tokens)
    close(net(tokens[:1, :3]), found[:1], 1e-6)
    with torch.no_grad():
        net.embed.weight[0] += 100  # nobody sees what padding looks like
    close(net(tokens), found, 1e-6)
    assert net(torch.zeros(1, 6, dtype=torch.int64)).isfinite().all()
    net.padding = False
    assert (net(tokens)[0] - found[0]).abs().max() > 1e-3


def test_the_order_is_seen_unless_there_are_no_positions():
    x = torch.randn(2, 6, 3)
    for position in ("learned", "sinusoidal", "rotary", "none"):
        net = Transformer((6, 3), position=position, **SMALL)
        same = torch.allclose(net(x), net(x.flip(1)), atol=1e-5)
        assert same == (position == "none"), position


def test_rows_of_an_image_are_its_sequence():
    image = torch.randn(2, 3, 5, 4)  # channels, height, width
    net = Transformer((3, 5, 4), **SMALL)
    rows = torch.stack([image[:, :, t].flatten(1) for t in range(5)], dim=1)
    other = Transformer((5, 12), **SMALL)
    other.load_state_dict(net.state_dict())
    close(net(image), other(rows), 1e-6)
    assert net.out_features == net(image).shape[-1] == 8


def test_shapes_are_checked():
    for make, message in (
        (lambda: Transformer((4,)), r"tokens \(T,\) with a vocabulary.*not the shape \(4,\)"),
        (lambda: Transformer((5, 4), vocabulary=3), r"takes tokens \(T,\); not the shape \(5, 4\)"),
        (lambda: Transformer((5, 4, 3, 2)), r"not the shape \(5, 4, 3, 2\)"),
        (lambda: Transformer((5, 4), padding=True), "padding: only tokens have a padding token"),
        (lambda: Seq2SeqTransformer((5, 4), 3), r"source tokens \(S,\); not the shape \(5, 4\)"),
        (lambda: ViT((5,)), r"images \(C, H, W\) or \(H, W\); not the shape \(5,\)"),
        (lambda: ViT((1, 8, 6), patch=4), "patches of 4 x 4 do not fill an image of 8 x 6"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_a_linear_layer_on_patches_is_a_convolution():
    x, conv = torch.randn(2, 3, 4, 6), nn.Conv2d(3, 5, 2, stride=2)
    found = functional.linear(patches(x, 2), conv.weight.flatten(1), conv.bias)
    close(found, conv(x).flatten(2).mT)


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_vit(pool):
    net = build({"kind": "vit", "pool": pool, **SMALL}, (8, 8), 3)
    x = torch.randn(2, 8, 8)
    assert net(x).shape == (2, 3)
    close(net(x), build_like(net, (1, 8, 8))(x.unsqueeze(1)), 1e-6)
    assert hasattr(net.encoder, "class_token") == (pool == "class")


def build_like(net, shape):
    other = build(net.recipe["config"], shape, 3)
    other.load_state_dict(net.state_dict())
    return other


def seq2seq(dtype=torch.float32, **fields):
    """A model with sharp and varied answers, so that decoding has something to decide."""
    net = Seq2SeqTransformer((5,), 7, **{**SMALL, **fields}).to(dtype)
    with torch.no_grad():
        net.head.weight *= 4
    return net


SOURCE = torch.tensor([[3, 4, 5, 0, 0], [6, 5, 4, 3, 2], [1, 0, 0, 0, 0]])


@BOTH
@NORM_FIRST
@pytest.mark.parametrize("position", ["sinusoidal", "learned", "rotary"])
def test_steps_with_a_cache_equal_the_whole_at_once(dtype, norm_first, position):
    net = seq2seq(dtype, norm_first=norm_first, position=position)
    target = torch.tensor([[1, 4, 4, 2], [1, 6, 3, 0], [1, 0, 0, 5]])
    state, found = net.start(SOURCE, 4), []
    for token in target.unbind(1):
        logits, state = net.step(token, state)
        found.append(logits)
    close(torch.stack(found, 1), net(SOURCE, target), 1e-5 if dtype == torch.float32 else 1e-11)


def test_seq2seq_sees_neither_the_future_nor_padding():
    net = seq2seq()
    target = torch.tensor([[1, 4, 5, 6]] * 3)
    changed = torch.tensor([[1, 4, 6, 0]] * 3)
    logits = net(SOURCE, target)
    close(net(SOURCE, changed)[:, :2], logits[:, :2], 1e-6)
    assert (net(SOURCE, changed)[:, 2:] - logits[:, 2:]).abs().max() > 1e-3
    close(net(SOURCE[:1, :3], target[:1]), logits[:1], 1e-6)
    with torch.no_grad():
        net.source_embed.weight[0] += 100
    close(net(SOURCE, target), logits, 1e-6)
    assert net(torch.zeros_like(SOURCE), target).isfinite().all()


def greedy_by_hand(net, source, length):
    tokens = torch.full((source.shape[0], 1), START)
    for _ in range(length):
        tokens = torch.cat([tokens, net(source, tokens)[:, -1].argmax(-1, keepdim=True)], 1)
    tokens = tokens[:, 1:]
    return torch.where((tokens == END).cumsum(1) > 0, END, tokens)


def test_a_beam_of_one_is_greedy_and_wider_ones_are_no_worse():
    net = seq2seq(torch.float64)
    with torch.no_grad():
        first = torch.full((3,), START)
        expected = greedy_by_hand(net, SOURCE, 5)
        assert torch.equal(greedy(net.step, net.start(SOURCE, 5), first, END, 5), expected)
        assert torch.equal(net.generate(SOURCE, START, END, 5), expected)

        def log_p(tokens):
            logits = net(SOURCE, torch.cat([first.unsqueeze(1), tokens[:, :-1]], 1))
            each = torch.log_softmax(logits, -1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
            over = functional.pad((tokens == END).cumsum(1), (1, 0))[:, :-1] > 0
            return each.masked_fill(over, 0.0).sum(1)

        wide = net.generate(SOURCE, START, END, 3, width=7**2)
        assert (log_p(wide) >= log_p(expected[:, :3]) - 1e-9).all()


def test_generation_runs_as_lanes():
    nets = [seq2seq(torch.float64) for _ in range(2)]
    params, buffers = torch.func.stack_module_state(nets)
    sources = torch.stack([SOURCE, SOURCE.flip(0)])

    class Generate(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, source):
            return self.net.generate(source, START, END, 4, width=2)

    def one(weights, source):
        named = {f"net.{name}": w for name, w in weights.items()}
        return torch.func.functional_call(Generate(nets[0]), named, (source,))

    found = torch.vmap(one)({**params, **buffers}, sources)
    for k, net in enumerate(nets):
        assert torch.equal(found[k], net.generate(sources[k], START, END, 4, width=2))


def test_learns_to_reverse_a_sequence():
    net = Seq2SeqTransformer((3,), 7, hidden_features=16, depth=1, heads=2, position="learned", target_length=4)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    every = torch.cartesian_prod(*[torch.arange(3, 7)] * 3)  # 64 sequences of three tokens
    target = torch.cat([every.flip(1), torch.full((64, 1), END)], 1)
    given = torch.cat([torch.full((64, 1), START), target[:, :-1]], 1)
    for _ in range(80):
        loss = functional.cross_entropy(net(every, given).flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        right = (net.generate(every, START, END, 4) == target).all(1)
    assert right.float().mean() >= 0.9
