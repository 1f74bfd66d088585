"""Wrappers that change what is observed, and packages that bring environments."""

from __future__ import annotations

import importlib.util
import os

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib.common.wrappers import TimeFeatureWrapper

from agents.envs import describing
from agents.envs.catalogue import spec_of
from agents.envs.making import is_trusted, make_gym
from agents.envs.observing import TimeFeature

HERE = "tests.agents.envs.test_observing:"


class Counting(gymnasium.Env):
    """Counts its steps: the observation is [t, -t], the reward t; it ends after 7."""

    observation_space = spaces.Box(-9, 9, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, render_mode: str | None = None) -> None:
        self.t = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._seen(), {}

    def step(self, action):
        self.t += 1
        return self._seen(), float(self.t), self.t == 7, False, {}

    def _seen(self):
        return np.array([self.t, -self.t], np.float32)


class Process(gymnasium.Wrapper):
    """The observation names the process that it comes from."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = spaces.Box(0, np.inf, (1,), np.float64)

    def reset(self, **given):
        return np.array([os.getpid()], np.float64), self.env.reset(**given)[1]

    def step(self, action):
        _, *rest = self.env.step(action)
        return np.array([os.getpid()], np.float64), *rest


gymnasium.register("Counting-v0", entry_point=Counting, max_episode_steps=20)


def played(wrappers, actions, env=HERE + "Counting-v0", **options):
    """(observations with the first one, rewards, ends)."""
    env = make_gym(env, options, wrappers)
    seen, rewards, ends = [env.reset(seed=0)[0]], [], []
    for action in actions:
        obs, reward, terminated, _, _ = env.step(np.array([action], np.float32))
        assert obs in env.observation_space
        seen, rewards, ends = [*seen, obs], [*rewards, reward], [*ends, terminated]
    return seen, rewards, ends


def test_frames_are_skipped_until_the_end_and_their_rewards_added() -> None:
    seen, rewards, ends = played([{"frame-skip": {"skip": 3}}], [0, 0, 0])
    assert [obs[0] for obs in seen] == [0, 3, 6, 7]
    assert rewards == [6, 15, 7]
    assert ends == [False, False, True]


def test_history_is_what_was_seen_and_done_with_zeros_before_the_episode() -> None:
    seen, _, _ = played([{"history": {"horizon": 2}}], [0.5, -0.25])
    assert [obs.tolist() for obs in seen] == [[0, 0, 0, 0, 0, 0], [0, 0, 1, -1, 0, 0.5], [1, -1, 2, -2, 0.5, -0.25]]
    env = make_gym(HERE + "Counting-v0", {}, ["history"])
    assert env.observation_space.high.tolist() == [9, 9, 9, 9, 1, 1]
    for _ in range(2):  # nothing of an episode reaches the next one, and what was given stays as it was
        first, _ = env.reset(seed=0)
        env.step(np.ones(1, np.float32))
        assert first.tolist() == [0] * 6


@pytest.mark.parametrize("limit", [[], [{"time-limit": {"steps": 5}}]])
def test_the_time_that_is_left_is_that_of_sb3_contrib(limit) -> None:
    seen, _, _ = played([*limit, "time-feature"], [0] * 4)
    theirs = TimeFeatureWrapper(make_gym(HERE + "Counting-v0", {}, limit))
    expected = [theirs.reset(seed=0)[0], *(theirs.step(np.zeros(1, np.float32))[0] for _ in range(4))]
    np.testing.assert_array_equal(seen, expected)
    assert seen[4][2] == pytest.approx(1 - 4 / (5 if limit else 20))


def test_the_time_that_is_left_without_a_limit_and_beside_observations_by_name() -> None:
    bare = TimeFeature(Counting(), max_steps=10)
    bare.reset()
    assert bare.step(np.zeros(1))[0].tolist() == pytest.approx([1, -1, 0.9])
    space = spaces.Dict({"observation": Counting.observation_space, "goal": spaces.Discrete(2)})
    named = gymnasium.wrappers.TransformObservation(Counting(), lambda obs: {"observation": obs, "goal": 1}, space)
    obs, _ = TimeFeature(named).reset()
    assert (obs["observation"].tolist(), obs["goal"]) == ([0, 0, 1], 1)


def test_velocities_are_hidden() -> None:
    masked, plain = (played(w, [1.0], env="Pendulum-v1")[0][1] for w in (["mask-velocity"], []))
    np.testing.assert_array_equal(masked, plain * [1, 1, 0])
    assert plain[2] != 0


@pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="resizing needs OpenCV (extra atari)")
def test_pictures_are_resized_and_grey() -> None:
    class Coloured(Counting):
        observation_space = spaces.Box(0, 255, (6, 8, 3), np.uint8)

        def _seen(self):
            return np.full((6, 8, 3), (10 * self.t, 0, 0), np.uint8)

    gymnasium.registry.pop("Coloured-v0", None)
    gymnasium.register("Coloured-v0", entry_point=Coloured)
    wrappers = [{"resize": {"height": 3, "width": 4}}, "greyscale", {"frame-stack": {"frames": 2}}]
    seen, _, _ = played(wrappers, [0] * 7, env="Coloured-v0")
    assert seen[7].shape == (2, 3, 4)
    assert seen[7][0].max() == seen[7][0].min() == int(60 * 0.2125)
    assert seen[7][1].min() == int(70 * 0.2125)


@pytest.mark.parametrize(
    ("env", "wrappers", "sentence"),
    [
        ("Acrobot-v1", ["history"], "history: it needs actions that are vectors of numbers, not Discrete"),
        ("FrozenLake-v1", ["history"], "history: it needs observations that are vectors"),
        ("FrozenLake-v1", ["time-feature"], "time-feature: it needs observations that are vectors"),
        ("Acrobot-v1", ["mask-velocity"], "mask-velocity: it is for CartPole, MountainCar"),
        ("CartPole-v1", [{"frame-skip": {"skip": 0}}], "frame-skip: `skip` should be 1 or more, not 0"),
        ("CartPole-v1", ["resize"], "resize needs an option: write {resize: {height: ...}}"),
        ("CartPole-v1", [{"no_such.module:Wrapper": {"a": 1}}], "No module named 'no_such'"),
    ],
)
def test_a_wrapper_that_does_not_suit_says_why(env, wrappers, sentence) -> None:
    with pytest.raises(ValueError, match="wrappers: ") as caught:
        spec_of(env, {}, wrappers)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("env", "module", "sentence"),
    [
        (
            "HalfCheetahBulletEnv-v0",
            "pybullet_envs_gymnasium",
            "pybullet_envs_gymnasium: pip install pybullet_envs_gymnasium",
        ),
        ("PandaReach-v3", "panda_gym", "panda-gym: pip install panda-gym"),
        ("parking-v0", "highway_env", "highway-env: pip install highway-env"),
        ("FetchReach-v4", "gymnasium_robotics", "gymnasium-robotics: pip install gymnasium-robotics"),
        ("dm_control/acrobot-swingup-v0", "shimmy", "shimmy: pip install 'shimmy[dm-control]'"),
        ("PongNoFrameskip-v4", "ale_py", "ale-py: pip install 'seedbed[atari]'"),
        ("MiniGrid-Nowhere-v0", "minigrid", "minigrid: pip install 'seedbed[minigrid]'"),
    ],
)
def test_a_missing_package_is_named_and_nothing_else(env, module, sentence, monkeypatch) -> None:
    describing._description.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, module, None)
    monkeypatch.delitem(gymnasium.registry, env, raising=False)
    with pytest.raises(ValueError, match="environment") as caught:
        describing.describe(env, {}, [])
    assert str(caught.value) == f"environment '{env}' needs the package {sentence}"
    assert not describing._can_be_made(env)


def test_a_package_that_is_there_is_not_called_missing() -> None:
    if importlib.util.find_spec("mujoco") is None:
        pytest.skip("needs mujoco")
    with pytest.raises(ValueError, match="moved to the gymnasium-robotics project") as caught:
        spec_of("Reacher-v2", {}, [])
    assert "needs the package" not in str(caught.value)


@pytest.mark.parametrize("env", ["PongNoFrameskip-v4", "Pong-v4", "ALE/Pong-v5"])
def test_every_id_of_ale_is_found_and_skips_frames_once(env) -> None:
    if importlib.util.find_spec("ale_py") is None:
        pytest.skip("needs ale-py")
    made = make_gym(env, {}, ["atari"])
    assert made.unwrapped._frameskip == 1
    assert made.observation_space.shape == (4, 84, 84)
    assert is_trusted(env, ["atari"])
    made.close()


def test_a_wrapper_of_ones_own_gets_a_process_of_its_own() -> None:
    from tests.agents.envs.test_gym import start

    assert is_trusted("CartPole-v1", [{"gymnasium.wrappers:TimeAwareObservation": {}}, "frame-stack"])
    own = [{HERE + "Process": {}}]
    assert not is_trusted("CartPole-v1", own)
    assert spec_of("CartPole-v1", {}, own).obs_shape == (1,)
    envs, state, _ = start("CartPole-v1", steps=2, wrappers=own, n_envs=1, eval_episodes=1, seeds=(3,))
    try:
        _, rollout = envs.collect({}, state, 0)
        assert int(rollout.obs[0, 0, 0, 0]) not in (0, os.getpid())
    finally:
        envs.close()
