"""Dropout and drop path, penalties, softened targets, mixed rows and the average of weights."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from nets.ema import ema_update, half_life_decay, warmed_up
from nets.lanes import Execution, call
from nets.noise import noise_from
from nets.regularise import Dropout, DropPath, cross_entropy, l1_penalty, l2_penalty, mixup, smoothed_targets


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("keyed", [True, False])
def test_dropout_drops_numbers_and_drop_path_rows(keyed):
    x = torch.ones(2000, 4, 3)
    with noise_from(torch.tensor(7) if keyed else None):
        numbers, paths = Dropout(0.25)(x), DropPath(0.25)(x)
    for y in (numbers, paths):
        torch.testing.assert_close(y.unique(), torch.tensor([0, 4 / 3]))
    assert (numbers == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    rows = (paths == 0).flatten(1)
    assert (rows.all(1) == rows.any(1)).all()
    assert rows.all(1).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert len(numbers.eq(0).flatten(1).unique(dim=0)) > 500


@pytest.mark.parametrize("layer", [Dropout, DropPath])
def test_nothing_is_dropped_in_evaluation_or_at_rate_zero(layer):
    x = torch.randn(5, 3)
    assert torch.equal(layer(0.9).eval()(x), x)
    assert torch.equal(layer(0.0).train()(x), x)


@pytest.mark.parametrize("layer", [Dropout, DropPath])
def test_lanes_draw_their_own_noise(layer):
    net, _, _ = Execution().stack(lambda: layer(0.5), [0, 1])
    x, keys = torch.ones(64, 2), torch.tensor([5, 6])
    found = torch.vmap(lambda key: call(net, {}, {}, x, noise=key)[0])(keys)
    for k, key in enumerate(keys):
        assert torch.equal(found[k], call(net, {}, {}, x, noise=key)[0])
    assert not torch.equal(found[0], found[1])


PARAMS = {"body.weight": torch.tensor([[1.0, -2.0]]), "body.bias": torch.tensor([3.0]), "head.weight": -torch.eye(2)}


@pytest.mark.parametrize(
    ("only", "l1", "l2"),
    [
        (None, 5, 7),
        (("body.*",), 6, 14),
        (("*.bias", "head.*"), 5, 11),
        (lambda name, p: p.dim() == 1, 3, 9),
    ],
)
def test_penalties_on_chosen_parameters(only, l1, l2):
    assert l1_penalty(PARAMS, only) == l1
    assert l2_penalty(PARAMS, only) == l2


def test_a_penalty_on_nothing_is_refused():
    with pytest.raises(ValueError, match=r"chooses none of the parameters body\.weight, body\.bias"):
        l2_penalty(PARAMS, ["tail.*"])


def test_the_gradient_of_a_penalty_reaches_only_the_chosen():
    net = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    grads = torch.func.grad(l2_penalty)(dict(net.named_parameters()))
    torch.testing.assert_close(grads["0.weight"], 2 * net[0].weight)
    assert not any(grads[name].any() for name in ("0.bias", "1.weight", "1.bias"))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("labels", ["index", "shares"])
def test_cross_entropy_equals_torch(smoothing, weighted, labels):
    logits = torch.randn(6, 4, dtype=torch.float64)
    y = torch.tensor([0, 3, 1, 1, 2, 0]) if labels == "index" else torch.rand(6, 4, dtype=torch.float64).softmax(-1)
    weight = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64) if weighted else None
    expected = functional.cross_entropy(logits, y, weight, label_smoothing=smoothing)
    torch.testing.assert_close(cross_entropy(logits, y, smoothing, weight), expected, rtol=0, atol=1e-7)
    folded = cross_entropy(logits.reshape(2, 3, 4), y.reshape(2, 3, *y.shape[1:]), smoothing, weight)
    torch.testing.assert_close(folded, expected, rtol=0, atol=1e-7)


def test_smoothing_may_differ_between_lanes():
    logits, y = torch.randn(2, 6, 4), torch.tensor([0, 3, 1, 1, 2, 0])
    found = torch.vmap(cross_entropy, in_dims=(0, None, 0))(logits, y, torch.tensor([0.0, 0.2]))
    for k, smoothing in enumerate((0.0, 0.2)):
        torch.testing.assert_close(found[k], functional.cross_entropy(logits[k], y, label_smoothing=smoothing))


def test_smoothed_targets():
    expected = torch.tensor([[0.925, 0.025, 0.025, 0.025], [0.025, 0.025, 0.925, 0.025]])
    torch.testing.assert_close(smoothed_targets(torch.tensor([0, 2]), 4, 0.1), expected)


def test_mixup_mixes_rows_and_targets_alike():
    x, shares = torch.randn(3, 2, 2), smoothed_targets(torch.tensor([0, 1, 2]), 3)
    order, lam = torch.tensor([1, 2, 0]), torch.tensor([0.25, 1.0, 0.5])
    mixed, targets = mixup(x, shares, lam, order)
    torch.testing.assert_close(mixed[0], 0.25 * x[0] + 0.75 * x[1])
    torch.testing.assert_close(targets, torch.tensor([[0.25, 0.75, 0], [0, 1, 0], [0.5, 0, 0.5]]))
    one, _ = mixup(x, shares, torch.tensor(0.25), order)
    torch.testing.assert_close(one, 0.25 * x + 0.75 * x[order])
    lanes, _ = torch.vmap(mixup, in_dims=(None, None, 0, 0))(
        x, shares, torch.tensor([0.25, 1]), torch.stack([order, order])
    )
    torch.testing.assert_close(lanes, torch.stack([one, x]))


def test_average_of_weights_in_closed_form():
    values = torch.randn(5, 2, 3, dtype=torch.float64)
    average = {"w": torch.randn(2, 3, dtype=torch.float64)}
    expected = 0.9**5 * average["w"] + 0.1 * sum(0.9 ** (4 - t) * values[t] for t in range(5))
    for value in values:
        average = ema_update(average, {"w": value}, 0.9)
    torch.testing.assert_close(average["w"], expected, rtol=0, atol=1e-12)


def test_decay_per_lane_and_counters_are_copied():
    old = {"w": torch.zeros(2, 3), "steps": torch.tensor([1, 1])}
    new = {"w": torch.ones(2, 3), "steps": torch.tensor([8, 9])}
    decay = torch.tensor([0.75, 1.0])
    expected = torch.tensor([[0.25] * 3, [0.0] * 3])
    for found in (ema_update(old, new, decay), torch.vmap(ema_update)(old, new, decay)):
        torch.testing.assert_close(found["w"], expected)
        assert torch.equal(found["steps"], new["steps"])
    assert not old["w"].any()


def test_decays():
    assert math.prod([half_life_decay(20_000, 100).item()] * 200) == pytest.approx(0.5)
    torch.testing.assert_close(half_life_decay(torch.tensor([1.0, 2.0])), torch.tensor([0.5, 0.5**0.5]).double())
    assert [warmed_up(0.5, t).item() for t in (0, 2, 8, 1000)] == [0.1, 0.25, 0.5, 0.5]
