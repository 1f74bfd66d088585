"""Augmentation against plain slicing, its distribution, and one batch against vmap."""

from __future__ import annotations

import pytest
import torch
from torch.func import vmap

from nets.augment import cropped, cutout, flipped, noisy, shifted

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(6, 2, 5, 7, generator=GENERATOR)
U = torch.rand(6, 2, generator=GENERATOR)


def moves(most):
    return (U * (2 * most + 1)).floor().long() - most


def test_half_of_the_rows_are_flipped():
    u = torch.tensor([0.0, 0.49, 0.5, 0.99, 0.2, 0.8])
    torch.testing.assert_close(flipped(X, u)[[0, 1, 4]], X[[0, 1, 4]].flip(-1), rtol=0, atol=0)
    torch.testing.assert_close(flipped(X, u)[[2, 3, 5]], X[[2, 3, 5]], rtol=0, atol=0)


def test_shift_is_a_slice_of_the_padded_image():
    padded = torch.nn.functional.pad(X, (2, 2, 2, 2), value=-1.0)
    for row, out, (down, right) in zip(padded, shifted(X, U, 2, fill=-1.0), moves(2).tolist(), strict=True):
        torch.testing.assert_close(out, row[:, 2 - down : 7 - down, 2 - right : 9 - right], rtol=0, atol=0)


def test_crop_is_a_slice_of_the_mirrored_image():
    padded = torch.nn.functional.pad(X, (2, 2, 2, 2), mode="reflect")
    for row, out, (down, right) in zip(padded, cropped(X, U, 2), moves(2).tolist(), strict=True):
        torch.testing.assert_close(out, row[:, 2 - down : 7 - down, 2 - right : 9 - right], rtol=0, atol=0)


def test_every_shift_is_as_likely():
    u = torch.rand(9000, 2, generator=GENERATOR)
    one = torch.zeros(9000, 5, 5)
    one[:, 2, 2] = 1.0
    counts = shifted(one, u, 1).sum(0)
    assert counts.sum() == 9000
    assert counts[1:4, 1:4].min() > 880
    assert counts[1:4, 1:4].max() < 1120


def test_cutout_hides_a_square_around_its_centre():
    u = torch.tensor([[0.5, 0.5], [0.0, 0.999]])
    out = cutout(torch.ones(2, 5, 7), u, 3, fill=-1.0)
    expected = torch.ones(2, 5, 7)
    expected[0, 1:4, 2:5] = -1.0
    expected[1, 0:2, 5:7] = -1.0
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


def test_noise_has_its_standard_deviation():
    normal = torch.randn(4000, 3, 3, generator=GENERATOR)
    assert noisy(torch.zeros(4000, 3, 3), normal, 0.2).std().item() == pytest.approx(0.2, rel=0.02)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_lanes_agree_with_single_runs_and_gradients_pass(channels):
    x = torch.rand(3, 4, *channels, 6, 6, generator=GENERATOR, requires_grad=True)
    u = torch.rand(3, 4, 5, generator=GENERATOR)

    def all_of_them(x, u):
        return cutout(cropped(shifted(flipped(x, u[:, 0]), u[:, 1:3], 1), u[:, 3:], 2), u[:, :2], 2)

    together = vmap(all_of_them)(x, u)
    torch.testing.assert_close(together, torch.stack([all_of_them(x[k], u[k]) for k in range(3)]), rtol=0, atol=0)
    together.sum().backward()
    assert 0 < (x.grad != 0).double().mean() < 1
