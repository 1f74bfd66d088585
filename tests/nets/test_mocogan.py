"""MoCoGAN's generator: content stays, motion is recurrent and causal, the noise is cut as documented."""

import pytest
import torch

from nets.mocogan import MoCoGANGenerator
from nets.registry import build

FRAME = {"kind": "mlp-generator", "hidden_features": 8, "depth": 1}
SHAPE = (5, 1, 4, 4)
CONTENT, MOTION, NOISE = 3, 4, 2
WIDTH = CONTENT + MOTION + 5 * NOISE


def generator() -> MoCoGANGenerator:
    torch.manual_seed(0)
    return MoCoGANGenerator(WIDTH, SHAPE, MOTION, NOISE, FRAME)


def test_clips_are_those_of_torchs_gru_and_the_frame_generator():
    net, z = generator(), torch.randn(2, WIDTH)
    gru = torch.nn.GRU(NOISE, MOTION, batch_first=True)
    gru.load_state_dict(net.motion.state_dict())
    motion, _ = gru(z[:, CONTENT + MOTION :].reshape(2, 5, NOISE), z[None, :, CONTENT : CONTENT + MOTION].contiguous())
    frames = [net.frame(torch.cat([z[:, :CONTENT], motion[:, t]], -1)) for t in range(5)]
    torch.testing.assert_close(net(z), torch.stack(frames, 1))


def test_a_frame_depends_on_the_noise_of_its_time_and_before():
    net, z = generator(), torch.randn(1, WIDTH)
    later = z.clone()
    later[:, CONTENT + MOTION + 3 * NOISE :] += 1
    before, after = net(z)[0], net(later)[0]
    assert torch.equal(before[:3], after[:3])
    assert all(not torch.equal(before[t], after[t]) for t in (3, 4))


@pytest.mark.parametrize(
    ("width", "shape", "message"),
    [(WIDTH, (1, 4, 4), "makes videos"), (MOTION + 5 * NOISE, SHAPE, "needs more than 14 noise features")],
)
def test_what_cannot_be_is_said(width, shape, message):
    with pytest.raises(ValueError, match=message):
        build({"kind": "mocogan-generator", "motion_features": 4, "noise_features": 2, "frame": FRAME}, width, shape)
