"""Pictures: where each image, point and line is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from generative.pictures import beside, density, grid, slerp


def test_a_grid_keeps_every_image_in_its_place():
    images = np.stack([np.full((16, 39), value / 10) for value in range(10)])
    picture = grid(images, columns=8)
    assert picture.shape == (2 * 17 - 1, 8 * 40 - 1)
    assert [picture[0, 40 * k] for k in range(8)] == [round(25.5 * k) for k in range(8)]
    assert (picture[16] == 0).all()  # the line
    assert (picture[17, 40], picture[17, 80]) == (round(25.5 * 9), 0)  # the last row is filled with black


def test_colour_stays_colour_and_small_images_grow():
    images = np.zeros((2, 3, 4, 4))
    images[1, 2] = 5  # too bright
    images[0, 0] = np.nan
    picture = grid(images, columns=2)
    assert picture.shape == (4 * 32, 9 * 32, 3)
    assert picture[0, 5 * 32].tolist() == [0, 0, 255]
    assert picture[0, 0].tolist() == [0, 0, 0]


def test_the_nearest_stands_below_its_sample():
    samples = np.array([0.2, 0.4])[:, None, None] * np.ones((2, 40, 159))
    found = np.array([[0.6, 0.7], [0.8, 0.9]])[..., None, None] * np.ones((2, 2, 40, 159))
    picture = beside(samples, found)
    assert picture.shape == (40 + 6 + 81, 319)
    assert (picture[40:46] == 255).all()
    assert [int(picture[y, x]) for y in (0, 46, 87) for x in (0, 160)] == [51, 102, 153, 204, 178, 230]


def test_density_shows_both_sides_the_right_way_up():
    reference = np.array([[-1.0, -1.0], [1.0, 1.0]])
    picture = density(np.array([[1.0, 1.0], [np.nan, 0.0], [50.0, 0.0]]), reference)
    assert picture.shape == (156, 320, 3)
    ink = (picture != 250).any(-1)
    assert ink[100:, :50].any()  # the data's lower left
    assert ink[:50, 100:156].any()
    assert not ink[100:, 164:214].any()
    assert ink[:50, 270:].any()  # the sample, upper right


def test_slerp_keeps_the_length_and_goes_evenly():
    start, end = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    path = slerp(start, end, 5)[0]
    torch.testing.assert_close(path.norm(dim=-1), torch.full((5,), 2.0))
    torch.testing.assert_close(path[2], torch.tensor([2**0.5, 2**0.5]))
    torch.testing.assert_close(slerp(start, start, 3)[0], start.expand(3, 2))
    assert slerp(start, end, 5)[0, -1].tolist() == pytest.approx([0, 2], abs=1e-6)
