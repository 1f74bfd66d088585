"""Functional optimisers equal torch's, in float64."""

import copy
from functools import partial

import pytest
import torch

from nets import optim
from nets.optim import OPTIMISERS

pytestmark = pytest.mark.filterwarnings("error")
SHAPES = {"weight": (5, 3), "bias": (5,)}


def run_torch(make, grads, limit=None, clip=torch.nn.utils.clip_grad_norm_):
    params = {n: torch.full(s, 0.3, dtype=torch.float64).requires_grad_() for n, s in SHAPES.items()}
    optimiser = make(list(params.values()))
    for step in grads:
        for name, p in params.items():
            p.grad = step[name].clone()
        if limit is not None:
            clip(list(params.values()), limit)
        optimiser.step()
    return {n: p.detach() for n, p in params.items()}


@pytest.fixture
def grads():
    torch.manual_seed(0)
    return [{n: torch.randn(s, dtype=torch.float64) for n, s in SHAPES.items()} for _ in range(20)]


def start():
    return {n: torch.full(s, 0.3, dtype=torch.float64) for n, s in SHAPES.items()}


def assert_equal(a, b):
    for name in SHAPES:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_equals_torch(grads, decay):
    params, state = start(), optim.adam_init(start())
    for step in grads:
        params, state = optim.adam(params, step, state, 0.01, 0.8, 0.99, 1e-5, decay)
    expected = run_torch(
        lambda ps: torch.optim.AdamW(ps, lr=0.01, betas=(0.8, 0.99), eps=1e-5, weight_decay=decay), grads
    )
    assert_equal(params, expected)


def test_adam_without_decay_equals_torch_adam(grads):
    params, state = start(), optim.adam_init(start())
    for step in grads:
        params, state = optim.adam(params, step, state, 0.01)
    assert_equal(params, run_torch(lambda ps: torch.optim.Adam(ps, lr=0.01), grads))


def test_sgd_equals_torch(grads):
    params, state = start(), optim.sgd_init(start())
    for step in grads:
        params, state = optim.sgd(params, step, state, 0.01, 0.9, 0.1)
    expected = run_torch(lambda ps: torch.optim.SGD(ps, lr=0.01, momentum=0.9, weight_decay=0.1), grads)
    assert_equal(params, expected)


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping_equals_torch(grads, limit):
    params, state = start(), optim.sgd_init(start())
    for step in grads:
        clipped, norm = optim.clip_by_global_norm(step, limit)
        assert norm == pytest.approx(float(torch.cat([g.flatten() for g in step.values()]).norm()), abs=1e-12)
        params, state = optim.sgd(params, clipped, state, 0.01)
    assert_equal(params, run_torch(lambda ps: torch.optim.SGD(ps, lr=0.01), grads, limit))


def test_adam_has_a_learning_rate_a_lane(grads):
    rates = torch.tensor([0.0, 0.01, 0.1], dtype=torch.float64)
    stacked = {n: p.expand(3, *p.shape).clone() for n, p in start().items()}
    state = optim.adam_init(stacked, lanes=3)
    step = torch.vmap(optim.adam, in_dims=(0, None, 0, 0))
    params = stacked
    for g in grads:
        params, state = step(params, g, state, rates)
    for k, lr in enumerate(rates.tolist()):
        assert_equal(
            {n: p[k] for n, p in params.items()},
            run_torch(lambda ps, lr=lr: torch.optim.Adam(ps, lr=lr), grads),
        )


TORCH = {
    "sgd": torch.optim.SGD,
    "nesterov": partial(torch.optim.SGD, nesterov=True),
    "rmsprop": torch.optim.RMSprop,
    "centered-rmsprop": partial(torch.optim.RMSprop, centered=True),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamw-fused": torch.optim.AdamW,
}
CASES = [
    ("sgd", {}),
    ("sgd", {"momentum": 0.9, "weight_decay": 0.1}),
    ("nesterov", {"momentum": 0.8, "weight_decay": 0.1}),
    ("rmsprop", {}),
    ("rmsprop", {"decay": 0.9, "momentum": 0.7, "eps": 1e-3, "weight_decay": 0.1}),
    ("centered-rmsprop", {"decay": 0.9, "momentum": 0.7, "eps": 1e-3, "weight_decay": 0.1}),
    ("adam", {"beta1": 0.8, "beta2": 0.99, "eps": 1e-5, "weight_decay": 0.1}),
    ("adamw", {}),
    ("adamw", {"beta1": 0.8, "beta2": 0.99, "eps": 1e-5, "weight_decay": 0.1}),
    ("adamw-fused", {}),
    ("adamw-fused", {"beta1": 0.8, "beta2": 0.99, "eps": 1e-5, "weight_decay": 0.1}),
]


def run(name, grads, lr, **options):
    params, state = start(), OPTIMISERS[name].init(start())
    for step in grads:
        params, state = OPTIMISERS[name].step(params, step, state, lr, **options)
    return params


