"""Noise inside networks: a function of key, call site and index."""

import numpy as np
import pytest
import torch
from scipy import stats

from nets.noise import Noise, active_noise, bits, noise_from


def test_bits_are_those_of_splitmix64():
    # its state rises by 0x9e3779b97f4a7c15 a number; the first two from the seed 0, as other implementations give them
    states = torch.tensor([-7046029254386353131, 4354685564936845354])
    assert [hex(int(n) % 2**64) for n in bits(states)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4"]


def test_numbers_are_uniform_and_independent():
    like = torch.empty(0, dtype=torch.float64)
    draws = [Noise(torch.tensor(key)) for key in (0, 1)]
    a, b = (noise.uniform((200, 500), like).numpy() for noise in draws)
    c = draws[0].uniform((200, 500), like).numpy()
    for u in (a, b, c):
        assert 0 <= u.min() < u.max() < 1
        assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(u.ravel()[:-1], u.ravel()[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(a.ravel(), c.ravel())[0, 1]) < 0.02


def test_normal_numbers_are_normal():
    drawn = Noise(torch.tensor(7)).normal((100_000,), torch.empty(0, dtype=torch.float64))
    assert stats.kstest(drawn.numpy(), "norm").pvalue > 1e-3


def test_a_lane_has_the_numbers_of_its_key_in_either_precision():
    like = torch.empty(0)
    keys = torch.tensor([3, -5])
    lanes = torch.vmap(lambda key: Noise(key).uniform((4, 2), like))(keys)
    for k in range(2):
        assert torch.equal(lanes[k], Noise(keys[k]).uniform((4, 2), like))
        assert torch.equal(lanes[k].double(), Noise(keys[k]).uniform((4, 2), like.double()))


def test_noise_ends_with_its_call():
    with noise_from(torch.tensor(1)):
        assert active_noise() is not None
    with pytest.raises(RuntimeError, match="on purpose"), noise_from(torch.tensor(1)):
        raise RuntimeError("on purpose")
    assert active_noise() is None
