"""Videos as animated GIFs: what every browser, W&B and a file manager show without a codec."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

__all__ = ["gif", "still"]

MOST_FRAMES = 200
SIZES = ((320, 1), (240, 1), (240, 2), (160, 2), (160, 4), (160, 8))  # (width, 1 of so many frames), tried in turn
SMALL_ENOUGH = 300_000
COLOURS = 64
SAMPLED = 16  # frames from which the palette is taken
LAST_SECONDS = 1.0  # the end stays to be seen before the video starts again


def gif(frames: np.ndarray, fps: float) -> bytes:
    """An endless animated GIF in real time: at most 200 frames, 320 pixels wide, of 300 kB unless all is noise.

    Of more frames every second, third ... is kept; all share one palette, so that only what moves is written.

    Args:
        frames: uint8 [T, H, W] or [T, H, W, 3], T >= 1.
        fps: frames per second.
    """
    stride = -(-len(frames) // MOST_FRAMES)
    kept = [Image.fromarray(frame).convert("RGB") for frame in frames[::stride]]
    for width, each in SIZES:
        encoded = _encoded([_narrowed(frame, width) for frame in kept[::each]], each * stride / fps)
        if len(encoded) <= SMALL_ENOUGH:
            break
    return encoded


def still(encoded: bytes) -> bytes:
    """The first frame of a GIF as a PNG.

    Raises:
        OSError: it is no GIF.
    """
    with Image.open(io.BytesIO(encoded), formats=("GIF",)) as image:
        out = io.BytesIO()
        image.convert("RGB").save(out, format="PNG", optimize=True)
    return out.getvalue()


def _narrowed(frame: Image.Image, width: int) -> Image.Image:
    if frame.width <= width:
        return frame
    return frame.resize((width, max(1, round(frame.height * width / frame.width))), Image.Resampling.BOX)


def _encoded(frames: list[Image.Image], seconds: float) -> bytes:
    """GIF of frames that each stay for so many seconds: whole hundredths, at least two, or browsers slow it down."""
    palette = _palette(frames)
    drawn = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    shown = max(20, 10 * round(100 * seconds))  # milliseconds
    durations = [shown] * (len(drawn) - 1) + [max(shown, round(1000 * LAST_SECONDS))]
    out = io.BytesIO()
    drawn[0].save(out, format="GIF", save_all=True, append_images=drawn[1:], duration=durations, loop=0, optimize=False)
    return out.getvalue()


def _palette(frames: list[Image.Image]) -> Image.Image:
    """One palette for all: the colours of frames at even steps."""
    chosen = [frames[k] for k in np.linspace(0, len(frames) - 1, min(SAMPLED, len(frames))).astype(int)]
    width, height = chosen[0].size
    strip = Image.new("RGB", (width, height * len(chosen)))
    for k, frame in enumerate(chosen):
        strip.paste(frame, (0, k * height))
    return strip.quantize(COLOURS, method=Image.Quantize.MEDIANCUT)