def for_torch(given):
    """Our coefficients under torch's names."""
    given = dict(given)
    if "beta1" in given:
        given["betas"] = (given.pop("beta1"), given.pop("beta2"))
    if "decay" in given:
        given["alpha"] = given.pop("decay")
    return given


@pytest.mark.parametrize(("name", "coefficients"), CASES)
def test_every_optimiser_equals_torch(grads, name, coefficients):
    defaults = OPTIMISERS[name].coefficients  # what a learner's configuration starts from
    assert set(coefficients) <= set(defaults)
    given = {**defaults, **coefficients}
    expected = run_torch(lambda ps: TORCH[name](ps, lr=0.01, **for_torch(given)), grads)
    assert_equal(run(name, grads, 0.01, **given), expected)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_coefficient_may_differ_between_lanes(grads, name):
    lanes = {key: torch.tensor([0.5, 0.9, 0.99], dtype=torch.float64) for key in OPTIMISERS[name].coefficients}
    lanes = {"lr": torch.tensor([0.0, 0.01, 0.1], dtype=torch.float64), **lanes}
    stacked = {n: p.expand(3, *p.shape).clone() for n, p in start().items()}

    def step(params, grads, state, given):
        return OPTIMISERS[name].step(params, grads, state, **given)

    params, state = stacked, OPTIMISERS[name].init(stacked, lanes=3)
    for g in grads:
        params, state = torch.vmap(step, in_dims=(0, None, 0, 0))(params, g, state, lanes)
    for k in range(3):
        alone = run(name, grads, **{key: float(value[k]) for key, value in lanes.items()})
        assert_equal({n: p[k] for n, p in params.items()}, alone)
    assert all(torch.equal(params[n][0], stacked[n][0]) for n in SHAPES)  # its learning rate is 0


def test_the_fused_step_changes_none_of_its_arguments(grads):
    params, state = start(), optim.adam_init(start())
    params, state = optim.adam_fused(params, grads[0], state, 0.01, weight_decay=0.1)
    before = copy.deepcopy((params, grads[1], state))
    optim.adam_fused(params, grads[1], state, 0.01, weight_decay=0.1)
    torch.testing.assert_close((params, grads[1], state), before, rtol=0, atol=0)
    assert state["count"] == 1


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_scale_is_a_learning_rate_of_its_own(grads, name):
    options = {"weight_decay": 0.1}
    scaled = run(name, grads, 0.01, scale={"bias": 0.5}, **options)
    assert torch.equal(scaled["weight"], run(name, grads, 0.01, **options)["weight"])
    torch.testing.assert_close(scaled["bias"], run(name, grads, 0.005, **options)["bias"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [0, torch.tensor(0.0)], ids=["number", "tensor"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_factor_of_zero_freezes_to_the_bit(name, factor):
    params = {"frozen": torch.tensor([-0.0, 0.1, 3e38]), "free": torch.ones(3)}
    grads = {"frozen": torch.tensor([-1.0, float("nan"), float("inf")]), "free": torch.ones(3)}
    after, _ = OPTIMISERS[name].step(
        params, grads, OPTIMISERS[name].init(params), 0.1, weight_decay=0.5, scale={"frozen": factor}
    )
    assert torch.equal(after["frozen"].view(torch.int32), params["frozen"].view(torch.int32))
    assert (after["free"] < 1).all()


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping_by_value_equals_torch(grads, limit):
    params, state = start(), optim.sgd_init(start())
    for step in grads:
        params, state = optim.sgd(params, optim.clip_by_value(step, limit), state, 0.01)
    clip = torch.nn.utils.clip_grad_value_
    assert_equal(params, run_torch(lambda ps: torch.optim.SGD(ps, lr=0.01), grads, limit, clip))


def test_every_lane_has_its_own_limits(grads):
    limits = torch.tensor([0.1, 1.0, float("inf")], dtype=torch.float64)
    by_norm, _ = torch.vmap(optim.clip_by_global_norm, in_dims=(None, 0))(grads[0], limits)
    by_value = torch.vmap(optim.clip_by_value, in_dims=(None, 0))(grads[0], limits)
    for k, limit in enumerate(limits.tolist()):
        assert_equal({n: g[k] for n, g in by_norm.items()}, optim.clip_by_global_norm(grads[0], limit)[0])
        assert_equal({n: g[k] for n, g in by_value.items()}, optim.clip_by_value(grads[0], limit))
    assert_equal({n: g[2] for n, g in by_norm.items()}, grads[0])
    assert optim.global_norm({n: g[0] for n, g in by_norm.items()}) == pytest.approx(0.1, abs=1e-6)


def test_clipping_by_value_lets_nan_be_seen():
    clipped = optim.clip_by_value({"g": torch.tensor([float("nan"), float("inf"), -5.0])}, 1.0)["g"]
    assert clipped[0].isnan()
    assert clipped[1:].tolist() == [1.0, -1.0]
