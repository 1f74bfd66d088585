"""MoCoGAN's generator: what is seen is drawn once for a clip, how it moves by a recurrent network.

Paper: Tulyakov, Liu, Yang & Kautz 2018, "MoCoGAN: Decomposing Motion and Content for Video Generation", section 3. From
it: one content code a clip, a GRU whose state starts as noise and takes fresh noise at every frame, one image generator
for all frames.
Deliberate differences:
- all noise of a clip comes as one vector, so that it is sampled, interpolated and exported as every generator here;
- the image generator is any of `nets`, called for all frames at once;
- the GRU's update gate starts near open (bias 2), as forget gates of LSTMs do, or the last frames would know nothing of
  the state that the first had;
- the noise of the start passes a perceptron (StyleGAN's mapping, Karras et al. 2019) that makes the GRU's first state
  and the motion code before the first frame together: where a thing may start depends on where it goes;
- the motion code is a sum of what the GRU says at every frame, not its state itself: steady motion is then a state
  that stays.

Legend: B clips, T frames, Z_C content features, Z_M motion features, E noise features of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nets.mlp import MLP
from nets.recurrent import Recurrent
from nets.registry import build, register

__all__ = ["MoCoGANGenerator"]

STEP = 0.25  # weight of what the state says in one frame: steps of all frames together weigh about as much as the start


@register("mocogan-generator", role="generator")
class MoCoGANGenerator(nn.Module):
    """Clips from a content code and a recurrent motion code (Tulyakov et al. 2018).

    Of its in_features `motion_features` start the recurrent network, T * `noise_features` drive it, and the rest, which
    comes first, is the content. A frame's generator takes the content and behind it the motion code.

    Args:
        in_features: Z_C + motion_features + T * noise_features.
        out_shape: (T, C, H, W).
        motion_features: Z_M, width of the recurrent network's state, the motion code of a frame.
        noise_features: E, width of the noise that each frame adds to the motion.
        frame: configuration of the image generator; None stands for {"kind": "dcgan-generator", "norm": "layer"}.
        hidden_features: width of the two hidden layers that the noise of the start passes.

    Raises:
        ValueError: no video, or nothing is left for the content.
    """

    def __init__(
        self,
        in_features: int,
        out_shape: tuple[int, ...],
        motion_features: int = 16,
        noise_features: int = 1,
        frame: Mapping[str, Any] | None = None,
        hidden_features: int = 64,
    ) -> None:
        super().__init__()
        if len(out_shape) != 4:
            raise ValueError(f"'mocogan-generator' makes videos (time, channels, height, width), not {out_shape}")
        frames, *image = out_shape
        moving = motion_features + frames * noise_features
        if in_features <= moving:
            raise ValueError(
                f"'mocogan-generator' needs more than {moving} noise features for the motion of {frames} frames "
                f"(motion_features + frames * noise_features); in_features is {in_features}"
            )
        self.content_features = in_features - moving
        self.motion_features = motion_features
        self.out_shape = tuple(out_shape)
        self.begin = MLP(motion_features, [hidden_features] * 2, 2 * motion_features, "leaky_relu")
        self.motion = Recurrent(noise_features, motion_features, "gru")
        with torch.no_grad():  # torch's order of gates: reset, update, candidate
            self.motion.get_parameter("bias_ih_l0")[motion_features : 2 * motion_features] += 2.0
        self.step = nn.Linear(motion_features, motion_features)
        self.frame = build(
            frame or {"kind": "dcgan-generator", "norm": "layer"}, self.content_features + motion_features, tuple(image)
        )

    def forward(self, z: Tensor) -> Tensor:
        """[B, in_features] to [B, *out_shape], pixels in [-1, 1]."""
        batch, frames = z.shape[0], self.out_shape[0]
        content, start, steps = z.tensor_split([self.content_features, self.content_features + self.motion_features], 1)
        state, before = self.begin(start).chunk(2, -1)
        states, _ = self.motion(steps.reshape(batch, frames, -1), state.unsqueeze(0))  # [B, T, Z_M]
        motion = before.unsqueeze(1) + STEP * self.step(states).cumsum(1)
        code = torch.cat([content.unsqueeze(1).expand(-1, frames, -1), motion], -1)
        return self.frame(code.flatten(0, 1)).reshape(batch, *self.out_shape)
