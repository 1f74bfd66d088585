"""Videos as GIFs: in real time, with the frames' own colours, small, and readable again."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

from harness.gif import SMALL_ENOUGH, gif, still


def shown(encoded: bytes) -> tuple[list[np.ndarray], list[int]]:
    """(frames as RGB, milliseconds of each)."""
    with Image.open(io.BytesIO(encoded), formats=("GIF",)) as image:
        pairs = [(np.array(f.convert("RGB")), f.info["duration"]) for f in ImageSequence.Iterator(image)]
    return [frame for frame, _ in pairs], [duration for _, duration in pairs]


def squares(count: int, height: int = 40, width: int = 60) -> np.ndarray:
    """A square that moves by one pixel a frame."""
    frames = np.zeros((count, height, width, 3), dtype=np.uint8)
    for k in range(count):
        frames[k, 10:20, k % (width - 10) : k % (width - 10) + 10] = (255, 176, 59)
    return frames


def test_frames_come_back_as_they_were():
    frames, durations = shown(gif(squares(30), 25.0))
    np.testing.assert_array_equal(frames, squares(30))
    assert durations == [40] * 29 + [1000]


def test_grey_frames():
    grey = np.repeat(np.arange(0, 250, 25, dtype=np.uint8)[:, None, None], 8, axis=1).repeat(9, axis=2)
    frames, _ = shown(gif(grey, 10.0))
    np.testing.assert_array_equal([frame[0, 0] for frame in frames], np.arange(0, 250, 25)[:, None].repeat(3, axis=1))


@pytest.mark.parametrize(("count", "fps", "kept", "each"), [(200, 50.0, 200, 20), (1000, 50.0, 200, 100)])
def test_long_videos_keep_their_speed(count, fps, kept, each):
    frames, durations = shown(gif(squares(count), fps))
    assert len(frames) == kept
    assert durations[:-1] == [each] * (kept - 1)


def test_equal_frames_are_one_that_lasts():
    frames, durations = shown(gif(np.zeros((50, 8, 8, 3), dtype=np.uint8), 25.0))
    assert len(frames) == 1
    assert durations == [49 * 40 + 1000]


def test_large_frames_become_small():
    noisy = np.random.default_rng(0).integers(0, 255, (120, 400, 600, 3), dtype=np.uint8)
    noisy[:, :, 40:] = 255
    encoded = gif(noisy, 25.0)
    frames, _ = shown(encoded)
    assert len(encoded) <= SMALL_ENOUGH
    assert frames[0].shape[1] <= 320
    assert frames[0].shape[0] == round(frames[0].shape[1] * 400 / 600)


def test_one_frame_and_its_still():
    (frame,), _ = shown(gif(squares(1), 25.0))
    with Image.open(io.BytesIO(still(gif(squares(5), 25.0))), formats=("PNG",)) as image:
        np.testing.assert_array_equal(np.array(image), frame)
    with pytest.raises(OSError, match="cannot identify"):
        still(b"GIF89a but nothing behind it")
