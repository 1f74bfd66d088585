"""Attention, positions and the transformer block: against torch's own, masks, caches, lanes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from nets.attention import CrossAttention, SelfAttention, TransformerBlock, attend
from nets.lanes import Execution, call, grad_and_value
from nets.noise import noise_from
from nets.positions import places, positions, rotate, sinusoids

pytestmark = pytest.mark.filterwarnings("error::UserWarning")  # a missing batching rule warns
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
TIGHT = {torch.float32: 1e-5, torch.float64: 1e-12}
B, T, S, F = 3, 5, 4, 8


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def close(found, expected, atol=1e-5):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def perturbed(net):
    """Every parameter away from its initial value: zeros and ones would hide mistakes."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return net


def copy_attention(theirs, ours):
    """The weights of nn.MultiheadAttention from one of ours."""
    if isinstance(ours, SelfAttention):
        theirs.in_proj_weight.data.copy_(ours.in_proj.weight)
        theirs.in_proj_bias.data.copy_(ours.in_proj.bias)
    else:
        key, value = ours.memory_proj.weight.chunk(2)
        if theirs.in_proj_weight is None:
            for name, weight in (("q", ours.query_proj.weight), ("k", key), ("v", value)):
                getattr(theirs, f"{name}_proj_weight").data.copy_(weight)
        else:
            theirs.in_proj_weight.data.copy_(torch.cat([ours.query_proj.weight, key, value]))
        theirs.in_proj_bias.data.copy_(torch.cat([ours.query_proj.bias, ours.memory_proj.bias]))
    theirs.out_proj.load_state_dict(ours.out_proj.state_dict())


def same_values_and_gradients(ours, theirs, inputs, pairs, atol):
    """Compares outputs and the gradients of inputs and of pairs of parameters (ours may be a function)."""
    weight = torch.randn_like(ours(*inputs))
    for x in inputs:
        x.requires_grad_()
    found, expected = ours(*inputs), theirs(*inputs)
    close(found, expected, atol)
    a = torch.autograd.grad((found * weight).sum(), [*inputs, *(p for p, _ in pairs)])
    b = torch.autograd.grad((expected * weight).sum(), [*inputs, *(p for _, p in pairs)])
    for x, y in zip(a, b, strict=True):
        close(x, y, 10 * atol)


MASKS = {
    "none": None,
    "bool": torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 0]], dtype=torch.bool),
    "numbers": torch.linspace(-2, 1, T * S).reshape(T, S),
}


@BOTH
@pytest.mark.parametrize("causal", [False, True], ids=["open", "causal"])
@pytest.mark.parametrize("mask", MASKS)
def test_fused_and_written_out_agree_in_values_and_gradients(dtype, causal, mask):
    q, k, v = torch.randn(B, 2, T, 4), torch.randn(B, 2, S, 4), torch.randn(B, 2, S, 6)
    q, k, v = (t.to(dtype) for t in (q, k, v))
    given = MASKS[mask]
    given = given.to(dtype) if mask == "numbers" else given
    if mask == "bool" and causal:
        given = given & ~torch.eye(T, S, dtype=torch.bool)

    def fused(q, k, v):
        return attend(q, k, v, causal, given)

    def written(q, k, v):  # inside vmap torch's own is not used
        return torch.vmap(fused)(q, k, v)

    hidden = torch.zeros(T, S, dtype=torch.bool)
    if causal:
        hidden |= torch.ones(T, S, dtype=torch.bool).triu(1)
    bias = torch.zeros(T, S, dtype=dtype)
    if given is not None:
        bias = bias.masked_fill(given, -math.inf) if given.dtype == torch.bool else given
    bias = bias.masked_fill(hidden, -math.inf)
    by_hand = torch.softmax(q @ k.mT / 2 + bias, -1).nan_to_num(0) @ v
    close(fused(q, k, v), by_hand, TIGHT[dtype])
    same_values_and_gradients(written, fused, [q, k, v], [], TIGHT[dtype])


