"""The table of a network against numbers worked out by hand."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from nets.attention import SelfAttention
from nets.describe import describe, example_inputs
from nets.mlp import MLP
from nets.norms import BatchNorm
from nets.registry import blocks, build
from tests.conformance.examples import examples


def flops(net, shape):
    return describe(net, shape).flops


def test_a_perceptron_by_hand():
    found = describe(MLP(4, [8], 3), (4,))
    assert [(r.path, r.type, r.output, r.parameters, r.flops) for r in found.rows] == [
        ("", "MLP", ((1, 3),), 67, 112),  # 4 * 8 + 8 + 8 * 3 + 3; 2 * (4 * 8 + 8 * 3)
        ("layers", "Sequential", ((1, 3),), 67, 112),
        ("layers.0", "Linear", ((1, 8),), 40, 64),
        ("layers.1", "ReLU", ((1, 8),), 0, 0),
        ("layers.2", "Linear", ((1, 3),), 27, 48),
    ]
    assert (found.parameters, found.trainable, found.frozen, found.buffers, found.flops) == (67, 67, 0, 0, 112)
    assert found.inputs == ((1, 4),)


def test_convolutions_and_attention_by_hand():
    assert flops(nn.Conv2d(2, 4, 3, padding=1), (2, 6, 6)) == 2 * 6 * 6 * 4 * 2 * 9
    assert flops(nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), (4, 6, 6)) == 2 * 3 * 3 * 8 * 2 * 9
    assert flops(nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1), (4, 5, 5)) == 2 * 5 * 5 * 4 * 3 * 16
    assert flops(nn.Conv3d(1, 2, 3), (1, 5, 5, 5)) == 2 * 27 * 2 * 27
    found = describe(SelfAttention(8, heads=2), (5, 8))
    projections, products = 2 * 5 * 8 * (24 + 8), 2 * (2 * 5 * 5 * 8)  # both products: all heads together are 8 wide
    assert found.flops == projections + products
    assert found.parameters == 8 * 24 + 24 + 8 * 8 + 8
    assert {r.path: r.flops for r in found.rows}["in_proj"] == 2 * 5 * 8 * 24


def test_a_module_called_at_every_step_counts_every_time():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells = nn.ModuleList([nn.Linear(4, 4)])

        def forward(self, x):
            for _ in range(5):
                x = self.cells[0](x)
            return x, {"last": x}

    rows = {r.path: r for r in describe(Loop(), (4,)).rows}
    assert rows["cells.0"].flops == 5 * 2 * 4 * 4
    assert rows[""].flops == rows["cells.0"].flops
    assert rows[""].output == ((1, 4), (1, 4))
    assert rows["cells"].output == ()  # a list is never called


def test_tied_weights_count_once_and_frozen_ones_apart():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(7, 4)
            self.out = nn.Linear(4, 7, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, tokens):
            return self.out(self.embed(tokens))

    net = Tied()
    found = describe(net, inputs=[torch.zeros(1, 3, dtype=torch.int64)])
    assert found.parameters == 28
    assert [r.parameters for r in found.rows] == [28, 28, 0]
    net.embed.weight.requires_grad_(False)
    found = describe(net, inputs=[torch.zeros(1, 3, dtype=torch.int64)])
    assert (found.trainable, found.frozen) == (0, 28)


def test_it_costs_neither_memory_nor_numbers_and_leaves_the_network_alone():
    huge = nn.Linear(10**6, 10**6, device="meta")
    assert describe(huge, (10**6,)).flops == 2 * 10**12
    net = nn.Sequential(nn.Conv2d(1, 2, 3), BatchNorm(2)).double().train()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    state = torch.get_rng_state()
    assert describe(net, (1, 5, 5)).buffers == 4
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert net.training


def test_the_table_is_aligned_and_the_dict_is_plain():
    found = describe(build({"kind": "mlp", "hidden_features": 4, "depth": 1}, (3,), 2))
    lines = str(found).splitlines()
    table = lines[: len(found.rows) + 1]
    assert len({line.index(" " + word) for line, word in zip(table[1:3], ("Network", "MLPEncoder"), strict=True)}) == 1
    assert len(set(map(len, table))) == 1
    assert "26 parameters: 26 trainable, 0 frozen" in str(found)
    assert "a multiply-add as 2" in lines[-1]
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert found.to_dict()["rows"][0]["output"] == [[1, 2]]


def test_inputs_come_from_the_recipe_or_are_asked_for():
    net = build({"kind": "mlp"}, (2, 3), 4)
    assert [t.shape for t in example_inputs(net, rows=5)] == [(5, 2, 3)]
    with pytest.raises(ValueError, match="give input_shape"):
        describe(nn.Linear(2, 3))


@pytest.mark.parametrize("example", examples(), ids=lambda e: e.id)
def test_every_block_can_be_described(example):
    net, inputs = build(example.config, example.input_shape, example.output), example.make_inputs()
    found = describe(net, inputs=inputs)
    assert found.parameters == sum(p.numel() for p in net.parameters())
    assert found.rows[0].output
    if example.input_shape or blocks()[example.config["kind"]].role == "head":
        own = example_inputs(net)
        assert [t.dtype for t in own] == [t.dtype for t in inputs]
        assert describe(net).rows[0].output
