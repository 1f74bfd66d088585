"""The recurrent layers against torch's own, their masks and states, and lanes; a missing batching rule is an error."""

from __future__ import annotations

import math
import re
import warnings
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from nets.lanes import Execution, call, grad_and_value
from nets.noise import noise_from
from nets.recurrent import Recurrent
from nets.registry import build

CELLS = pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
F, H, B, T = 3, 4, 3, 6


@pytest.fixture(autouse=True)
def strict():
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("error")
        torch.manual_seed(0)
        yield


def _pair(cell: str, depth: int = 2, bidirectional: bool = True) -> tuple[Recurrent, nn.RNNBase]:
    """Our layers and torch's under the same weights."""
    torchs = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[cell]
    theirs = torchs(F, H, num_layers=depth, batch_first=True, bidirectional=bidirectional)
    ours = Recurrent(F, H, cell, depth, bidirectional)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def _parts(state: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def _state(layers: Recurrent) -> Tensor | tuple[Tensor, Tensor]:
    shape = (layers.depth * len(layers.directions), B, H)
    return (torch.randn(shape), torch.randn(shape)) if layers.cell == "lstm" else torch.randn(shape)


def _close(found, expected, tolerance: float = 1e-5) -> None:
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance


@CELLS
@pytest.mark.parametrize(("depth", "bidirectional"), [(1, False), (3, True)])
def test_outputs_states_and_gradients_equal_torchs(cell, depth, bidirectional):
    ours, theirs = _pair(cell, depth, bidirectional)
    x, never = torch.randn(B, T, F), torch.zeros(B, T, dtype=torch.bool)  # what has resets is a scan
    for start in (None, _state(ours)):
        results = []
        for net in (ours, partial(ours, reset=never), theirs):
            leaves = [t.clone().requires_grad_() for t in (x, *(() if start is None else _parts(start)))]
            given = None if start is None else leaves[1] if isinstance(start, Tensor) else tuple(leaves[1:])
            outputs, end = net(leaves[0], given)
            loss = outputs.square().sum() + sum((s * (1 + i)).sum() for i, s in enumerate(_parts(end)))
            weights = (theirs if net is theirs else ours).parameters()
            results.append((outputs, *_parts(end), *torch.autograd.grad(loss, [*leaves, *weights])))
        _close(results[0], results[2])
        _close(results[1], results[2])


def test_an_ordinary_call_is_torchs_and_a_transformed_one_is_not(monkeypatch):
    calls = []

    def counted(original, *args):
        calls.append(1)
        return original(*args)

    for name in ("lstm", "gru"):
        monkeypatch.setattr(torch, name, partial(counted, getattr(torch, name)))
    net, x = Recurrent(F, H, depth=2).eval(), torch.randn(B, T, F)
    net(x)[0].sum().backward()  # in evaluation too there are gradients: saliency
    assert len(calls) == 2  # layers
    flags = torch.arange(T) < torch.tensor([6, 3, 0]).unsqueeze(1)
    net(x, mask=flags)  # padding at the end
    assert len(calls) == 4
    net(x, mask=~flags)
    torch.vmap(lambda part: net(x, mask=part)[0])(flags.unsqueeze(0))
    net(x, (torch.ones(2, B, H), torch.ones(2, B, H)), mask=flags)
    net(x, reset=flags)
    net(x[:, :2])
    Recurrent(F, H, truncate=4)(x)
    Recurrent(F, H, "gru")(x, mask=flags)
    Recurrent(F, H, "rnn")(x)
    net.double()(x.double())
    net.float()
    torch.vmap(lambda part: net(part)[0])(x.unsqueeze(0))
    weights = dict(net.named_parameters())
    lanes = {name: weight.unsqueeze(0) for name, weight in weights.items()}
    torch.vmap(lambda given: torch.func.functional_call(net, given, x)[0])(lanes)
    torch.func.grad(lambda given: torch.func.functional_call(net, given, x)[0].sum())(weights)
    with torch.autocast("cpu"):
        net(x)
    assert len(calls) == 4
    Recurrent(F, H, "gru")(x)
    assert len(calls) == 5


@pytest.mark.parametrize(("depth", "bidirectional"), [(1, False), (1, True), (3, True)])
def test_padding_for_torchs_kernel_and_for_the_scan(depth, bidirectional):
    net, x = Recurrent(F, H, "lstm", depth, bidirectional), torch.randn(B, T, F)
    mask = torch.arange(T) < torch.tensor([6, 3, 0]).unsqueeze(1)
    results = []
    for given in ({}, {"reset": torch.zeros(B, T, dtype=torch.bool)}):
        leaf = torch.where(mask.unsqueeze(-1), x, 7.0).requires_grad_()
        outputs, end = net(leaf, mask=mask, **given)
        loss = outputs.square().sum() + sum((s * (1 + i)).sum() for i, s in enumerate(_parts(end)))
        slope, *grads = torch.autograd.grad(loss, [leaf, *net.parameters()])
        assert not slope[~mask].any()
        results.append((outputs, *_parts(end), slope, *grads))
    _close(*results)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_torchs_kernel_and_the_scan_drop_the_same_numbers(cell):
    net, x = Recurrent(F, H, cell, depth=3, dropout=0.5).train(), torch.randn(B, T, F)
    with noise_from(torch.tensor(3)):
        by_torch, _ = net(x)
    with noise_from(torch.tensor(3)):
        scanned, _ = net(x, reset=torch.zeros(B, T, dtype=torch.bool))
    _close([by_torch], [scanned], 1e-6)


def test_a_reset_gives_an_lstm_second_derivatives():
    net, x = Recurrent(F, H), torch.randn(B, T, F, requires_grad=True)
    outputs, _ = net(x, reset=torch.zeros(B, T, dtype=torch.bool))
    (slope,) = torch.autograd.grad(outputs.square().sum(), x, create_graph=True)
    assert torch.autograd.grad(slope.square().sum(), x)[0].abs().max() > 0


@CELLS
def test_a_seed_gives_torchs_numbers(cell):
    torch.manual_seed(3)
    ours = Recurrent(F, H, cell, 2, True).state_dict()
    torch.manual_seed(3)
    theirs = _pair(cell)[1].state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@CELLS
def test_padding_is_as_if_it_were_not_there(cell):
    ours, theirs = _pair(cell)
    x, lengths = torch.randn(B, T, F), torch.tensor([6, 3, 1])
    mask = torch.arange(T) < lengths.unsqueeze(1)
    outputs, state = ours(x, mask=mask)
    packed, expected = theirs(pack_padded_sequence(x, lengths, batch_first=True))
    real = mask.unsqueeze(-1)
    _close([torch.where(real, outputs, 0.0)], [pad_packed_sequence(packed, batch_first=True)[0]])
    _close(_parts(state), _parts(expected))
    filled = torch.where(real, x, math.nan)
    _close(ours(filled, mask=mask)[:1], [outputs], 0.0)
    held = Recurrent(F, H, cell)(x, mask=mask)[0]
    assert torch.equal(held[1, 3:], held[1, 2].expand(3, H))  # padded steps repeat the last output


@CELLS
def test_a_reset_starts_anew(cell):
    net = Recurrent(F, H, cell, depth=2)
    x, start = torch.randn(B, T, F), _state(net)
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[0, 0] = reset[1, 2] = reset[1, 3] = True
    outputs, state = net(x, start, reset)
    plain, end = net(x, start)
    fresh = [net(x[:, t:])[0] for t in range(T)]
    expected = plain.clone()
    expected[0] = fresh[0][0]
    expected[1] = torch.cat([plain[1, :2], fresh[2][1, :1], fresh[3][1]])
    _close([outputs, *(s[:, 2] for s in _parts(state))], [expected, *(s[:, 2] for s in _parts(end))])
    leaf = x.clone().requires_grad_()
    grad = torch.autograd.grad(net(leaf, start, reset)[0][1, 3:].sum(), leaf)[0]
    assert not grad[1, :3].any()
    assert grad[1, 3:].all()


@CELLS
def test_a_reset_separates_episodes_in_both_directions(cell):
    net = Recurrent(F, H, cell, depth=2, bidirectional=True)
    x = torch.randn(B, T, F)
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 2] = True
    parts = [net(x[:, :2])[0], net(x[:, 2:])[0]]
    _close([net(x, reset=reset)[0]], [torch.cat(parts, 1)], 1e-6)


