"""16 bits: what is narrow and what is not, and a scale a lane."""

import pytest
import torch
from torch import nn
from torch.func import grad_and_value

from nets.lanes import Execution, call, keep
from nets.mlp import MLP
from nets.optim import adam, adam_init
from nets.precision import all_finite, autocast, scaled_grad_and_value, scaler_init, update_scaler

pytestmark = pytest.mark.filterwarnings("error")
LANES = 3
X = torch.linspace(-2, 2, 32).unsqueeze(-1)
Y = torch.sin(2 * X)


def stacked(execution):
    net, params, _ = execution.stack(lambda: MLP(1, [16], 1, "tanh"), range(LANES))
    return net, params


def trained(dtype, steps=150, blow_up=()):
    """(losses [steps, K], scales [steps, K], params before and after every step) of a small regression.

    Args:
        dtype: of the forward pass.
        steps: how many.
        blow_up: steps in which lane 1's loss is infinite when scaled.
    """
    execution = Execution("eager")
    net, params = stacked(execution)
    forward = autocast(lambda params, x: call(net, params, {}, x)[0], dtype)

    def step(params, opt, scaler, factor):
        def loss(params):
            return (forward(params, X) - Y).square().mean() * factor

        grads, value = scaled_grad_and_value(loss, scaler["scale"])(params)
        finite = all_finite(grads)
        params, opt = keep(finite, adam(params, grads, opt, 0.01), (params, opt))
        return params, opt, update_scaler(scaler, finite, interval=50), value

    update = execution.each(step)
    opt, scaler = adam_init(params, LANES), scaler_init(LANES)
    losses, scales, weights = [], [], [params]
    for i in range(steps):
        factor = torch.ones(LANES)
        factor[1] = 3e38 if i in blow_up else 1.0
        params, opt, scaler, value = update(params, opt, scaler, factor)
        losses.append(value)
        scales.append(scaler["scale"])
        weights.append(params)
    return torch.stack(losses), torch.stack(scales), weights


def test_a_network_learns_in_bfloat16():
    losses, scales, _ = trained(torch.bfloat16)
    assert (losses[-1] < 0.3 * losses[0]).all()
    assert scales[-1].tolist() == [2.0**19] * LANES  # grown three times


def test_a_lane_that_overflows_skips_its_step_alone():
    calm_losses, _, calm = trained(torch.bfloat16, steps=6)
    losses, scales, weights = trained(torch.bfloat16, steps=6, blow_up=(2, 3))
    for name in weights[0]:
        for lane in (0, 2):
            assert torch.equal(weights[-1][name][lane], calm[-1][name][lane])
        assert torch.equal(weights[2][name][1], weights[4][name][1])  # two steps skipped
        assert not torch.equal(weights[4][name][1], weights[5][name][1])
        assert weights[-1][name].isfinite().all()
    assert scales[:, 1].tolist() == [2.0**16, 2.0**16, 2.0**15, 2.0**14, 2.0**14, 2.0**14]
    assert scales[:, 0].tolist() == [2.0**16] * 6
    assert torch.equal(losses[:, 0], calm_losses[:, 0])


def test_scaling_keeps_gradients_that_float16_loses():
    weight, x = torch.full((4, 4), 0.5), torch.full((2, 4), 1e-3)

    def loss(weight):
        product = autocast(torch.nn.functional.linear, torch.float16)(x, weight)
        return product.mean() * 1e-4  # 1e-4 * 1e-3 / 4 is below the smallest float16

    plain, _ = grad_and_value(loss)(weight)
    scaled, value = scaled_grad_and_value(loss, torch.tensor(2.0**16))(weight)
    assert not torch.allclose(plain, torch.full((4, 4), 2.5e-8), rtol=1e-2, atol=0)
    torch.testing.assert_close(scaled, torch.full((4, 4), 2.5e-8), rtol=1e-2, atol=0)
    assert value == loss(weight)


def test_scaled_gradients_equal_plain_ones_in_float32():
    net, params = stacked(Execution("eager"))
    one = {name: p[0] for name, p in params.items()}

    def loss(params, x):
        y = call(net, params, {}, x)[0]
        return y.square().mean(), {"mean": y.mean().detach()}

    grads, (value, aux) = grad_and_value(loss, has_aux=True)(one, X)
    mine, (my_value, my_aux) = scaled_grad_and_value(loss, torch.tensor(1024.0), has_aux=True)(one, X)
    assert all(torch.equal(mine[name], grads[name]) for name in one)  # powers of 2 round nothing
    assert torch.equal(my_value, value)
    assert torch.equal(my_aux["mean"], aux["mean"])


def test_only_the_inside_is_narrow():
    seen = []

    def forward(x, weight):
        seen.append((x @ weight).dtype)
        return {"y": x @ weight, "index": torch.arange(2)}

    result = autocast(forward, torch.bfloat16)(torch.ones(2, 2), torch.ones(2, 2))
    assert seen == [torch.bfloat16]
    assert (result["y"].dtype, result["index"].dtype) == (torch.float32, torch.int64)
    assert autocast(forward, torch.float32) is forward


def test_the_scale_moves_as_torchs():
    bad = {3, 4, 12, 13, 14, 30}
    weight = nn.Parameter(torch.zeros(()))
    optimiser = torch.optim.SGD([weight], lr=0.0)
    reference = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=5)
    state = scaler_init(scale=2.0**10)
    for step in range(40):
        reference.scale(weight * 1.0).backward()
        weight.grad = torch.tensor(float("inf") if step in bad else 1.0)
        reference.step(optimiser)
        reference.update()
        state = update_scaler(state, torch.tensor(step not in bad), interval=5)
        assert float(state["scale"]) == reference.get_scale()


def test_the_scale_stays_finite_and_above_zero():
    state = {"scale": torch.tensor([2.0**127, 2.0**-126]), "good": torch.tensor([4.0, 4.0])}
    state = update_scaler(state, torch.tensor([True, False]), interval=5)
    assert state["scale"].tolist() == [2.0**127, 2.0**-126]
    assert state["good"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_finite_looks_at_every_number(broken):
    tree = {"a": torch.zeros(2, 2), "b": (torch.tensor([0.0, broken]),)}
    assert not all_finite(tree)
    assert all_finite({"a": tree["a"]})
