"""Image files as pixels: the depth of grey ones is kept, transparent ones lie on white, EXIF's rotation is applied."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.cards import DataError

__all__ = ["pixels", "scaled"]

BACKGROUND = 255  # white: what is behind transparent pixels
GREY = ("1", "L", "LA", "La")
COLOURED = ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "CMYK", "YCbCr", "HSV")
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
DEPTH = 257  # 65535 / 255: an 8-bit grey written with 16 bits


def pixels(file: Path) -> np.ndarray:
    """A grey image [H, W], uint8, uint16 or float32 in [0, 1]; any other uint8 [3, H, W].

    Transparent pixels are mixed with white. The file is turned as its EXIF orientation says.

    Raises:
        DataError: it cannot be read, has too many pixels or a mode that has no known range; names the file.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                found = _understood(ImageOps.exif_transpose(image), image.format or "")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{file}: more than {Image.MAX_IMAGE_PIXELS:,} pixels; scale it down") from None
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    except Exception as error:  # OSError and SyntaxError by PIL, and whatever its decoders raise
        raise DataError(f"{file}: not a readable image; replace or remove it ({error})") from None
    return found


def scaled(image: np.ndarray) -> np.ndarray:
    """Pixels of `pixels` as float32 in [0, 1], by the range of their type."""
    if image.dtype.kind == "f":
        return image
    return np.divide(image, np.float32(np.iinfo(image.dtype).max), dtype=np.float32)


def _understood(image: Any, kind: str) -> np.ndarray:
    """Pixels of an image of Pillow's.

    Raises:
        DataError: its mode has no known range.
    """
    if image.mode in SIXTEEN_BITS or (image.mode == "I" and kind == "PNG"):
        return _sixteen_bits(image)
    if image.mode == "F":
        return _floating(np.asarray(image, dtype=np.float32))
    if image.mode in GREY:
        return _flat(image, "L", "LA")
    if image.mode in COLOURED:
        return np.ascontiguousarray(_flat(image, "RGB", "RGBA").transpose(2, 0, 1))
    raise DataError(f"pixels of mode {image.mode} have no known range; save it with 8 or 16 bits a channel")


def _flat(image: Any, plain: str, layered: str) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3], mixed with the background where it is transparent."""
    if not image.has_transparency_data:
        return np.asarray(image.convert(plain))
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    parts = np.asarray(image.convert(layered)).astype(np.int32)
    colour, alpha = parts[..., :-1], parts[..., -1:]
    mixed = ((colour * alpha + BACKGROUND * (255 - alpha) + 127) // 255).astype(np.uint8)
    if np.ptp(mixed) == 0 and np.ptp(alpha):
        raise DataError("white on transparent cannot be seen on white; put a darker background behind it")
    return mixed[..., 0] if plain == "L" else mixed


def _sixteen_bits(image: Any) -> np.ndarray:
    """uint16, or uint8 where that is the same: then it is the image that an 8-bit file holds."""
    found = np.asarray(image).astype(np.int64)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        found = np.where(found == clear, BACKGROUND * DEPTH, found)
    if found.min() < 0 or found.max() > 65535:
        raise DataError("pixels beyond 16 bits have no known range; save it with 8 or 16 bits a channel")
    return (found // DEPTH).astype(np.uint8) if not (found % DEPTH).any() else found.astype(np.uint16)


def _floating(found: np.ndarray) -> np.ndarray:
    if not (found.min() >= 0 and found.max() <= 1):  # NaN is refused too
        raise DataError("pixels that are fractions must lie between 0 and 1; scale them")
    return found