@CELLS
def test_sequences_go_on_from_their_state(cell):
    net, x = Recurrent(F, H, cell, depth=2), torch.randn(B, T, F)
    whole, last = net(x)
    first, state = net(x[:, :4])
    second, end = net(x[:, 4:], state)
    _close([torch.cat([first, second], 1), *_parts(end)], [whole, *_parts(last)], 1e-6)


@CELLS
def test_truncated_gradients_stop_at_the_border(cell):
    net, full = Recurrent(F, H, cell, truncate=4), Recurrent(F, H, cell)
    full.load_state_dict(net.state_dict())
    x = torch.randn(B, T, F).requires_grad_()
    outputs, _ = net(x)
    _close([outputs], [full(x)[0]], 1e-6)
    grad = torch.autograd.grad(outputs[:, -1].sum(), x)[0]
    assert not grad[:, :4].any()
    assert grad[:, 4:].all()
    state = full(x[:, :4])[1]
    kept = tuple(s.detach() for s in state) if cell == "lstm" else state.detach()
    expected = torch.autograd.grad(full(x[:, 4:], kept)[0][:, -1].sum(), x)[0]
    _close([grad], [expected], 1e-7)


@CELLS
def test_lanes_with_masks_resets_and_dropout_equal_single_runs(cell):
    build_net = lambda: Recurrent(F, H, cell, 2, True, dropout=0.3, truncate=3)  # noqa: E731
    net, params, buffers = Execution(dtype=torch.float64).stack(build_net, range(3))
    x, masks = torch.randn(3, B, T, F).double(), torch.rand(2, 3, B, T) < 0.6

    def gradients(params, x, reset, mask, key):
        def loss(params):
            (outputs, state), _ = call(net, params, buffers, x, None, reset, mask, noise=key)
            return outputs.square().sum() + sum(s.sum() for s in _parts(state))

        return grad_and_value(loss)(params)

    args = (params, x, *masks, torch.arange(3))
    lanes, singles = (Execution(mode).each(gradients)(*args) for mode in ("eager", "loop"))
    for name in params:
        _close([lanes[0][name]], [singles[0][name]], 1e-12)
    _close([lanes[1]], [singles[1]], 1e-12)


