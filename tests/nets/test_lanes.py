"""Lanes: three modes agree, lanes keep apart, the mode is chosen by a fixed rule."""

from functools import partial

import pytest
import torch
from torch import nn

from nets import compiling, lanes
from nets.lanes import Execution, Work, call, choose_mode, grad_and_value, keep, module_of
from nets.norms import BatchNorm
from nets.optim import adam, adam_init

COMPILED = pytest.param(
    "compiled", marks=pytest.mark.skipif(not lanes.has_compiler(), reason="no C++ compiler on this machine")
)


@pytest.fixture(autouse=True)
def compile_cache(tmp_path_factory, monkeypatch):
    """Compiled code goes to a folder of this test session."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "compiled"))


def build():
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def train(execution, seeds, steps=5):
    net, params, buffers = execution.stack(build, seeds)

    def update(params, opt, x):
        def loss(params):
            out, _ = call(net, params, buffers, x)
            return (out.squeeze(-1) - x.sum(-1)).square().mean()

        grads, value = grad_and_value(loss)(params)
        return adam(params, grads, opt, 0.01), value

    step = execution.each(update, in_dims=(0, 0, None))
    opt = adam_init(params, lanes=len(seeds))
    x = torch.linspace(-1, 1, 12, dtype=execution.dtype).reshape(4, 3)
    for _ in range(steps):
        (params, opt), value = step(params, opt, x)
    return params, value


@pytest.mark.parametrize("mode", ["loop", COMPILED])
def test_modes_agree(mode):
    expected, loss = train(Execution("eager", dtype=torch.float64), (1, 2, 3))
    found, found_loss = train(Execution(mode, dtype=torch.float64), (1, 2, 3))
    torch.testing.assert_close(found_loss, loss, rtol=0, atol=1e-9)
    for name, p in expected.items():
        torch.testing.assert_close(found[name], p, rtol=0, atol=1e-9)


@pytest.mark.skipif(not lanes.has_compiler(), reason="no C++ compiler on this machine")
def test_compiled_takes_strides_new_shapes_and_in_place_operations():
    def f(tree):
        y = tree["a"] * 2
        y += tree["b"][0]  # in place on a value of its own
        return {"y": y, "constant": torch.ones(2)}

    run = Execution("compiled").each(f)
    for size in (4, 5):
        a = torch.randn(size, 3).T  # not contiguous
        b = torch.randn(3, size)
        out = run({"b": (b,), "a": a})
        torch.testing.assert_close(out["y"], 2 * a + b)
        assert out["constant"].shape == (3, 2)


def test_stack_equals_single_networks():
    net, params, _ = Execution().stack(build, (4, 9))
    assert all(p.is_meta for p in net.parameters())
    for lane, seed in enumerate((4, 9)):
        torch.manual_seed(seed)
        alone = build()
        for name, p in alone.named_parameters():
            assert torch.equal(params[name][lane], p)
        x = torch.randn(2, 3)
        assert torch.equal(module_of(build, params, {}, lane)(x), alone(x))


def test_stack_and_module_of_leave_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    _, params, _ = Execution().stack(build, (1, 2))
    module_of(build, params, {}, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_keep_shields_ended_lanes_from_nan():
    old = {"w": torch.ones(2, 3), "count": torch.ones(2)}
    new = {"w": torch.full((2, 3), float("nan")), "count": torch.full((2,), 2.0)}
    kept = keep(torch.tensor([True, False]), new, old)
    assert kept["w"][0].isnan().all()
    assert torch.equal(kept["w"][1], old["w"][1])
    assert kept["count"].tolist() == [2.0, 1.0]


def test_mode_rule(monkeypatch):
    monkeypatch.setattr(lanes, "has_compiler", lambda: True)
    assert choose_mode("auto", Work(10.0))[0] == "eager"
    assert choose_mode("auto", Work(1000.0))[0] == "compiled"
    assert choose_mode("auto", Work(1000.0, loop_on_cpu=True))[0] == "loop"
    assert choose_mode("auto", Work(1000.0, loop_on_cpu=True), "cuda")[0] == "compiled"
    assert choose_mode("eager", Work(1000.0))[0] == "eager"


def test_without_a_compiler_lanes_are_eager_and_say_so(monkeypatch):
    monkeypatch.setattr(lanes, "has_compiler", lambda: False)
    for requested in ("auto", "compiled"):
        mode, reason = choose_mode(requested, Work(1000.0))
        assert mode == "eager"
        assert "no C++ compiler" in reason


@pytest.mark.skipif(not lanes.has_compiler(), reason="no C++ compiler with Python headers on this machine")
def test_a_lanes_end_compiles_nothing_and_a_ninth_shape_works(monkeypatch):
    compiled = []
    original = compiling._compile
    monkeypatch.setattr(compiling, "_compile", lambda *args: compiled.append(1) or original(*args))
    each = Execution("compiled").each(lambda w, alive: keep(alive, {"w": w * 0.5}, {"w": w})["w"])
    weights = torch.ones(3, 2)
    for alive in ([True, True, True], [True, False, True], [False, False, True]):
        weights = each(weights, torch.tensor(alive))
    assert weights.tolist() == [[0.25, 0.25], [0.5, 0.5], [0.125, 0.125]]
    assert len(compiled) == 1
    for width in range(3, 11):  # torch.compile's own limit is eight
        assert torch.equal(each(torch.ones(2, width), torch.tensor([True, False]))[:, 0], torch.tensor([0.5, 1.0]))
    assert len(compiled) == 9


@pytest.mark.parametrize("mode", ["eager", "loop", COMPILED])
@pytest.mark.parametrize("count", [1, 2])
def test_a_scan_is_its_function_called_again_and_again(mode, count):
    def step(carry, x, rest):
        total = carry["total"] + x["x"].mean(0) * rest
        return {"turned": (carry["turned"] * 0.5 + total.sum()).T, "total": total}, (total.sum(), carry["turned"])

    torch.manual_seed(0)
    drawn = partial(torch.randn, dtype=torch.float64)
    execution, rest = Execution(mode, dtype=torch.float64), drawn(count)
    carry = {"turned": drawn(count, 3, 3), "total": drawn(count, 4)}
    xs = [{"x": drawn(count, 4, rows).mT} for rows in (5, 5, 3, 5)]  # strided, one is shorter
    found, ys = execution.scan(step)(carry, iter(xs), rest)
    expected, wanted = carry, []
    for x in xs:
        rows = [step({n: t[k] for n, t in expected.items()}, {"x": x["x"][k]}, rest[k]) for k in range(count)]
        expected = {name: torch.stack([row[0][name] for row in rows]) for name in carry}
        wanted.append([torch.stack([row[1][i] for row in rows]) for i in range(2)])
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12)
    for y, want in zip(ys, wanted, strict=True):
        torch.testing.assert_close(list(y), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", ["eager", "loop", COMPILED])
@pytest.mark.parametrize("count", [1, 2])
def test_any_tree_may_be_empty(mode, count):
    """What is not normalised has no normaliser's state: lanes are counted by a tree that has tensors."""
    execution, x = Execution(mode), torch.arange(3.0 * count).reshape(count, 3)
    each = execution.each(lambda nothing, x: ({**nothing, "y": x.sum()}, ()))
    found, empty = each({}, x)
    assert torch.equal(found["y"], x.sum(1))
    assert empty == ()

    def step(carry, x, rest):
        return carry, x + rest

    carry, ys = execution.scan(step, in_dims=(0, 0, 0))({}, iter([x, 2 * x]), x)
    assert carry == {}
    assert [y.tolist() for y in ys] == [(2 * x).tolist(), (3 * x).tolist()]
    assert execution.scan(step)((), [], x) == ((), [])


