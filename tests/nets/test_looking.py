"""Per-layer statistics: right numbers, lane by lane, without a trace left in the network."""

import pytest
import torch
from torch import nn
from torch.func import grad
from torch.fx.experimental.proxy_tensor import make_fx

from nets.lanes import Execution, call
from nets.looking import activation_statistics, grouped, layer_statistics
from nets.mlp import MLP
from nets.optim import sgd, sgd_init
from nets.regularise import Dropout

pytestmark = pytest.mark.filterwarnings("error")
X = torch.linspace(-1, 1, 20).reshape(5, 4)


def one(net):
    """(parameters, buffers) of a network."""
    return {n: p.detach() for n, p in net.named_parameters()}, dict(net.named_buffers())


def mlp(activation="relu"):
    torch.manual_seed(0)
    return MLP(4, [6, 6], 2, activation)


def seen_in(net, *inputs, **options):
    return activation_statistics(net, *one(net), *inputs, **options)[1]


def updated(params, x, net):
    """The metrics of one step of gradient descent."""

    def loss(params):
        (y, _), seen = activation_statistics(net, params, {}, x)
        return y.square().mean(), seen

    grads, seen = grad(loss, has_aux=True)(params)
    after, _ = sgd(params, grads, sgd_init(params), 0.1)
    return layer_statistics(params, grads, after, seen)


def test_numbers_of_parameters():
    net = nn.Linear(4, 2)
    params, _ = one(net)
    grads = {"weight": torch.full((2, 4), 3.0), "bias": torch.full((2,), 4.0)}
    metrics = layer_statistics(params, grads, {n: p - 0.01 * grads[n] for n, p in params.items()})
    weight = torch.cat([params["weight"].flatten(), params["bias"]]).norm()
    size = (8 * 9 + 2 * 16) ** 0.5
    assert metrics["layers/network/grad_norm"] == pytest.approx(size, rel=1e-6)
    assert metrics["layers/network/weight_norm"] == pytest.approx(float(weight), rel=1e-6)
    assert metrics["layers/network/update_ratio"] == pytest.approx(0.01 * size / float(weight), rel=1e-5)
    assert len(metrics) == 3


def test_weights_of_zero_have_no_ratio():
    params = {"layer.weight": torch.zeros(2)}
    metrics = layer_statistics(params, params, {"layer.weight": torch.ones(2)})
    assert metrics["layers/layer/update_ratio"] == 0


def test_numbers_of_activations():
    net = mlp("tanh")
    inside = net.layers[:2](X).detach()
    seen = seen_in(net, X)
    assert list(seen) == ["layers.1", "layers.3"]
    assert seen["layers.1"]["activation_mean"] == pytest.approx(float(inside.mean()), abs=1e-6)
    assert seen["layers.1"]["activation_std"] == pytest.approx(float(inside.std(correction=0)), abs=1e-6)
    assert "dead_share" not in seen["layers.1"]


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu"])
def test_units_that_are_never_positive_are_dead(name):
    net = mlp(name)
    with torch.no_grad():
        net.layers[0].bias[:2] = -100.0
        net.layers[0].bias[2:] = 100.0
    assert seen_in(net, X)["layers.1"]["dead_share"] == pytest.approx(2 / 6)
    assert seen_in(net, X[0])["layers.1"]["dead_share"] == pytest.approx(2 / 6)  # a single row
    assert seen_in(net, X.reshape(1, 5, 4))["layers.1"]["dead_share"] == pytest.approx(2 / 6)


def test_a_unit_of_a_convolution_is_a_channel():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    with torch.no_grad():
        net[0].bias.copy_(torch.tensor([-100.0, 100.0, 100.0, 100.0]))
    assert seen_in(net, torch.randn(2, 1, 6, 5))["1"]["dead_share"] == 0.25


@pytest.mark.parametrize("module", [nn.Tanh(), nn.Sigmoid()])
def test_outputs_near_an_end_are_saturated(module):
    net = nn.Sequential(nn.Linear(1, 1), module)
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[0].bias.zero_()
    x = torch.tensor([[-30.0], [0.0], [1.0], [30.0]])
    assert seen_in(net, x)["1"]["saturated_share"] == 0.5


def test_a_network_without_activation_modules_is_watched_at_its_weights():
    assert list(seen_in(nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)), X)) == ["0", "1"]


def test_calls_of_one_module_are_averaged():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x):
            return self.act(x) + self.act(-x.abs())

    assert seen_in(Twice(), X + 2)["act"]["dead_share"] == 0.5


def test_the_result_is_that_of_call_and_no_hook_stays():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), Dropout(0.5), nn.Linear(6, 2))
    params, buffers = one(net)
    key = torch.tensor(3)
    (y, _), _ = activation_statistics(net, params, buffers, X, noise=key)
    assert torch.equal(y, call(net, params, buffers, X, noise=key)[0])
    with pytest.raises(RuntimeError, match="shape"):
        activation_statistics(net, params, buffers, X[:, :3])
    assert not any(module._forward_hooks for module in net.modules())


def test_every_lane_has_its_own_statistics():
    execution = Execution("eager")
    net, params, _ = execution.stack(lambda: MLP(4, [6], 2), range(3))
    params["layers.0.weight"][1, 0, 0] = float("nan")
    together = execution.each(lambda p, x: updated(p, x, net), in_dims=(0, None))(params, X)
    for lane in range(3):
        alone = updated({n: p[lane] for n, p in params.items()}, X, net)
        assert list(alone) == list(together)
        for name, value in alone.items():
            assert value.dim() == 0
            assert not value.requires_grad
            torch.testing.assert_close(together[name][lane], value, rtol=1e-5, atol=1e-6, equal_nan=True)
            assert value.isfinite() or lane == 1
    assert together["layers/layers.0/weight_norm"][1].isnan()  # seen, not hidden


def test_it_can_be_traced_and_so_compiled():
    net, params, _ = Execution("eager").stack(lambda: MLP(4, [6], 2), range(2))
    update = torch.vmap(lambda p: updated(p, X, net))
    graph = make_fx(update)(params)
    for name, value in update(params).items():
        torch.testing.assert_close(graph(params)[name], value)


def test_deep_networks_are_bounded_and_say_what_was_joined():
    net = nn.Sequential(*(module for _ in range(30) for module in (nn.Linear(2, 2), nn.ReLU())))
    params, _ = one(net)
    seen = seen_in(net, X[:, :2])
    assert list(seen)[:2] == ["1..3", "5..7"]
    assert len(seen) == 15
    metrics = layer_statistics(params, params, params, seen)
    assert len({name.split("/")[1] for name in metrics}) == 30  # 15 of weights, 15 of activations
    joined = torch.cat([params[n].flatten() for n in ("0.weight", "0.bias", "2.weight", "2.bias")])
    assert metrics["layers/0..2/weight_norm"] == pytest.approx(float(joined.norm()), rel=1e-6)
    assert [name for names in grouped(params).values() for name in names] == list(params)  # none is lost
    assert list(grouped(params, most=60)) == [str(i) for i in range(0, 60, 2)]
