"""What the pixels of an image file mean: its depth, its transparency, its orientation; what is not understood."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from harness import data
from harness.data import own
from harness.data.image_files import pixels, scaled

RAMP = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


def saved(folder, image, name="a.png", **how):
    image.save(folder / name, **how)
    return folder / name


def test_sixteen_bits_of_grey_are_a_share_of_their_own_range(tmp_path):
    deep = np.array([[0, 1000, 32768], [40000, 65534, 65535]], np.uint16)
    found = pixels(saved(tmp_path, Image.fromarray(deep)))
    assert found.dtype == np.uint16
    np.testing.assert_allclose(scaled(found), deep / 65535, rtol=1e-6)


def test_eight_bits_written_with_sixteen_are_the_same_image(tmp_path):
    found = pixels(saved(tmp_path, Image.fromarray(RAMP.astype(np.uint16) * 257)))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels(saved(tmp_path, Image.fromarray(RAMP))))


def test_what_is_only_in_alpha_is_seen_on_white(tmp_path):
    black = np.zeros_like(RAMP)
    grey = Image.merge("LA", [Image.fromarray(black), Image.fromarray(RAMP)])
    np.testing.assert_array_equal(pixels(saved(tmp_path, grey)), 255 - RAMP)
    colour = Image.merge("RGBA", [*[Image.fromarray(black)] * 3, Image.fromarray(RAMP)])
    np.testing.assert_array_equal(pixels(saved(tmp_path, colour)), np.stack([255 - RAMP] * 3))


def test_half_transparent_colours_are_mixed_with_white(tmp_path):
    image = Image.new("RGBA", (2, 1), (200, 100, 0, 51))  # a fifth
    assert pixels(saved(tmp_path, image))[:, 0, 0].tolist() == [244, 224, 204]
    opaque = Image.new("RGBA", (2, 1), (200, 100, 0, 255))
    assert pixels(saved(tmp_path, opaque))[:, 0, 0].tolist() == [200, 100, 0]


def test_palettes_with_and_without_transparency(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 0, 255, 0, 0, 0])
    image.putdata([0, 1, 2])
    plain = pixels(saved(tmp_path, image))
    assert plain[:, 0].T.tolist() == [[255, 0, 0], [0, 0, 255], [0, 0, 0]]
    clear = pixels(saved(tmp_path, image, transparency=1))
    assert clear[:, 0].T.tolist() == [[255, 0, 0], [255, 255, 255], [0, 0, 0]]
    shares = pixels(saved(tmp_path, image, transparency=bytes([255, 255, 51])))
    assert shares[:, 0].T.tolist() == [[255, 0, 0], [0, 0, 255], [204, 204, 204]]


def test_a_transparent_colour_of_an_image_without_alpha(tmp_path):
    grey = pixels(saved(tmp_path, Image.fromarray(RAMP), transparency=20))
    np.testing.assert_array_equal(grey, np.where(RAMP == 20, 255, RAMP))
    deep = RAMP.astype(np.uint16) * 100
    found = pixels(saved(tmp_path, Image.fromarray(deep), transparency=2000))
    np.testing.assert_array_equal(found, np.where(deep == 2000, 65535, deep))


@pytest.mark.parametrize(("turn", "expected"), [(6, np.rot90(RAMP, -1)), (3, RAMP[::-1, ::-1]), (2, RAMP[:, ::-1])])
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_the_orientation_is_applied(tmp_path, turn, expected, name):
    big = Image.fromarray(np.kron(RAMP, np.ones((16, 16), np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = turn
    found = pixels(saved(tmp_path, big, name, exif=exif, **({"quality": 100} if name == "a.jpg" else {})))
    np.testing.assert_allclose(found[8::16, 8::16], expected, atol=4)


def test_inks_and_fractions_are_understood(tmp_path):
    inks = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert pixels(saved(tmp_path, inks, "a.jpg", quality=100))[:, 8, 8].tolist() == pytest.approx([0, 255, 255], abs=3)
    fractions = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(scaled(pixels(saved(tmp_path, Image.fromarray(fractions), format="TIFF"))), fractions)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("F", (2, 2), 3.0), r"a\.png: pixels that are fractions must lie between 0 and 1"),
        (Image.new("I", (2, 2), 70000), r"a\.png: pixels of mode I have no known range"),
        (Image.new("LAB", (2, 2)), r"a\.png: pixels of mode LAB have no known range"),
    ],
)
def test_a_mode_without_a_known_range_is_named(tmp_path, image, message):
    with pytest.raises(data.DataError, match=message):
        pixels(saved(tmp_path, image, format="TIFF"))


def test_white_on_transparent_is_named(tmp_path):
    image = Image.merge("LA", [Image.new("L", (4, 3), 255), Image.fromarray(RAMP)])
    with pytest.raises(data.DataError, match=r"a\.png: white on transparent cannot be seen on white"):
        pixels(saved(tmp_path, image))


def test_a_bomb_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8)
    with pytest.raises(data.DataError, match=r"a\.png: more than 8 pixels; scale it down"):
        pixels(saved(tmp_path, Image.fromarray(RAMP)))


def test_a_folder_may_hold_both_depths(tmp_path):
    own.opened.cache_clear()
    for label in ("dark", "light"):
        (tmp_path / label).mkdir()
        for i in range(6):
            share = (i + 1) / 7
            deep = Image.fromarray(np.full((2, 2), round(65535 * share), np.uint16))
            flat = Image.fromarray(np.full((2, 2), round(255 * share), np.uint8))
            saved(tmp_path / label, deep if i % 2 else flat, f"{i}.png")
    splits = data.load(str(tmp_path))
    found = sorted(float(x.max()) for rows in splits.values() for x in rows.x)
    np.testing.assert_allclose(found, np.repeat((np.arange(6) + 1) / 7, 2), atol=2e-3)
    assert next(iter(splits.values())).x.dtype == np.float32