@pytest.mark.skipif(not lanes.has_compiler(), reason="no C++ compiler on this machine")
def test_compiled_keeps_two_arguments_apart_that_were_one_tensor_at_first():
    each, x = Execution("compiled").each(lambda x, y: x - 2 * y), torch.arange(3.0).reshape(1, 3)
    assert torch.equal(each(x, x), -x)
    assert torch.equal(each(4 * x, x), 2 * x)


def test_without_a_tensor_nothing_says_how_many_lanes_there_are():
    with pytest.raises(ValueError, match="how many lanes"):
        Execution("loop").each(lambda nothing: nothing)({})


@pytest.mark.skipif(not lanes.has_compiler(), reason="no C++ compiler on this machine")
def test_compiled_products_with_a_narrow_result_are_made_transposed(monkeypatch):
    made = []
    original = compiling._product
    monkeypatch.setattr(compiling, "_product", lambda a, b, otherwise: made.append((a, b)) or original(a, b, otherwise))
    g, x = torch.randn(2, 40, 64, dtype=torch.float64), torch.randn(2, 40, 4, dtype=torch.float64)
    found = Execution("compiled").each(lambda g, x: g.T @ x)(g, x)
    assert [(a.shape[1], b.shape[2]) for a, b in made] == [(64, 4), (4, 64)]
    torch.testing.assert_close(found, g.mT @ x, rtol=0, atol=1e-12)


def test_a_network_keeps_nothing_of_a_functional_call():
    net = BatchNorm(3).train()
    params = {name: p.detach() for name, p in net.named_parameters()}
    buffers = {name: b.clone() for name, b in net.named_buffers()}
    _, new = call(net, params, buffers, torch.randn(8, 3), training=True)
    assert not torch.equal(new["running_mean"], buffers["running_mean"])
    assert torch.equal(net.running_mean, torch.zeros(3))
    _, same = call(net, params, new, torch.randn(8, 3))
    assert torch.equal(same["running_mean"], new["running_mean"])
