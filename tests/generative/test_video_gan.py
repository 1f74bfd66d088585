"""The GAN of clips: what an update does, which noise it takes, what it refuses."""

import pytest
import torch
from pydantic import ValidationError

from generative.video_gan import VideoGAN, VideoGANConfig, frames_of
from harness.learner import Lanes
from nets.lanes import Execution

TINY = {"batch": 4, "images": 400, "samples": 100, "motion_features": 4,
        "frame": {"hidden_features": 8, "depth": 1, "place_features": 4}, "image_net": {"hidden_features": 2},
        "video_net": {"hidden_features": 2}}  # fmt: skip


def started(**fields):
    learner = VideoGAN()
    return learner, learner.start(Lanes((VideoGANConfig(**{**TINY, **fields}),), (3,), Execution("loop")))


def test_one_frame_of_every_clip():
    clips = torch.arange(24.0).reshape(2, 3, 1, 2, 2)
    assert torch.equal(frames_of(clips, torch.tensor([2, 0])), torch.stack([clips[0, 2], clips[1, 0]]))


@pytest.mark.parametrize("name", ["image", "video"])
def test_penalties_of_either_discriminator_enter_its_own_steps(name):
    before = after = None
    for gamma in (0.0, 5.0):
        learner, state = started(**{f"gamma_{name}": gamma})
        learner.advance(state)
        before, after = after, state["params"]
    same = {key: all(torch.equal(a, after[key][n]) for n, a in before[key].items()) for key in before}
    assert not same[name]
    assert not same["g"]
    assert same["video" if name == "image" else "image"] is False  # through the generator


@pytest.mark.slow
def test_convolutions_as_lanes_equal_the_same_trial_alone():
    fields, seeds = {**TINY, "batch": 2}, (3, 4)
    states = []
    for chosen in (seeds, seeds[1:]):
        learner, config = VideoGAN(), VideoGANConfig(**fields)
        states.append(learner.start(Lanes((config,) * len(chosen), chosen, Execution("eager", dtype=torch.float64))))
        learner.advance(states[-1])
    together, alone = (state["params"] for state in states)
    for part, params in together.items():
        for name, p in params.items():
            torch.testing.assert_close(p[1], alone[part][name][0], rtol=1e-9, atol=1e-9)


def test_the_average_follows_the_generator():
    learner, state = started()
    learner.advance(state)
    old, new = state["params"]["ema"], state["params"]["g"]
    assert any(not torch.equal(old[name], p) for name, p in new.items())
    assert all((old[name] - p).abs().max() < 0.1 for name, p in new.items())


def test_the_first_samples_do_not_depend_on_how_many_there_are():
    learner, state = started()
    few, many = learner.sample(state, 3), learner.sample(state, 7)
    assert few.shape == (1, 3, 8, 1, 16, 16)
    torch.testing.assert_close(few, many[:, :3])
    assert 0 <= few.min() <= few.max() <= 1


def test_other_networks_train_as_well():
    """3-D convolutions and transposed ones: MoCoGAN's own."""
    kinds = {"frame": "dcgan-generator", "image_net": "dcgan", "video_net": "video-cnn"}
    learner, state = started(**{name: {"kind": kind, "hidden_features": 2} for name, kind in kinds.items()})
    before = {name: {n: p.clone() for n, p in params.items()} for name, params in state["params"].items()}
    metrics = learner.advance(state)
    assert all(torch.isfinite(value).all() for value in metrics.values())
    for name, params in before.items():
        assert any(not torch.equal(p, state["params"][name][n]) for n, p in params.items()), name


def test_content_stays_where_it_has_no_say_in_the_place():
    """One content, another motion: the same pictures, moved."""
    learner, state = started(content_features=3)
    net, z = learner.network(state, 0), torch.randn(1, learner.lanes.config.latent_features)
    other = z.clone()
    other[:, 3:] += 1.0
    seen: list[torch.Tensor] = []
    net.frame.picture.register_forward_hook(lambda _, __, made: seen.append(made))
    assert not torch.equal(net(z), net(other))
    torch.testing.assert_close(seen[0], seen[1])
    assert (seen[0] == seen[0][:1]).all()  # in every frame


def test_networks_are_the_average_generator_and_both_discriminators():
    learner, state = started()
    z = torch.randn(2, learner.lanes.config.latent_features)
    clips = learner.network(state, 0)(z)
    critics = learner.companions(state, 0)
    assert clips.shape == (2, 8, 1, 16, 16)
    assert critics["video"](clips).shape == critics["image"](clips[:, 0]).shape == (2, 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": "digits"}, "holds images; this learner makes video"),
        ({"frame": {"place_features": 5}}, "frame.place_features: content would decide the place"),
        ({"video_net": {"norm": "batch"}}, "video_net.norm: under R1 and R2"),
        ({"image_net": {"kind": "dcgan", "norm": "batch"}}, "image_net.norm: under R1 and R2"),
        ({"frame": {"kind": "r3gan-generator", "hidden_features": 3}}, "frame: group_features=16 does not divide"),
        ({"data": "moving-digits"}, "nothing judges clips of 'moving-digits': python -m .* moving_digits_clip"),
        ({"conditional": True}, "conditional: this learner makes clips of all labels"),
    ],
)
def test_what_cannot_be_is_refused_at_plan_time(fields, message):
    with pytest.raises(ValidationError, match=message):
        VideoGANConfig(**{**TINY, **fields})
