"""Normalisation layers against torch's own, and the running normalisers against numpy and stable-baselines3."""

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn
from torch.nn import functional

from nets.lanes import Execution, call, grad_and_value
from nets.normalisers import (
    normalise,
    normalise_rewards,
    normaliser_init,
    normaliser_update,
    normaliser_variance,
    rewards_init,
    rewards_update,
)
from nets.norms import BatchNorm, ConditionalBatchNorm, SpectralConv2d, SpectralLinear, norm

pytestmark = pytest.mark.filterwarnings("error:There is a performance drop")  # a missing batching rule


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def gradients(net, x):
    x = x.clone().requires_grad_()
    y = net(x)
    weights = [p for p in net.parameters() if p.requires_grad]
    return y.detach(), torch.autograd.grad((y * torch.linspace(-1, 2, y.numel()).reshape(y.shape)).sum(), [x, *weights])


@pytest.mark.parametrize(
    ("theirs", "shape"),
    [(nn.BatchNorm1d, (6, 3)), (nn.BatchNorm1d, (4, 3, 5)), (nn.BatchNorm2d, (4, 3, 2, 5))],
    ids=["rows", "1d", "2d"],
)
def test_batch_norm_equals_torch(theirs, shape):
    ours, theirs = BatchNorm(3), theirs(3)
    for net in (ours, theirs):
        nn.init.uniform_(net.weight, 0.5, 2, generator=torch.Generator().manual_seed(1))
        nn.init.uniform_(net.bias, -1, 1, generator=torch.Generator().manual_seed(2))
    for _ in range(4):
        x = 3 * torch.randn(shape) + 1
        (y, grads), (y2, grads2) = gradients(ours, x), gradients(theirs, x)
        torch.testing.assert_close(y, y2, rtol=0, atol=1e-5)
        for a, b in zip(grads, grads2, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-5, atol=1e-5)
    assert (ours.running_mean != 0).all()
    (y, grads), (y2, grads2) = gradients(ours.eval(), x), gradients(theirs.eval(), x)
    for a, b in zip((y, *grads), (y2, *grads2), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["none", "batch", "layer", "group", "rms"])
def test_norms_by_name_in_both_layouts(name):
    first, last = norm(name, 16, channels_first=True), norm(name, 16)
    x = 5 * torch.randn(4, 16, 3) + 2
    y, z = first(x), last(x.movedim(1, -1)).movedim(-1, 1)
    assert y.shape == z.shape == x.shape
    if name in ("none", "batch", "rms"):  # layer and group: with channels first pixels are normalised together
        torch.testing.assert_close(y, z)
    if name == "layer":
        torch.testing.assert_close(y.mean((1, 2)), torch.zeros(4), rtol=0, atol=1e-5)
    if name == "group":  # two groups of 8
        torch.testing.assert_close(y.reshape(4, 2, -1).mean(-1), torch.zeros(4, 2), rtol=0, atol=1e-5)
        torch.testing.assert_close(z.reshape(4, 2, 8, 3).mean(2), torch.zeros(4, 2, 3), rtol=0, atol=1e-5)
    if name == "rms":
        torch.testing.assert_close(y.square().mean(1), torch.ones(4, 3), rtol=1e-4, atol=0)


def test_an_unknown_norm_is_named():
    with pytest.raises(ValueError, match="unknown norm 'btach'; known: none, batch"):
        norm("btach", 4)


def test_conditional_batch_norm_is_batch_norm_with_a_row_of_the_table():
    ours, theirs = ConditionalBatchNorm(3, 2), nn.BatchNorm2d(3, affine=False)
    nn.init.normal_(ours.weight)
    nn.init.normal_(ours.bias)
    x, labels = torch.randn(4, 3, 2, 5), torch.tensor([1, 0, 0, 1])
    scale, shift = (t[labels].reshape(4, 3, 1, 1) for t in (ours.weight, ours.bias))
    torch.testing.assert_close(ours(x, labels), theirs(x) * scale + shift, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x, labels), theirs.eval()(x) * scale + shift, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_spectral_layers_equal_torch(kind):
    if kind == "linear":
        ours, plain, x = SpectralLinear(5, 4), nn.Linear(5, 4), torch.randn(3, 5)
    else:
        ours, plain, x = SpectralConv2d(2, 4), nn.Conv2d(2, 4, 3, padding=1), torch.randn(3, 2, 4, 4)
    first = ours.normalised_weight().detach()
    assert torch.linalg.matrix_norm(first.flatten(1), 2).item() == pytest.approx(1, abs=0.02)  # u has settled
    plain.load_state_dict({n: t for n, t in ours.state_dict().items() if n != "u"})
    theirs = nn.utils.parametrizations.spectral_norm(plain)
    with torch.no_grad():
        for _ in range(200):
            ours(x), theirs(x)
    matrix = ours.normalised_weight().flatten(1)
    assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1, abs=1e-5)
    (y, grads), (y2, grads2) = gradients(ours, x), gradients(theirs, x)
    torch.testing.assert_close(y, y2, rtol=0, atol=1e-5)
    expected = {"x": grads2[0], "bias": grads2[1], "weight": grads2[2]}
    names = ["x", *(n for n, _ in ours.named_parameters())]
    for name, g in zip(names, grads, strict=True):
        torch.testing.assert_close(g, expected[name], rtol=0, atol=1e-5)


