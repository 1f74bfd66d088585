"""Axes of pictures, what is scaled to 0 to 1, and MiniGrid's missions."""

import importlib.util

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation

from agents.envs.describing import describe
from agents.envs.making import _as_array, make_gym
from agents.envs.missions import BABYAI, FlatMission
from agents.envs.pictures import picture_last
from agents.envs.wrappers import flatten, wrap

BYTES, BITS = spaces.Box(0, 255, (6, 6, 3), np.uint8), spaces.Box(0, 1, (6, 6, 3), np.uint8)
needs_minigrid = pytest.mark.skipif(importlib.util.find_spec("minigrid") is None, reason="minigrid is not installed")


class Shows(gymnasium.Env):
    """Shows what its space gives."""

    action_space = spaces.Discrete(2)

    def __init__(self, space):
        self.observation_space = space

    def reset(self, *, seed=None, options=None):
        self.observation_space.seed(seed)
        self.seen = self.observation_space.sample()
        return self.seen, {}


def seen(space, wrappers=()):
    """(what the environment shows, what networks get, its space)."""
    bare = Shows(space)
    env = _as_array(wrap(bare, wrappers))
    obs, _ = env.reset(seed=1)
    assert obs.shape == env.observation_space.shape
    assert env.observation_space.contains(obs)
    return bare.seen, obs, env.observation_space


@pytest.mark.parametrize(
    ("shape", "last"),
    [
        ((84, 84, 3), True),
        ((3, 84, 84), False),
        ((4, 3, 84), False),
        ((84, 3, 4), True),
        ((3, 3, 3), True),  # MiniGrid with a view of 3 x 3
        ((7, 7, 20), True),
        ((10, 10, 10), True),  # MinAtar's Seaquest
        ((8, 84, 84), None),
        ((20, 30, 40), None),
    ],
)
def test_channels_are_last_unless_they_can_only_be_first(shape, last):
    assert picture_last(shape) is last


def test_one_hot_layers_keep_their_numbers():
    shown, obs, space = seen(spaces.Box(0, 1, (7, 7, 20), np.uint8))
    np.testing.assert_array_equal(obs, np.moveaxis(shown, -1, 0))
    assert (obs.dtype, space.high.max()) == (np.float32, 1)


def test_pictures_stay_bytes():
    shown, obs, _ = seen(BYTES)
    np.testing.assert_array_equal(obs, np.moveaxis(shown, -1, 0))
    assert obs.dtype == np.uint8
    assert seen(spaces.Box(0, 9, (6, 5), np.uint8))[1].dtype == np.float32


def test_a_stack_of_grey_frames_is_known_and_may_have_any_number():
    env = FrameStackObservation(Shows(spaces.Box(0, 255, (9, 8), np.uint8)), 7)
    obs, _ = _as_array(env).reset(seed=1)
    assert (obs.shape, obs.dtype) == ((7, 9, 8), np.uint8)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((8, 84, 80), "observations [8, 84, 80]: the first or the last axis may hold the channels; "),
        ((9, 9, 12), "observations of bytes in 12 channels are brightnesses from 0 to 255 (scaled: true) or codes"),
    ],
)
def test_what_cannot_be_told_is_asked(shape, sentence):
    with pytest.raises(ValueError, match=r"picture: {last: \.\.\.") as caught:
        seen(spaces.Box(0, 255, shape, np.uint8))
    assert sentence in str(caught.value)


def test_the_file_may_say_it():
    space = spaces.Box(0, 255, (8, 9, 10), np.uint8)
    shown, obs, _ = seen(space, [{"picture": {"last": False}}])
    assert (obs == shown).all()
    assert obs.dtype == np.uint8
    shown, obs, _ = seen(space, [{"picture": {"last": True, "scaled": False}}])
    np.testing.assert_array_equal(obs, np.moveaxis(shown, -1, 0))
    assert obs.dtype == np.float32
    _, obs, _ = seen(space, [{"picture": {"last": True}}, {"frame-stack": {"frames": 2}}])
    assert (obs.shape, obs.dtype) == ((20, 8, 9), np.uint8)


