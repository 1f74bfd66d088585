"""Functional optimisers equal torch's, in float64."""

import pytest
import torch

from nets import optim

SHAPES = {"weight": (5, 3), "bias": (5,)}


def run_torch(make, grads, limit=None):
    params = {n: torch.full(s, 0.3, dtype=torch.float64).requires_grad_() for n, s in SHAPES.items()}
    optimiser = make(list(params.values()))
    for step in grads:
        for name, p in params.items():
            p.grad = step[name].clone()
        if limit is not None:
            torch.nn.utils.clip_grad_norm_(list(params.values()), limit)
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


def test_linear_schedule():
    assert optim.linear(1.0, 0.0) == 1.0
    assert optim.linear(1.0, 0.25, 0.2) == pytest.approx(0.8)
    assert optim.linear(1.0, 1.0) == 0.0
