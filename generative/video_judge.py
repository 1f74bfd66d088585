"""Judges clips by classifiers trained on real ones: what is seen, how it moves, whether it stays the same.

Definitions, all over N generated clips and all of the data's own definition of a cell (content x motion):

- recognised: the clip classifier's largest probability is at least 0.95; separately for content, motion, and both;
- consistent: the frame classifier gives all T frames, each seen alone, the same content;
- cell deviation: every clip counts in its most probable cell; the largest |share * cells - 1| over cells. Uniform draws
  alone have some 0.24 at N = 2,000 and 24 cells, 0.15 at N = 4,800;
- frechet_NAME: the distance to the held-out clips on the penultimate layer of extractor NAME: of whole clips, and of
  all their frames.

Legend: N clips, T frames, C contents, M motions.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from generative import extractors
from generative.extractors import Extractor, features
from generative.metrics import frechet_distance, moments
from harness import data
from harness.data.moving import CLIPS
from harness.learner import Media
from harness.randomness import generator
from harness.spec import Score

__all__ = ["CONFIDENT", "VideoJudge", "cell_shares", "clip_scores", "extractor_names", "filmstrips", "tiled"]

CONFIDENT = 0.95
SHOWN = 12  # clips of a picture
FPS = 8.0


def extractor_names(card: data.Card) -> dict[str, str]:
    """The two extractors of a set of clips: of the whole clip and of one frame."""
    return {part: f"{card.name.replace('-', '_')}_{part}" for part in ("clip", "frame")}


def cell_shares(content: Tensor, motion: Tensor) -> Tensor:
    """Shares of the cells, float64 [C, M]: every clip counts in its most probable one.

    Args:
        content: logits [N, C].
        motion: logits [N, M].
    """
    shape = (content.shape[1], motion.shape[1])
    cell = content.argmax(-1) * shape[1] + motion.argmax(-1)
    return torch.bincount(cell, minlength=shape[0] * shape[1]).double().reshape(shape) / len(cell)


def clip_scores(content: Tensor, motion: Tensor, frames: Tensor) -> dict[str, Tensor]:
    """What classifiers say of clips, as 0-dim float64 tensors; see the top of this file.

    Args:
        content: logits of whole clips [N, C].
        motion: likewise [N, M].
        frames: content logits of every frame alone [N, T, C].
    """
    sure = {name: x.softmax(-1).amax(-1) >= CONFIDENT for name, x in (("content", content), ("motion", motion))}
    seen = frames.argmax(-1)
    shares = cell_shares(content, motion) * content.shape[1] * motion.shape[1]
    return {
        "content_recognised": sure["content"].double().mean(),
        "motion_recognised": sure["motion"].double().mean(),
        "recognised": (sure["content"] & sure["motion"]).double().mean(),
        "consistent": (seen == seen[:, :1]).all(1).double().mean(),
        "cell_deviation": (shares - 1).abs().max(),
        "rarest_cell": shares.min(),
    }


class VideoJudge:
    """Judges clips of `harness.data.moving` by the two extractors of their set; see `generative.judge.Judge`.

    Raises:
        ValueError: another extractor is asked for.
    """

    fewest = 2

    def __init__(self, card: data.Card, extractor: str | nn.Module = "auto") -> None:
        if extractor != "auto":
            raise ValueError("clips are judged by their own two classifiers: leave the extractor at auto")
        self.card = card
        self.contents = len(CLIPS[card.name].contents)
        self.names = extractor_names(card)
        self.nets: dict[str, Extractor] = {part: extractors.extractor(name) for part, name in self.names.items()}
        self.reference = data.load(card.name)["test"].x
        self.moments = _reference_moments(card.name)

    @staticmethod
    def score(card: data.Card) -> Score:
        """The distance of whole clips."""
        return Score(f"frechet_{extractor_names(card)['clip']}", "min", worst=1e6)

    def scores(self, rows: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """Clips [N, T, 1, H, W] in [0, 1] to 0-dim float64 tensors; there is no label to hold them to."""
        found = {part: features(net, parts(rows)[part]) for part, net in self.nets.items()}
        clip, frame = (self.nets[part].logits(found[part].float()) for part in ("clip", "frame"))
        content, motion = clip.tensor_split([self.contents], -1)
        distances = {
            f"frechet_{name}": frechet_distance(moments(found[part]), self.moments[part])
            for part, name in self.names.items()
        }
        return distances | clip_scores(content, motion, frame.unflatten(0, rows.shape[:2]))

    def media(self, rows: Tensor, labels: Tensor | None) -> dict[str, Media]:
        """Clips that move, and their frames side by side, beside held-out ones."""
        samples, real = rows[:SHOWN].numpy(), self.reference[:SHOWN]
        moving = np.concatenate([tiled(samples), tiled(real)], axis=2)
        return {
            "clips": Media("video", moving, caption=f"left {SHOWN} generated clips, right held-out ones", fps=FPS),
            "filmstrips": Media(
                "image",
                filmstrips(samples),
                filmstrips(real),
                caption=f"{SHOWN} generated clips, a row each, frame by frame, beside held-out ones",
            ),
        }

    def frame(self, rows: Tensor, labels: Tensor | None) -> np.ndarray:
        """The filmstrips of the first clips."""
        return filmstrips(rows[:SHOWN].numpy())

    def real(self, count: int) -> tuple[Tensor, Tensor | None]:
        """Clips drawn afresh."""
        return torch.as_tensor(data.draw(self.card.name, generator(0, "judge/real"), (count,))), None


def parts(rows: Tensor) -> dict[str, Tensor]:
    """What either extractor sees of clips [N, T, ...]: the clips, and all frames [N * T, ...]."""
    return {"clip": rows, "frame": rows.flatten(0, 1)}


@cache
def _reference_moments(name: str) -> dict[str, tuple[Tensor, Tensor]]:
    seen = parts(torch.as_tensor(data.load(name)["test"].x.copy()))
    nets = {part: extractors.extractor(of) for part, of in extractor_names(data.card(name)).items()}
    return {part: moments(features(net, seen[part])) for part, net in nets.items()}


def _bytes(clips: np.ndarray) -> np.ndarray:
    """Clips [N, T, C, H, W] in [0, 1] as uint8 [N, T, H + 1, W + 1, C] with a grey line right and below."""
    framed = np.pad(clips, ((0, 0), (0, 0), (0, 0), (0, 1), (0, 1)), constant_values=0.3)
    return np.round(255 * framed.transpose(0, 1, 3, 4, 2)).astype(np.uint8)


def _scaled(picture: np.ndarray, scale: int) -> np.ndarray:
    """[..., H, W, C] with every pixel `scale` wide; without the channel axis where C is 1."""
    large = picture.repeat(scale, -3).repeat(scale, -2)
    return large[..., 0] if large.shape[-1] == 1 else large


def tiled(clips: np.ndarray, columns: int = 3, scale: int = 3) -> np.ndarray:
    """Clips [N, T, C, H, W] in [0, 1] side by side as one video, uint8 [T, rows * (H + 1) * scale, ...].

    Args:
        clips: N is a multiple of `columns`.
        columns: clips in a row.
        scale: width of a pixel.
    """
    n, t, height, width, channels = (framed := _bytes(clips)).shape
    grid = framed.reshape(n // columns, columns, t, height, width, channels).transpose(2, 0, 3, 1, 4, 5)
    return _scaled(grid.reshape(t, n // columns * height, columns * width, channels), scale)


def filmstrips(clips: np.ndarray, scale: int = 3) -> np.ndarray:
    """Clips [N, T, C, H, W] in [0, 1] as one picture: a row each, time to the right, a pixel `scale` wide."""
    n, t, height, width, channels = (framed := _bytes(clips)).shape
    return _scaled(framed.transpose(0, 2, 1, 3, 4).reshape(n * height, t * width, channels), scale)