def test_the_power_iteration_moves_in_training_only():
    net = SpectralLinear(6, 6)
    nn.init.normal_(net.weight)  # u no longer fits
    before, x = net.u.clone(), torch.randn(2, 6)
    net.eval()(x)
    assert torch.equal(net.u, before)
    net.train()(x)
    assert not torch.equal(net.u, before)
    assert not net.u.requires_grad
    net.settle(100)
    sigma = torch.linalg.matrix_norm(net.weight, 2)
    torch.testing.assert_close(net.eval()(x), functional.linear(x, net.weight / sigma, net.bias), rtol=0, atol=1e-4)


def test_lanes_keep_their_own_state():
    def build():
        return nn.Sequential(SpectralConv2d(2, 4), BatchNorm(4), nn.Tanh())

    execution = Execution("eager", dtype=torch.float64)
    net, params, buffers = execution.stack(build, [3, 4])
    x = torch.randn(2, 3, 2, 4, 4, dtype=torch.float64)

    def update(params, buffers, x):
        def loss(params):
            y, new = call(net, params, buffers, x, training=True)
            return y.square().mean(), new

        return grad_and_value(loss, has_aux=True)(params)

    grads, (_, new) = execution.each(update)(params, buffers, x)
    for k in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3 + k)
            single = build().double()
        single(x[k]).square().mean().backward()
        for name, buffer in single.named_buffers():
            torch.testing.assert_close(new[name][k], buffer, rtol=0, atol=1e-12)
            assert not torch.equal(new[name][k], buffers[name][k])
        for name, p in single.named_parameters():
            torch.testing.assert_close(grads[name][k], p.grad, rtol=0, atol=1e-12)


def test_running_moments_equal_those_of_all_rows():
    rng = np.random.default_rng(0)
    parts = [1e4 + rng.normal(size=(n, 3)) * [1, 10, 0] for n in (1, 7, 1, 64)]
    state, theirs = normaliser_init((3,)), RunningMeanStd(epsilon=1e-12, shape=(3,))
    for part in parts:
        state = normaliser_update(state, torch.tensor(part))
        theirs.update(part)
    rows = np.concatenate(parts)
    assert state["count"] == len(rows)
    np.testing.assert_allclose(state["mean"], rows.mean(0), rtol=1e-13)
    np.testing.assert_allclose(normaliser_variance(state), rows.var(0), rtol=1e-9, atol=1e-18)
    np.testing.assert_allclose(state["mean"], theirs.mean, rtol=1e-12)
    np.testing.assert_allclose(normaliser_variance(state)[:2], theirs.var[:2], rtol=1e-3)
    z = normalise(state, torch.tensor(rows, dtype=torch.float32))
    assert z.dtype == torch.float32
    expected = (np.float32(rows) - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-8)
    np.testing.assert_allclose(z, expected.clip(-10, 10), atol=1e-3)
    assert normalise(state, torch.tensor([[1e9, -1e9, 0.0]]), clip=5).tolist() == [[5, -5, -5]]


def test_a_normaliser_that_saw_nothing_changes_nothing():
    x = torch.randn(4, 3)
    torch.testing.assert_close(normalise(normaliser_init((3,)), x), x)
    one = normaliser_update(normaliser_init((3,)), x[:1])
    torch.testing.assert_close(normalise(one, x), x - x[0])


def test_normalisers_are_per_lane():
    rows = torch.randn(2, 5, 4, 3)
    state = {name: torch.stack([t, t]) for name, t in normaliser_init((3,)).items()}
    state = torch.vmap(normaliser_update)(torch.vmap(normaliser_update)(state, rows[:, :2]), rows[:, 2:])
    for k in range(2):
        alone = normaliser_update(normaliser_init((3,)), rows[k])
        for name, t in alone.items():
            torch.testing.assert_close(state[name][k], t, rtol=1e-12, atol=1e-12)


class Script(gymnasium.Env):
    """Rewards by heart; an episode has 5 steps."""

    observation_space = action_space = gymnasium.spaces.Discrete(1)

    def __init__(self, seed):
        self.rewards = np.random.default_rng(seed).normal(1, 3, 40)
        self.t = 0

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        self.t += 1
        return 0, float(np.float32(self.rewards[self.t - 1])), self.t % 5 == 0, False, {}


def test_rewards_are_scaled_as_by_vec_normalize():
    theirs = VecNormalize(
        DummyVecEnv([lambda: Script(0), lambda: Script(1)]), norm_obs=False, clip_reward=1.5, gamma=0.9
    )
    theirs.ret_rms = RunningMeanStd(epsilon=1e-12, shape=())
    theirs.reset()
    state = rewards_init(2)
    clipped = 0
    for t in range(12):
        _, expected, done, _ = theirs.step(np.zeros(2, dtype=int))
        reward = torch.tensor([Script(k).rewards[t] for k in range(2)], dtype=torch.float32)
        state = rewards_update(state, reward, torch.tensor(done), 0.9)
        found = normalise_rewards(state, reward, clip=1.5)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        clipped += int((found.abs() == 1.5).sum())
    assert 0 < clipped < 24