def test_an_ordinary_call_is_fused_and_a_transformed_one_is_not(monkeypatch):
    calls = []
    original = functional.scaled_dot_product_attention

    def counted(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", counted)
    q = torch.randn(2, 3, 4)
    attend(q, q, q)
    assert len(calls) == 1
    attend(q, q, q, dropout=nn.Dropout(0.5))
    torch.vmap(attend)(q, q, q)
    torch.vmap(attend, in_dims=(None, None, 0))(q, q, torch.randn(2, 2, 3, 4))
    torch.func.grad(lambda x: attend(x, x, x).sum())(q)
    assert len(calls) == 1


def test_second_derivatives():
    q = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    second = torch.func.hessian(lambda x: attend(x, x, x, True).square().sum())(q.detach())
    assert second.abs().max() > 0
    with sdpa_kernel(SDPBackend.MATH):  # as the docstring says of ordinary calls
        found = torch.autograd.functional.hessian(lambda x: attend(x, x, x, True).square().sum(), q)
    close(found, second, 1e-10)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("numbers", [True, False])
def test_who_sees_nothing_gets_zeros_and_a_finite_gradient(fused, numbers):
    hidden = torch.tensor([[True, True, True], [False, True, False]])
    mask = torch.zeros(2, 3).masked_fill(hidden, -math.inf) if numbers else hidden

    def f(q, k, v):
        return attend(q, k, v, mask=mask) if fused else torch.vmap(lambda *x: attend(*x, mask=mask))(q, k, v)

    q, k, v = (torch.randn(4, t, 6, requires_grad=True) for t in (2, 3, 3))
    out = f(q, k, v)
    assert torch.equal(out[:, 0], torch.zeros(4, 6))
    assert out[:, 1].abs().min() > 0
    for gradient in torch.autograd.grad(out.square().sum(), (q, k, v)):
        assert gradient.isfinite().all()
        assert gradient.any()


@BOTH
@pytest.mark.parametrize("masked", [False, True], ids=["open", "masked"])
def test_self_attention_equals_torch(dtype, masked):
    ours = perturbed(SelfAttention(F, 2, causal=masked)).to(dtype)
    theirs = nn.MultiheadAttention(F, 2, batch_first=True, dtype=dtype)
    copy_attention(theirs, ours)
    padding = torch.zeros(B, T, dtype=torch.bool)
    padding[0, 3:] = padding[1, 2] = masked
    extra = torch.randn(B, 2, T, T, dtype=dtype)
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    given = {"attn_mask": extra.flatten(0, 1).masked_fill(future, -math.inf)} if masked else {}
    keys = torch.zeros(B, T, dtype=dtype).masked_fill(padding, -math.inf)
    same_values_and_gradients(
        lambda x: ours(x, padding, extra if masked else None),
        lambda x: theirs(x, x, x, key_padding_mask=keys, need_weights=False, **given)[0],
        [torch.randn(B, T, F, dtype=dtype)],
        [(ours.in_proj.weight, theirs.in_proj_weight), (ours.in_proj.bias, theirs.in_proj_bias)],
        TIGHT[dtype],
    )


@BOTH
@pytest.mark.parametrize("width", [None, 6])
def test_cross_attention_equals_torch(dtype, width):
    ours = perturbed(CrossAttention(F, width, 2)).to(dtype)
    theirs = nn.MultiheadAttention(F, 2, kdim=width, vdim=width, batch_first=True, dtype=dtype)
    copy_attention(theirs, ours)
    padding = torch.zeros(B, S, dtype=torch.bool)
    padding[0, 3:] = True
    hidden = MASKS["bool"]
    same_values_and_gradients(
        lambda x, memory: ours(x, memory, padding, hidden),
        lambda x, memory: theirs(x, memory, memory, padding, need_weights=False, attn_mask=hidden)[0],
        [torch.randn(B, T, F, dtype=dtype), torch.randn(B, S, width or F, dtype=dtype)],
        [(ours.out_proj.weight, theirs.out_proj.weight)],
        TIGHT[dtype],
    )


def torch_layer(ours, norm_first, decoder, dtype):
    """torch's encoder or decoder layer with the weights of a block; and the pairs of parameters to compare."""
    kind = nn.TransformerDecoderLayer if decoder else nn.TransformerEncoderLayer
    theirs = kind(F, 2, 12, 0.0, "gelu", batch_first=True, norm_first=norm_first, dtype=dtype)
    copy_attention(theirs.self_attn, ours.attention)
    theirs.norm1.load_state_dict(ours.attention_norm.state_dict())
    if decoder:
        copy_attention(theirs.multihead_attn, ours.cross)
        theirs.norm2.load_state_dict(ours.cross_norm.state_dict())
    last = theirs.norm3 if decoder else theirs.norm2
    last.load_state_dict(ours.feed_norm.state_dict())
    theirs.linear1.load_state_dict(ours.feed[0].state_dict())
    theirs.linear2.load_state_dict(ours.feed[2].state_dict())
    pairs = [
        (ours.attention.in_proj.weight, theirs.self_attn.in_proj_weight),
        (ours.attention_norm.weight, theirs.norm1.weight),
        (ours.feed[0].weight, theirs.linear1.weight),
        (ours.feed_norm.bias, last.bias),
    ]
    return theirs, pairs


@BOTH
@pytest.mark.parametrize("norm_first", [True, False])
def test_block_equals_torchs_encoder_layer(dtype, norm_first):
    ours = perturbed(TransformerBlock(F, 12, 2, norm_first=norm_first)).to(dtype)
    theirs, pairs = torch_layer(ours, norm_first, False, dtype)
    padding = torch.zeros(B, T, dtype=torch.bool)
    padding[2, 1:] = True
    same_values_and_gradients(
        lambda x: ours(x, padding),
        lambda x: theirs(x, src_key_padding_mask=padding),
        [torch.randn(B, T, F, dtype=dtype)],
        pairs,
        TIGHT[dtype],
    )


@BOTH
@pytest.mark.parametrize("norm_first", [True, False])
def test_block_with_a_memory_equals_torchs_decoder_layer(dtype, norm_first):
    block = TransformerBlock(F, 12, 2, causal=True, norm_first=norm_first, memory_features=F)
    ours = perturbed(block).to(dtype)
    theirs, pairs = torch_layer(ours, norm_first, True, dtype)
    padding = torch.zeros(B, S, dtype=torch.bool)
    padding[2, 1:] = True
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    same_values_and_gradients(
        lambda x, memory: ours(x, memory=memory, memory_padding=padding),
        lambda x, memory: theirs(x, memory, tgt_mask=future, memory_key_padding_mask=padding),
        [torch.randn(B, T, F, dtype=dtype), torch.randn(B, S, F, dtype=dtype)],
        pairs,
        TIGHT[dtype],
    )


@pytest.mark.parametrize("rotary", [False, True], ids=["plain", "rotary"])
def test_masks_leak_nothing(rotary):
    net = SelfAttention(F, 2, causal=True, rotary=rotary)
    x = torch.randn(B, T, F)
    changed = x.clone()
    changed[:, 3:] += 100
    assert torch.equal(net(x)[:, :3], net(changed)[:, :3])
    assert not torch.allclose(net(x)[:, 3:], net(changed)[:, 3:])
    padding = torch.zeros(B, T, dtype=torch.bool)
    padding[:, 1] = True
    net.causal = False
    changed = torch.where(padding.unsqueeze(-1), x + 100, x)
    seen = [0, 2, 3, 4]
    assert torch.equal(net(x, padding)[:, seen], net(changed, padding)[:, seen])


@BOTH
@pytest.mark.parametrize("chunks", [(1, 1, 1, 1, 1), (3, 1, 1), (2, 3)])
def test_cached_equals_uncached(dtype, chunks):
    net = TransformerBlock(F, 12, 2, causal=True, rotary=True).to(dtype)
    x = torch.randn(B, T, F, dtype=dtype)
    cache, parts = net.attention.empty_cache(B, T + 1), []
    for part in x.split(chunks, dim=1):
        before = [t.clone() for t in cache]
        y, new = net.extend(part, cache)
        assert all(torch.equal(a, b) for a, b in zip(before, cache, strict=True))  # nothing changes in place
        cache, parts = new, [*parts, y]
    close(torch.cat(parts, 1), net(x), TIGHT[dtype])
    assert cache.place.tolist() == [T] * B


def test_rows_of_a_cache_may_be_at_different_places():
    net = SelfAttention(F, 2, causal=True, rotary=True)
    x = torch.randn(2, T, F)
    _, long = net.extend(x[:, :3], net.empty_cache(2, T))
    _, short = net.extend(x[:, :1], net.empty_cache(2, T))
    mixed = type(long)(*(torch.stack([a[0], b[1]]) for a, b in zip(long, short, strict=True)))
    y, _ = net.extend(torch.stack([x[0, 3:4], x[1, 1:2]]), mixed)
    expected = net(x)
    close(y[:, 0], torch.stack([expected[0, 3], expected[1, 1]]))


def test_a_full_cache_says_so():
    net = SelfAttention(F, 2)
    with pytest.raises(RuntimeError, match="out of bounds"):
        net.extend(torch.randn(1, 3, F), net.empty_cache(1, 2))


def test_sinusoids_are_those_of_the_paper():
    table = sinusoids(torch.arange(7), 6, torch.float64)
    for place in range(7):
        for i in range(3):
            angle = place / 10000 ** (2 * i / 6)
            assert table[place, 2 * i] == pytest.approx(math.sin(angle))
            assert table[place, 2 * i + 1] == pytest.approx(math.cos(angle))
    assert torch.equal(sinusoids(torch.arange(7), 5, torch.float64), table[:, :5])  # an odd width


@BOTH
def test_rotary_products_depend_on_the_distance_alone(dtype):
    q, k = torch.randn(2, B, 1, 6, 1, 4, dtype=dtype).squeeze(-2)
    at = torch.arange(6)

    def products(shift):
        return rotate(q, at + shift) @ rotate(k, at + shift).mT

    close(products(11), products(0), 10 * TIGHT[dtype])
    close(rotate(q, at).norm(dim=-1), q.norm(dim=-1), TIGHT[dtype])
    pairs = torch.view_as_complex(q.unflatten(-1, (-1, 2)).contiguous())  # the paper's equation 12
    turn = torch.exp(1j * at.unsqueeze(-1).to(dtype) * torch.tensor([1.0, 0.01], dtype=dtype))
    close(rotate(q, at), torch.view_as_real(pairs * turn).flatten(-2), TIGHT[dtype])
    close(rotate(q, at.expand(B, -1)), rotate(q, at), TIGHT[dtype])


@pytest.mark.parametrize("name", ["learned", "sinusoidal", "rotary", "none"])
def test_positions_from_a_later_start(name):
    layer, x = positions(name, 7, F), torch.randn(2, 7, F)
    found = layer(x[:, 4:], torch.tensor([4, 4]))
    close(found, layer(x)[:, 4:], 1e-6)
    assert torch.equal(layer(x), x) == (name in ("rotary", "none"))
    assert places(x, torch.tensor([2, 5])).tolist() == [list(range(2, 9)), list(range(5, 12))]


def test_values_are_checked():
    for build, message in (
        (lambda: SelfAttention(8, 3), "3 heads do not divide a width of 8"),
        (lambda: CrossAttention(8, heads=3), "3 heads do not divide a width of 8"),
        (lambda: SelfAttention(6, 2, rotary=True), "heads of even width, not 3"),
        (lambda: positions("absolute", 3, 4), "unknown position 'absolute'; known: learned"),
        (
            lambda: TransformerBlock(8, 8)(torch.zeros(1, 2, 8), memory=torch.zeros(1, 2, 8)),
            "a memory was given; memory_features is None",
        ),
        (
            lambda: TransformerBlock(8, 8, memory_features=4)(torch.zeros(1, 2, 8)),
            "a memory was not given; memory_features is 4",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            build()


def test_dropout_and_drop_path_only_in_training_and_from_the_key():
    net, x = TransformerBlock(F, 12, 2, dropout=0.4, drop_path=0.4), torch.randn(16, T, F)

    def drawn(key):
        with noise_from(torch.tensor(key)):
            return net(x)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.allclose(drawn(1), drawn(2))
    net.eval()
    assert torch.equal(drawn(1), drawn(2))
    assert torch.equal(drawn(1), net(x))
    path = TransformerBlock(F, 12, 2, drop_path=0.9)
    with noise_from(torch.tensor(3)):
        kept = (path(x) == x).flatten(1).all(1)
    assert 8 <= kept.sum() < 16  # rows that skip both branches come out as they went in


@BOTH
def test_lanes_with_masks_memory_and_dropout_equal_single_runs(dtype):
    execution = Execution("eager", dtype=dtype)
    net, params, buffers = execution.stack(
        lambda: TransformerBlock(F, 12, 2, causal=True, dropout=0.2, rotary=True, memory_features=6), [1, 2]
    )
    x, memory = torch.randn(2, B, T, F, dtype=dtype), torch.randn(2, B, S, 6, dtype=dtype)
    padding = torch.rand(2, B, T) < 0.3
    memory_padding = torch.rand(2, B, S) < 0.5
    memory_padding[0, 1] = True  # this row sees nothing at all
    keys = torch.tensor([5, 6])

    def loss(params, buffers, x, padding, memory, memory_padding, key):
        out, _ = call(net, params, buffers, x, padding, None, memory, memory_padding, noise=key)
        return out.square().mean()

    given = (params, buffers, x, padding, memory, memory_padding, keys)
    found = execution.each(grad_and_value(loss))(*given)
    expected = Execution("loop", dtype=dtype).each(grad_and_value(loss))(*given)
    close(found[1], expected[1], TIGHT[dtype])
    for name, gradient in found[0].items():
        close(gradient, expected[0][name], TIGHT[dtype])
        assert gradient.any(), name
