"""Differentiable augmentation: what it does to pixels, and that gradients pass."""

from __future__ import annotations

import torch

from generative.augment import AUGMENTATIONS, UNIFORMS, augmented
from nets.lanes import Execution, grad_and_value

X = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8).double()


def test_colour_moves_and_scales():
    same = AUGMENTATIONS["colour"](X, torch.full((2, 2), 0.5).double())
    torch.testing.assert_close(same, X)
    brighter = AUGMENTATIONS["colour"](X, torch.tensor([[1.0, 0.5], [0.0, 0.5]]).double())
    torch.testing.assert_close(brighter[0], X[0] + 0.5)
    torch.testing.assert_close(brighter[1], X[1] - 0.5)
    flat = AUGMENTATIONS["colour"](X, torch.tensor([[0.5, 0.0], [0.5, 0.0]]).double())
    torch.testing.assert_close(flat.std((1, 2, 3)), 0.5 * X.std((1, 2, 3)))


def test_translation_moves_each_row_its_own_way():
    moved = AUGMENTATIONS["translation"](X, torch.tensor([[0.99, 0.5], [0.5, 0.0]]).double())
    assert torch.equal(moved[0, :, 1:], X[0, :, :-1])
    assert (moved[0, :, 0] == -1).all()
    assert torch.equal(moved[1, :, :, :-1], X[1, :, :, 1:])
    assert (moved[1, :, :, -1] == -1).all()


def test_cutout_hides_a_square_of_half_the_side():
    cut = AUGMENTATIONS["cutout"](torch.ones(2, 1, 8, 8), torch.tensor([[0.5, 0.5], [0.0, 0.0]]))
    assert (cut[0, 0, 2:6, 2:6] == 0).all()
    assert (cut[0] == 0).sum() == 16
    assert (cut[1] == 0).sum() == 4


def test_probability_decides_row_by_row_and_gradients_pass_under_lanes():
    names = tuple(AUGMENTATIONS)
    u = torch.rand(2, 5, len(names), UNIFORMS, generator=torch.Generator().manual_seed(0)).double()
    x = torch.rand(2, 5, 8, 8).double() * 2 - 1

    def total(x, u, p):
        return augmented(x, names, p, u).sum()

    each = Execution("eager", dtype=torch.float64).each
    grads, _ = each(grad_and_value(total))(x, u, torch.tensor([0.0, 1.0]).double())
    assert (grads[0] == 1).all()
    assert not torch.equal(grads[1], grads[0])
    assert grads[1].abs().sum() > 0
    assert torch.equal(augmented(x[0], names, torch.tensor(0.0), u[0]), x[0])
    once = augmented(x[0], ("translation",), torch.tensor(0.5), u[0][:, 1:2])
    assert torch.equal(once[u[0][:, 1, 0] >= 0.5], x[0][u[0][:, 1, 0] >= 0.5])
