"""The vision transformer: an image as a sequence of patches."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nets.positions import LearnedPositions
from nets.registry import register
from nets.regularise import Dropout
from nets.transformer import TransformerStack

__all__ = ["ViT", "patches"]


def patches(x: Tensor, size: int) -> Tensor:
    """Cuts images into squares, row by row.

    Args:
        x: [B, C, H, W]; `size` divides H and W.
        size: height and width of a patch.

    Returns:
        [B, (H / size) (W / size), C size size]: a linear layer on it is a convolution with that stride.
    """
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height // size, size, width // size, size)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


@register("vit", role="encoder")
class ViT(nn.Module):
    """Vision transformer (Dosovitskiy et al. 2021).

    Initialisation: torch's for linear layers; positions and class token normal with deviation 0.02.

    Args:
        in_shape: (C, H, W), or (H, W) for one channel.
        patch: height and width of a patch, in pixels.
        hidden_features: width of every token inside, and of the output.
        depth: how many blocks.
        heads: of each attention.
        expansion: the perceptrons are so many times as wide.
        activation: of the perceptrons, a name in `nets.activations`.
        norm: "layer" or "rms".
        dropout: the share dropped in training of the attention's weights and of what blocks add.
        drop_path: the probability that a row skips the last block's parts in training; less for earlier ones.
        pool: the output: the "class" token of the paper, or the "mean" of all patches.

    Raises:
        ValueError: the shape is no image, or the patches do not fill it.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        patch: int = 4,
        hidden_features: int = 64,
        depth: int = 4,
        heads: int = 4,
        expansion: int = 4,
        activation: str = "gelu",
        norm: Literal["layer", "rms"] = "layer",
        dropout: float = 0.0,
        drop_path: float = 0.0,
        pool: Literal["class", "mean"] = "class",
    ) -> None:
        super().__init__()
        if len(in_shape) not in (2, 3):
            raise ValueError(f"a vit takes images (C, H, W) or (H, W); not the shape {tuple(in_shape)}")
        channels, height, width = (1, *in_shape)[-3:]
        if height % patch or width % patch:
            raise ValueError(f"patch: patches of {patch} x {patch} do not fill an image of {height} x {width}")
        tokens = (height // patch) * (width // patch)
        self.embed = nn.Linear(channels * patch**2, hidden_features)
        if pool == "class":
            self.class_token = nn.Parameter(0.02 * torch.randn(hidden_features))
        self.position = LearnedPositions(tokens + (pool == "class"), hidden_features)
        self.dropout = Dropout(dropout)
        self.stack = TransformerStack(
            hidden_features,
            depth,
            expansion,
            norm,
            drop_path=drop_path,
            heads=heads,
            activation=activation,
            dropout=dropout,
        )
        self.patch = patch
        self.pool = pool
        self.out_features = hidden_features

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] or [B, H, W] to [B, hidden_features]."""
        x = self.embed(patches(x.unsqueeze(1) if x.dim() == 3 else x, self.patch))
        if self.pool == "class":
            x = torch.cat([self.class_token.expand(x.shape[0], 1, -1), x], dim=1)
        x = self.stack(self.dropout(self.position(x)))
        return x[:, 0] if self.pool == "class" else x.mean(1)
