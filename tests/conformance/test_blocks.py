"""What must hold for every registered block, alone and as lanes; the blocks are those of `nets.registry.blocks`.

A block joins by one line in tests/conformance/examples.
"""

import math

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from nets.lanes import Execution, call, grad_and_value, has_compiler, keep, reset_compiler
from nets.noise import noise_from
from nets.optim import adam, adam_init
from nets.registry import blocks, build
from tests.conformance.examples import examples

ALL = examples()
EVERY = pytest.mark.parametrize("example", ALL, ids=[e.id for e in ALL])
SMOOTH = pytest.mark.parametrize("example", [e for e in ALL if e.smooth], ids=[e.id for e in ALL if e.smooth])
LANES, STEPS = 5, 20


@pytest.fixture(autouse=True)
def quiet(recwarn):
    """One thread, torch's generator as it was, and no warning (a missing batching rule is one)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)
    assert [str(w.message) for w in recwarn if "batching rule" in str(w.message)] == []


class Scaled(nn.Module):
    """A block without parameters behind a learned factor, so that there is something to train."""

    def __init__(self, block):
        super().__init__()
        self.block = block
        self.factor = nn.Parameter(torch.rand(()) + 0.5)

    def forward(self, x, *rest):
        return self.block(x * self.factor, *rest)


def fresh(example):
    net = build(example.config, example.input_shape, example.output)
    return net if any(True for _ in net.parameters()) else Scaled(net)


def built(example, dtype=torch.float32, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return fresh(example).to(dtype)


def weights_of(net):
    """(parameters, buffers) of a network, as `call` takes them."""
    return {n: p.detach().clone() for n, p in net.named_parameters()}, dict(net.named_buffers())


def total(output):
    """One number from any output: every element counts with another weight."""
    leaves = [t for t in pytree.tree_leaves(output) if t.is_floating_point()]
    return sum((t * torch.cos(1 + torch.arange(t.numel(), dtype=t.dtype).reshape(t.shape))).sum() for t in leaves)


def key(seed=0):
    return torch.tensor(1000 + seed)


def step_of(net):
    """One update of one trial: (weights, alive, inputs, key, learning rate) to new weights."""

    def step(weights, alive, inputs, noise, lr):
        def loss(params):
            output, buffers = call(net, params, weights["buffers"], *inputs, noise=noise)
            return total(output) / 10, buffers

        grads, (_, buffers) = grad_and_value(loss, has_aux=True)(weights["params"])
        params, state = adam(weights["params"], grads, weights["adam"], lr, eps=1e-3)
        return keep(alive, {"params": params, "buffers": buffers, "adam": state}, weights)

    return step


def trained(example, mode="eager", dtype=torch.float64, order=range(LANES), steps=STEPS, poison=None, dead=()):
    """The weights of lanes after some updates; lane k has its own initialisation, inputs, noise, learning rate."""
    order = list(order)
    execution = Execution(mode, dtype=dtype)
    net, params, buffers = execution.stack(lambda: fresh(example), [10 + k for k in order])
    weights = {"params": params, "buffers": buffers, "adam": adam_init(params, lanes=len(order))}
    if poison is not None:
        for p in params.values():
            p[poison] = math.nan
    inputs = [example.make_inputs(dtype, seed=20 + k) for k in order]
    stacked = tuple(torch.stack(parts) for parts in zip(*inputs, strict=True))
    alive = torch.tensor([k not in dead for k in order])
    lr = torch.tensor([1e-3 * (k + 1) for k in order], dtype=dtype)
    update = execution.each(step_of(net))
    for s in range(steps):
        noise = torch.tensor([100 * s + k for k in order])
        weights = update(weights, alive, stacked, noise, lr)
    return weights


def assert_close(found, expected, tolerance):
    """Every tensor: the largest difference over the largest number (or over 0.1 where all are smaller)."""
    found, paths = pytree.tree_leaves_with_path(found), dict(pytree.tree_leaves_with_path(expected))
    for path, a in found:
        b = paths[path].double()
        scale = max(float(b.abs().max()), 0.1) if b.numel() else 1.0
        assert not a.isnan().any(), path
        assert float((a.double() - b).abs().max()) / scale <= tolerance, path


def rows(tree, index):
    return pytree.tree_map(lambda t: t[index], tree)


def test_every_registered_block_has_an_example():
    assert set(blocks()) == {e.config["kind"] for e in ALL}


@EVERY
def test_forward_and_backward(example):
    net = built(example)
    with noise_from(key()):
        output = net.train()(*example.make_inputs())
    total(output).backward()
    assert all(t.isfinite().all() for t in pytree.tree_leaves(output))
    silent = {n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()}
    assert silent == set(example.unused)


@SMOOTH
def test_gradients_are_right(example):
    net = built(example, torch.float64).eval()
    params, buffers = weights_of(net)
    inputs = example.make_inputs(torch.float64)
    floats = [i for i, t in enumerate(inputs) if t.is_floating_point()]

    def value(*tensors):
        weights = dict(zip(params, tensors, strict=False))
        given = list(inputs)
        for i, t in zip(floats, tensors[len(params) :], strict=True):
            given[i] = t
        return total(call(net, weights, buffers, *given)[0])

    leaves = [t.clone().requires_grad_() for t in (*params.values(), *(inputs[i] for i in floats))]
    if leaves:
        assert torch.autograd.gradcheck(value, leaves, fast_mode=True)


@EVERY
@pytest.mark.parametrize("factor", [0.0, 1e4, -1e4], ids=["zeros", "huge", "negative"])
def test_no_nan_at_extreme_inputs(example, factor):
    net = built(example)
    inputs = tuple(t * factor if t.is_floating_point() else t for t in example.make_inputs())
    with noise_from(key()):
        output = net.train()(*inputs)
    total(output).backward()
    assert not any(t.isnan().any() for t in pytree.tree_leaves(output))
    assert not any(p.grad.isnan().any() for p in net.parameters() if p.grad is not None)


@EVERY
def test_traces_as_one_full_graph(example):
    net = built(example).train()
    inputs = example.make_inputs()
    before = {n: b.clone() for n, b in net.named_buffers()}
    try:
        with noise_from(key()):
            found = torch.compile(net, backend="aot_eager", fullgraph=True)(*inputs)
        total(found).backward()
        for n, b in before.items():
            module, _, name = n.rpartition(".")
            setattr(net.get_submodule(module), name, b)
        with noise_from(key()):
            expected = net(*inputs)
        assert_close(found, expected, 1e-5)
    finally:
        torch._dynamo.reset()


@EVERY
def test_saved_and_loaded_equal(example):
    net, other = built(example).eval(), built(example, seed=1).eval()
    other.load_state_dict({n: t.clone() for n, t in net.state_dict().items()})
    inputs = example.make_inputs()
    with noise_from(key()), torch.no_grad():
        a, b = net(*inputs), other(*inputs)
    for x, y in zip(pytree.tree_leaves(a), pytree.tree_leaves(b), strict=True):
        assert torch.equal(x, y)


@EVERY
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["f64", "f32"])
def test_five_lanes_equal_five_single_runs(example, dtype, tolerance):
    lanes, singles = trained(example, dtype=dtype), trained(example, "loop", dtype)
    assert_close(lanes, singles, tolerance)


@EVERY
def test_permuting_ending_and_poisoning_lanes_leaves_the_others(example):
    expected = trained(example, steps=3)
    order = [3, 0, 4, 1, 2]
    assert_close(trained(example, order=order, steps=3), rows(expected, order), 1e-9)
    others = [0, 1, 3, 4]
    poisoned = trained(example, steps=3, poison=2)
    assert_close(rows(poisoned, others), rows(expected, others), 1e-9)
    pruned = trained(example, steps=3, dead=(2,))
    assert_close(rows(pruned, others), rows(expected, others), 1e-9)
    assert_close(rows(pruned, [2]), rows(trained(example, steps=0), [2]), 0)


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler with Python headers on this machine")
@EVERY
def test_compiled_lanes_equal_single_runs(example):
    lanes = trained(example, "compiled", torch.float32, range(2), steps=5)
    assert_close(lanes, trained(example, "loop", torch.float32, range(2), steps=5), 1e-4)
    reset_compiler()
