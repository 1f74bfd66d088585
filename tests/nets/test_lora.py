"""LoRA: nothing changes before training, merged equals unmerged, what is frozen stays."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from nets import lora
from nets.lanes import Execution, call, grad_and_value, has_compiler
from nets.optim import adam, adam_init
from nets.registry import build
from nets.transfer import scales, trainable, unfreeze
from tests.conformance.examples import examples

X = torch.linspace(-1, 1, 3 * 8 * 8).reshape(3, 8, 8)
ADAPTABLE = [e for e in examples() if e.config["kind"] in ("attention", "transformer", "vit", "gpt", "resnet", "r3gan")]
KINDS = pytest.mark.parametrize("kind", ["cnn", "transformer", "mlp"])


def network(kind="cnn", dtype=torch.float32):
    torch.manual_seed(0)
    more = {"heads": 2, "expansion": 2} if kind == "transformer" else {}
    return build({"kind": kind, "hidden_features": 4, "depth": 2, **more}, (8, 8), 5).to(dtype).eval()


def moved(net, steps=3):
    """Trains an adapted network as an ordinary module."""
    optimiser = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        optimiser.zero_grad()
        (net(X.to(next(net.parameters()).dtype)) ** 2).sum().backward()
        optimiser.step()
    return net


@KINDS
def test_identity_before_training_and_frozen_after(kind):
    net = network(kind)
    before, plain = net(X), copy.deepcopy(net.state_dict())
    names = lora.adapt(net, rank=2)
    assert torch.equal(net(X), before)
    assert names == [path for path, m in network(kind).named_modules() if type(m) in (nn.Linear, nn.Conv2d)]
    moved(net)
    assert (net(X) - before).abs().max() > 1e-3
    after = net.state_dict()
    assert all(torch.equal(after[name], value) for name, value in plain.items())  # same names, same bits
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trained == {name for name in after if "lora_" in name}
    assert all(p.grad is not None and p.grad.any() for p in net.parameters() if p.requires_grad)


@KINDS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_merged_equals_unmerged_and_can_be_undone(kind, dtype, tolerance):
    net, x = network(kind, dtype), X.to(dtype)
    names = list(net.state_dict())
    lora.adapt(net, rank=2, alpha=4.0)
    expected = moved(net)(x)
    state = {name: t.clone() for name, t in net.state_dict().items()}
    assert list(lora.merged(net).state_dict()) == names
    adapters = lora.merge(net)
    assert list(net.state_dict()) == names
    assert (net(x) - expected).abs().max() <= tolerance * expected.abs().max()
    lora.unmerge(net, adapters)
    assert torch.equal(net(x), expected)
    assert all(torch.equal(t, state[name]) for name, t in net.state_dict().items())


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_of_every_form(groups):
    conv = nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, dilation=(1, 2), groups=groups, bias=False)
    net = nn.Sequential(conv).double()
    lora.adapt(net, rank=3, alpha=1.0)
    with torch.no_grad():
        net[0].lora_b.normal_()
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    expected = net(x)
    lora.merge(net)
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-12)
    assert (net(x) - conv(x)).abs().max() > 0.01


@pytest.mark.parametrize("example", ADAPTABLE, ids=lambda e: e.id)
def test_no_block_bypasses_an_adapter(example):
    net = build(example.config, example.input_shape, example.output).eval()
    lora.adapt(net, rank=1)
    with torch.no_grad():
        for layer in lora.adapted(net).values():
            layer.lora_b.normal_()
    leaves = [t for t in pytree.tree_leaves(net(*example.make_inputs())) if t.is_floating_point()]
    sum((t * torch.cos(torch.arange(t.numel()).reshape(t.shape))).sum() for t in leaves).backward()
    assert [
        name for name, p in net.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ] == []


def built():
    net = network("transformer")
    lora.adapt(net, ["encoder.stack"], rank=2, dropout=0.3)
    unfreeze(net, ["head"])
    return net.train()


def update(net, split):
    """One step of one trial: gradients for what is trained, or for all with frozen steps scaled to nothing."""

    def step(trained, frozen, state, x, key, lr):
        def loss(trained):
            output, _ = call(net, {**trained, **frozen}, {}, x, noise=key)
            return (output**2).mean()

        grads, _ = grad_and_value(loss)(trained)
        return adam(trained, grads, state, lr, **({} if split else {"scale": scales(net)}))

    return step


COMPILED = pytest.param(
    "compiled", marks=[pytest.mark.slow, pytest.mark.skipif(not has_compiler(), reason="no C++ compiler here")]
)


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("together", ["eager", COMPILED])
def test_lanes_of_adapters_equal_single_runs(split, together):
    found = {}
    for mode in (together, "loop"):
        execution = Execution(mode, dtype=torch.float64)
        net, params, _ = execution.stack(built, [0, 1, 2])
        trained, frozen = trainable(net, params) if split else (params, {"unused": torch.zeros(3)})
        before = {name: p.clone() for name, p in params.items()}
        state, run = adam_init(trained, lanes=3), execution.each(update(net, split))
        for step in range(3):
            keys, lr = torch.arange(3) + 10 * step, torch.tensor([0.01, 0.02, 0.03], dtype=torch.float64)
            trained, state = run(trained, frozen, state, X.double().expand(3, 3, 8, 8), keys, lr)
        found[mode] = trained
        for name, factor in scales(net).items():
            if factor == 0:
                assert torch.equal((frozen if split else trained)[name], before[name])
            else:
                assert (trained[name] != before[name]).any(), name
    for name, value in found[together].items():
        torch.testing.assert_close(value, found["loop"][name], rtol=1e-9, atol=1e-12)


def test_layers_that_cannot_be_adapted():
    net = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Embedding(3, 2))
    with pytest.raises(ValueError, match=r"'1' selects no nn.Linear.*LayerNorm"):
        lora.adapt(net, ["0", "1"])
    with pytest.raises(ValueError, match="selects nothing"):
        lora.adapt(net, ["encoder"])
    with pytest.raises(ValueError, match="at least 1"):
        lora.adapt(net, ["0"], rank=0)
    assert lora.adapted(net) == {}
    with pytest.raises(ValueError, match="no adapters"):
        lora.merge(net)
    net.add_module("tied", nn.Linear(2, 3, bias=False))
    net.tied.weight = net[2].weight
    with pytest.raises(ValueError, match=r"tied cannot be adapted: one weight is shared by 2\.weight and tied\.weight"):
        lora.adapt(net)
    with pytest.raises(ValueError, match="pads with 'circular'"):
        lora.adapt(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")))
