"""MoCoGAN's generator: content stays, motion is recurrent, causal and summed, the noise is cut as documented."""

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
    state, code = net.begin(z[:, CONTENT : CONTENT + MOTION]).split(MOTION, 1)
    said, _ = gru(z[:, CONTENT + MOTION :].reshape(2, 5, NOISE), state[None].contiguous())
    frames = []
    for t in range(5):
        code = code + 0.25 * net.step(said[:, t])
        frames.append(net.frame(torch.cat([z[:, :CONTENT], code], -1)))
    torch.testing.assert_close(net(z), torch.stack(frames, 1))


def test_a_state_that_stays_is_a_steady_motion():
    net = generator()
    with torch.no_grad():  # the update gate shut: the state is what the noise of the start made it
        net.motion.get_parameter("bias_ih_l0")[MOTION : 2 * MOTION] = 50.0
    codes = []
    net.frame.register_forward_hook(lambda _, inputs, __: codes.append(inputs[0][:, CONTENT:]))
    net(torch.randn(1, WIDTH))
    steps = codes[0].diff(dim=0)
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))
    assert steps.abs().max() > 0


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
