"""Encoders that move between networks, frozen parts, rates by layer, other heads."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nets.conv import CNN
from nets.lanes import Execution, call, grad_and_value
from nets.mlp import MLP
from nets.optim import adam, adam_init
from nets.registry import Network, build
from nets.transfer import (
    encoder_parameters,
    freeze,
    held,
    layers,
    layerwise_rates,
    load_encoder,
    matches,
    read_weights,
    scales,
    swap_head,
    trainable,
    unfreeze,
    unfreeze_top,
)


class ActorCritic(nn.Module):
    """Two encoders of which only the actor's fits a classifier's."""

    def __init__(self):
        super().__init__()
        self.critic = Network(CNN((1, 8, 8), 2, 2), nn.Linear(64, 1))
        self.actor = Network(CNN((1, 8, 8), 4, 2), nn.Linear(128, 3))


MORE = {"cnn": {"depth": 2}, "transformer": {"depth": 2, "heads": 2, "expansion": 2}, "gru": {}}


def classifier(seed=0, hidden=4, image=(8, 8), kind="cnn"):
    torch.manual_seed(seed)
    return build({"kind": kind, "hidden_features": hidden, **MORE[kind]}, image, 5)


def test_held_parameters_have_no_gradient_and_adam_leaves_them():
    params = {"actor.encoder.0.weight": torch.ones(2, 2), "actor.head.weight": torch.ones(2)}
    names = encoder_parameters(params)
    assert names == {"actor.encoder.0.weight"}
    grads = held({n: torch.full_like(p, 3.0) for n, p in params.items()}, names)
    after, _ = adam(params, grads, adam_init(params), 0.1)
    assert torch.equal(after["actor.encoder.0.weight"], params["actor.encoder.0.weight"])
    assert not torch.equal(after["actor.head.weight"], params["actor.head.weight"])


def test_an_encoder_moves_between_families():
    source, net = ActorCritic(), classifier()
    head = net.head.linear.weight.clone()
    report = load_encoder(net, source)
    assert (report.where, report.from_) == ("encoder", "actor.encoder")  # the critic's is narrower
    assert len(report.matched) == 4
    assert [report.resized, report.skipped, report.missing, report.left_over] == [[], [], [], []]
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(net.encoder(x), source.actor.encoder(x))
    assert torch.equal(net.head.linear.weight, head)
    bare = CNN((1, 8, 8), 4, 2)
    load_encoder(bare, source.state_dict(), from_="actor.encoder")
    assert torch.equal(bare(x), net.encoder(x))


def test_what_does_not_fit_is_reported_and_left_alone():
    source, net = classifier(1, hidden=4, image=(8, 6), kind="transformer"), classifier(kind="transformer", hidden=4)
    del source.encoder.stack.norm
    source.encoder.extra = nn.Linear(1, 1)
    source.encoder.stack.blocks[1].feed[0] = nn.Linear(4, 6)
    norm, narrow = net.encoder.stack.norm.weight.clone(), net.encoder.stack.blocks[1].feed[0].weight.clone()
    report = load_encoder(net, source)
    assert report.skipped == [
        ("embed.weight", (4, 6), (4, 8)),
        ("stack.blocks.1.feed.0.weight", (6, 4), (8, 4)),
        ("stack.blocks.1.feed.0.bias", (6,), (8,)),
    ]
    assert report.missing == ["stack.norm.weight", "stack.norm.bias"]
    assert report.left_over == ["extra.weight", "extra.bias"]
    assert torch.equal(net.encoder.stack.norm.weight, norm)
    assert torch.equal(net.encoder.stack.blocks[1].feed[0].weight, narrow)
    for line in (
        f"{len(report.matched)} of {len(report.matched) + 5} tensors matched",
        "skipped    embed.weight: [4, 6] does not fit [4, 8]",
        "missing    stack.norm.weight: not in the source",
        "left over  extra.bias: only in the source",
    ):
        assert line in str(report)


@pytest.mark.parametrize(("old", "new"), [(1, 3), (3, 1), (3, 2), (2, 5)])
def test_a_first_convolution_takes_other_channels(old, new):
    source, net = CNN((old, 8, 8), 4, 1), CNN((new, 8, 8), 4, 1)
    report = load_encoder(net, source)
    assert [(r[0], r[1][1], r[2][1]) for r in report.resized] == [("blocks.0.conv.weight", old, new)]
    grey = torch.randn(3, 1, 8, 8)  # the same picture in all channels gives the same features
    torch.testing.assert_close(net(grey.expand(-1, new, -1, -1)), source(grey.expand(-1, old, -1, -1)))


def test_position_tables_are_interpolated():
    source, net = (classifier(s, image=(n, 8), kind="transformer") for s, n in ((1, 3), (0, 5)))
    report = load_encoder(net, source)
    assert report.resized == [("position.weight", (3, 4), (5, 4), "positions interpolated")]
    assert torch.equal(net.encoder.position.weight[::2], source.encoder.position.weight)
    torch.testing.assert_close(net.encoder.position.weight[1], source.encoder.position.weight[:2].mean(0))


def test_positions_of_patches_are_interpolated_as_a_picture():
    small, large = (build({"kind": "vit", "patch": 2, "hidden_features": 4, "heads": 1}, (n, n)) for n in (4, 8))
    with torch.no_grad():
        across = torch.arange(2.0).repeat(2)  # of 2 x 2 patches: left 0, right 1
        small.position.weight[1:] = across[:, None]
    load_encoder(large, small)
    assert torch.equal(large.position.weight[0], small.position.weight[0])  # the class token's
    grid = large.position.weight[1:, 0].reshape(4, 4)
    torch.testing.assert_close(grid, grid[:1].expand(4, 4))
    assert (grid[0].diff() > 0).all()
    pooled = build({"kind": "vit", "patch": 2, "hidden_features": 4, "heads": 1, "pool": "mean"}, (8, 8))
    assert [row[0] for row in load_encoder(pooled, small).skipped] == ["position.weight"]  # one place more


def test_nothing_that_fits_is_an_error():
    with pytest.raises(ValueError, match=r"nothing of the source's 'encoder' fits .* the source has .*encoder\.layers"):
        load_encoder(classifier(), classifier(kind="gru"))
    with pytest.raises(ValueError, match=r"several encoders.*critic\.encoder, actor\.encoder"):
        load_encoder(ActorCritic(), classifier())
    with pytest.raises(ValueError, match="the source has nothing at 'eyes'"):
        load_encoder(classifier(), classifier(), from_="eyes")


def test_weights_of_a_run_folder(tmp_path):
    source, net = classifier(1), classifier()
    save_file(source.state_dict(), tmp_path / "best.safetensors")
    load_encoder(net, read_weights(tmp_path / "best.safetensors"))
    assert torch.equal(net.encoder.blocks[0].conv.weight, source.encoder.blocks[0].conv.weight)
    (tmp_path / "bad.safetensors").write_bytes(b"\x80\x04rubbish")
    with pytest.raises(ValueError, match="no safetensors file"):
        read_weights(tmp_path / "bad.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_weights(tmp_path / "none.safetensors")


def test_patterns():
    assert matches("encoder.blocks.0.weight", "encoder")
    assert matches("encoder.blocks.0.bias", "*.bias")
    assert not matches("encoder2.weight", "encoder")
    net = classifier()
    assert freeze(net, ["encoder.blocks.0", "*.bias"])[-1] == "head.linear.bias"
    assert scales(net) == {
        "encoder.blocks.0.conv.weight": 0.0,
        "encoder.blocks.0.conv.bias": 0.0,
        "encoder.blocks.1.conv.weight": 1.0,
        "encoder.blocks.1.conv.bias": 0.0,
        "head.linear.weight": 1.0,
        "head.linear.bias": 0.0,
    }
    assert unfreeze(net, ["head"]) == ["head.linear.weight", "head.linear.bias"]
    assert net.head.linear.bias.requires_grad
    with pytest.raises(ValueError, match="'encoderr' fits no parameter"):
        freeze(net, ["encoderr"])


def made():
    net = MLP(4, [6, 5], 3)
    freeze(net, ["layers.0"])
    return net


def test_frozen_parameters_do_not_move_as_lanes():
    execution = Execution()
    net, params, _ = execution.stack(made, [0, 1])
    trained, frozen = trainable(net, params)
    assert set(frozen) == {"layers.0.weight", "layers.0.bias"}
    before = {name: p.clone() for name, p in params.items()}

    def step(trained, frozen, state, x):
        def loss(trained):
            return (call(net, {**trained, **frozen}, {}, x)[0] ** 2).mean()

        return adam(trained, grad_and_value(loss)(trained)[0], state, 0.1)

    x, state = torch.randn(2, 7, 4), adam_init(trained, lanes=2)
    trained, _ = execution.each(step)(trained, frozen, state, x)
    assert all(torch.equal(frozen[name], before[name]) for name in frozen)
    assert all((trained[name] != before[name]).any() for name in trained)


def test_rates_fall_from_the_head_to_the_input():
    net = classifier(kind="transformer")
    assert [names[0].rpartition(".")[0] for names in layers(net)] == [
        "encoder.embed",
        "encoder.position",
        "encoder.stack.blocks.0.attention_norm",
        "encoder.stack.blocks.1.attention_norm",
        "encoder.stack.norm",
        "head.linear",
    ]
    assert sum(map(len, layers(net))) == len(list(net.parameters()))
    freeze(net, ["encoder.embed"])
    rates = layerwise_rates(net, 0.5)
    found = [
        rates[n] for n in ("head.linear.weight", "encoder.stack.norm.bias", "encoder.stack.blocks.1.feed.0.weight")
    ]
    assert found == [1, 0.5, 0.25]
    assert (rates["encoder.position.weight"], rates["encoder.embed.weight"]) == (0.5**4, 0)


def test_gradual_unfreezing():
    net = classifier()
    assert unfreeze_top(net, 1) == ["head.linear.weight", "head.linear.bias"]
    assert sum(scales(net).values()) == 2
    assert len(unfreeze_top(net, 2)) == 4
    assert unfreeze_top(net, 0) == []


def test_another_head():
    net = build({"kind": "mlp", "hidden_features": 6}, (4,), 3).double()
    x = torch.randn(2, 4, dtype=torch.float64)
    features = net.encoder(x)
    assert swap_head(net, 7)(x).shape == (2, 7)
    assert torch.equal(net.encoder(x), features)
    assert net.recipe["output"] == 7
    assert swap_head(net, {"kind": "categorical", "out_features": 2})(x).shape == (2, 2)
    assert swap_head(classifier(), 2).head.linear.out_features == 2
    with pytest.raises(ValueError, match="MLP has no encoder"):
        swap_head(MLP(1, [2], 3), 4)
