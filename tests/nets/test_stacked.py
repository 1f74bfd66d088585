"""Frames as channels: one convolution sees all of them."""

import pytest
import torch

from nets.registry import build


def test_a_clip_is_seen_as_an_image_whose_channels_are_its_frames():
    torch.manual_seed(0)
    net = build({"kind": "stacked-cnn", "hidden_features": 2}, (3, 2, 16, 12))
    clip = torch.randn(4, 3, 2, 16, 12)
    first = net.layers[0]
    assert first.weight.shape == (2, 6, 4, 4)
    stacked = torch.cat([clip[:, t] for t in range(3)], 1)
    torch.testing.assert_close(net(clip), net.layers(stacked))
    assert net.out_features == net(clip).shape[1] == 2 * 8 * 6


@pytest.mark.parametrize(("shape", "features"), [((16, 16), 8 * 16), ((1, 16, 16), 8 * 16), ((2, 1, 20, 20), 8 * 25)])
def test_images_and_clips_of_several_sizes(shape, features):
    assert build({"kind": "stacked-cnn", "hidden_features": 4}, shape).out_features == features


@pytest.mark.parametrize("shape", [(7,), (2, 1, 4, 16)])
def test_what_is_no_image_or_too_small_is_refused(shape):
    with pytest.raises(ValueError, match="encoder 'stacked-cnn'"):
        build({"kind": "stacked-cnn"}, shape)