def test_dropout_lies_between_the_layers_only():
    x = torch.randn(B, T, F)
    single, double = Recurrent(F, H, "gru", 1, dropout=0.9), Recurrent(F, H, "gru", 2, dropout=0.9)
    assert torch.equal(single.train()(x)[0], single.eval()(x)[0])
    assert not torch.equal(double.train()(x)[0], double.eval()(x)[0])
    assert double.train()(x)[0].ne(0).all()


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_encoders_take_sequences_images_and_tokens(kind):
    config = {"kind": kind, "hidden_features": H, "bidirectional": True, "depth": 2}
    image = torch.randn(B, 5, 3)
    rows, channel = (build(config, shape) for shape in ((5, 3), (1, 5, 3)))
    channel.load_state_dict(rows.state_dict())
    assert rows(image).shape == (B, rows.out_features) == (B, 2 * H)
    assert torch.equal(rows(image), channel(image.unsqueeze(1)))
    colour, x = build(config, (2, 5, 3)), torch.randn(B, 2, 5, 3)
    assert not torch.equal(colour(x), colour(x.flip(2)))  # the order of the rows matters
    words = build({**config, "vocabulary": 9}, (5,))
    assert words(torch.randint(9, (B, 5))).shape == (B, 2 * H)
    for shape, fields in (((5,), {}), ((5, 3), {"vocabulary": 9}), ((2, 3, 4, 5), {}), ((), {"vocabulary": 9})):
        with pytest.raises(ValueError, match=re.escape(f"not {shape}")):
            build({**config, **fields}, shape)


@pytest.mark.parametrize("pool", ["last", "mean"])
def test_a_padded_sequence_is_encoded_as_the_short_one(pool):
    config = {"kind": "lstm", "hidden_features": H, "bidirectional": True, "depth": 2, "pool": pool}
    net, x = build(config, (T, F)), torch.randn(B, T, F)
    mask = (torch.arange(T) < 4).expand(B, T)
    _close([net(x, mask)], [net(x[:, :4])], 1e-6)
    assert net(x, torch.zeros_like(mask)).isfinite().all()


def test_all_outputs_stand_side_by_side_and_padding_is_zero():
    config = {"kind": "gru", "hidden_features": H, "bidirectional": True, "pool": "all"}
    net, x = build(config, (T, F)), torch.randn(B, T, F)
    outputs, _ = net.layers(x)
    assert net.out_features == 2 * H * T
    assert torch.equal(net(x), outputs.flatten(1))
    padded = net(x, (torch.arange(T) < 4).expand(B, T)).unflatten(1, (T, -1))
    _close([padded[:, :4]], [net.layers(x[:, :4])[0]], 1e-6)
    assert not padded[:, 4:].any()
    assert build({"kind": "rnn", "pool": "all"}, (2, 5, 3)).out_features == 5 * 64
    assert build({"kind": "rnn", "pool": "all", "vocabulary": 9}, (5,)).out_features == 5 * 64