def test_pictures_inside_names_and_tuples_are_scaled():
    space = spaces.Dict({"a": spaces.Tuple((BYTES, spaces.Discrete(3))), "b": BITS})
    shown, obs, _ = seen(space)
    np.testing.assert_allclose(obs[:108], shown["a"][0].reshape(-1) / 255, rtol=1e-6)
    assert obs[:108].max() <= 1
    assert obs[108:111].sum() == 1
    np.testing.assert_array_equal(obs[111:], shown["b"].reshape(-1))
    shown, obs, _ = seen(BYTES, ["flatten"])
    np.testing.assert_allclose(obs, shown.reshape(-1) / 255, rtol=1e-6)
    shown, obs, _ = seen(BYTES, [{"flatten": {"scaled": False}}])
    np.testing.assert_array_equal(obs, shown.reshape(-1))


@needs_minigrid
def test_minigrids_codes_are_no_brightnesses():
    layers = ["minigrid.wrappers:OneHotPartialObsWrapper", "image-only"]
    colours = [{"minigrid.wrappers:RGBImgPartialObsWrapper": {"tile_size": 2}}, "image-only"]
    found = [describe("MiniGrid-Empty-5x5-v0", {}, wrappers) for wrappers in (["image-only"], layers, colours)]
    assert [(f["obs_shape"], f["obs_dtype"]) for f in found] == [
        ([3, 7, 7], "float32"), ([20, 7, 7], "float32"), ([3, 14, 14], "uint8"),
    ]  # fmt: skip


@needs_minigrid
def test_the_direction_and_the_mission_are_in_the_vector():
    env = make_gym("MiniGrid-Empty-5x5-v0", {}, ["flatten"])
    first, _ = env.reset(seed=1)
    turned, *_ = env.step(1)  # to the right
    assert (first[:4].tolist(), turned[:4].tolist()) == ([1, 0, 0, 0], [0, 1, 0, 0])
    inner = env.unwrapped
    np.testing.assert_array_equal(turned[4:151], inner.gen_obs()["image"].reshape(-1))
    letters = turned[151:].reshape(96, 29)
    assert "".join("abcdefghijklmnopqrstuvwxyz ,?"[row.argmax()] for row in letters if row.any()) == inner.mission


class Mission(spaces.Space):
    """As MiniGrid's, for one mission."""

    ordered_placeholders = None

    def __init__(self, text):
        super().__init__(dtype=str)
        self.mission_func = lambda: text


class Told(Shows):
    """A mission and a number."""

    def __init__(self, text, told):
        super().__init__(spaces.Dict({"mission": Mission(text), "n": spaces.Discrete(2)}))
        self.told = told

    def reset(self, *, seed=None, options=None):
        return {"mission": self.told, "n": 1}, {}


def test_there_is_room_for_the_longest_mission():
    long = "go to 2, " * 30
    env = flatten(Told(long, long))
    obs, _ = env.reset()
    assert obs.shape == (2 + 270 * 29,)
    assert obs[2:].reshape(270, 29).sum(1).tolist() == [1.0] * 270
    assert obs[2:].reshape(270, 29)[:, 28].sum() == 30  # the digit 2 is among "all others"
    with pytest.raises(ValueError, match=r"a mission of 270 letters, room for 96; write {flatten: {letters: 270}}"):
        flatten(Told("short", long)).reset()


@needs_minigrid
def test_babyais_long_missions_fit():
    env = make_gym("BabyAI-BossLevel-v0", {}, ["flatten"])
    inner = env
    while not isinstance(inner, FlatMission):
        inner = inner.env
    assert inner.letters == BABYAI
    thing = "a yellow ball in front of you"
    longest = " and ".join([f"put {thing} next to {thing}"] * 2)
    assert len(f"{longest}, then {longest}") <= BABYAI
    assert len(f"{longest} after you {longest}") <= BABYAI
    assert any(len(env.reset(seed=seed) and inner.mission[0]) > 96 for seed in range(20))
