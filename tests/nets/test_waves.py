"""Sums of plane waves: they move exactly, what is seen and where are apart, and every smooth image is one."""

import math

import pytest
import torch

from nets.registry import build
from nets.waves import WaveGenerator, plane_waves

SHAPE = (2, 12, 10)


def generator(**fields) -> WaveGenerator:
    torch.manual_seed(0)
    return WaveGenerator(5, SHAPE, place_features=2, hidden_features=8, **fields)


def placed(net: WaveGenerator, y: float, x: float) -> torch.Tensor:
    """What the network shows of one and the same noise, moved by (y, x) pixels."""
    with torch.no_grad():
        net.place.weight.zero_()
        net.place.bias.copy_(torch.tensor([y, x]))
        return net(torch.linspace(-1, 1, 5).unsqueeze(0))[0]


def test_a_shift_by_whole_pixels_is_the_shifted_image():
    net = generator()
    still, moved = placed(net, 0, 0), placed(net, 2, -3)
    torch.testing.assert_close(moved[:, 2:, :-3], still[:, :-2, 3:], rtol=0, atol=1e-5)
    assert still.std() > 0.1


def test_the_period_is_an_image_twice_as_large():
    net = generator()
    torch.testing.assert_close(placed(net, 24, -20), placed(net, 0, 0), rtol=0, atol=1e-4)
    assert (placed(net, 12, 0) - placed(net, 0, 0)).abs().max() > 0.1


def test_place_and_what_is_seen_have_noise_of_their_own():
    net, z = generator(), torch.randn(1, 5)
    elsewhere, other = z.clone(), z.clone()
    elsewhere[:, 3:] += 1
    other[:, :3] += 1
    parts = {name: (net.picture(x[:, :3]), net.place(x[:, 3:])) for name, x in
             (("z", z), ("elsewhere", elsewhere), ("other", other))}  # fmt: skip
    assert not torch.equal(net(z), net(elsewhere))
    for part, (same, different) in enumerate((("elsewhere", "other"), ("other", "elsewhere"))):
        assert torch.equal(parts["z"][part], parts[same][part])
        assert not torch.equal(parts["z"][part], parts[different][part])


def test_waves_are_all_of_their_length_or_more_and_each_direction_once():
    waves = plane_waves(6, 4, 3.0)
    brute = {
        (i, j) for i in range(-30, 31) for j in range(-30, 31) if math.hypot(i / 12, j / 8) <= 1 / 3 + 1e-9
    }  # periods of 12 and 8 pixels
    found = {(round(12 * y / (2 * math.pi)), round(8 * x / (2 * math.pi))) for y, x in waves}
    assert len(found) == len(waves)
    assert found | {(-i, -j) for i, j in found} == brute
    assert {(i, j) for i, j in found if (-i, -j) in found} == {(0, 0)}


def test_labels_change_what_is_seen():
    net, z = generator(classes=3), torch.randn(2, 5)
    assert not torch.equal(net(z, torch.tensor([0, 1])), net(z, torch.tensor([0, 2])))


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"place_features": 5}, "place_features=5 of 5 leaves nothing"), ({"shortest": 1.5}, "no wave shorter than 2")],
)
def test_what_cannot_be_is_said(fields, message):
    with pytest.raises(ValueError, match=message):
        build({"kind": "wave-generator", **fields}, 5, SHAPE)
