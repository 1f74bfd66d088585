"""The adapter for Gymnasium: spaces, wrappers, masks, time limits, processes, evaluation; real environments by id."""

import importlib.util
import json
import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from agents.envs import EnvConfig, make_environments
from agents.envs import gym as adapter
from agents.envs.describing import check, describe
from agents.envs.making import is_trusted, make_gym
from agents.envs.wrappers import EpisodicLife, FireReset
from harness.learner import LaneError, Lanes
from nets.lanes import Execution

HERE = "tests.agents.broken_env:"


class Config(EnvConfig):
    """Of a learner that only acts."""

    @property
    def chunk(self):
        return 16


def at_random(space):
    """A policy: any action from the noise; without noise the first one that is allowed."""

    def policy(params, carry, obs, mask, u):
        if mask.shape[-1] and not space.shape:
            scores = mask.to(torch.float64) * (1 if u is None else 1 + u[..., None])
            scores = scores + mask * torch.arange(mask.shape[-1]) * (0 if u is None else u[..., None])
            return scores.argmax(-1), carry
        u = torch.full((*obs.shape[:1], *space.shape), 0.3) if u is None else u
        if space.kind == "box":
            return u, carry
        if space.kind == "multi-binary":
            return (u < 0.5).to(u.dtype), carry
        return (u * torch.tensor(space.counts if space.shape else space.counts[0])).long(), carry

    return policy


def start(env, steps=16, seeds=(3, 4), dtype=torch.float32, policy=None, carry=None, **fields):
    """(environments, their state, lanes)."""
    config = Config(env=env, **{"n_envs": 2, "eval_episodes": 3, **fields})
    lanes = Lanes((config,) * len(seeds), tuple(seeds), Execution(dtype=dtype))
    action = config.env_spec.action
    fit = "scale" if action.kind == "box" and action.bounded else "clip"
    envs = make_environments(policy or at_random(action), lanes, steps, fit=fit, carry=carry)
    assert isinstance(envs, adapter.GymEnvironments)
    return envs, envs.start(), lanes


@pytest.mark.parametrize(
    ("env", "wrappers", "needs", "obs"),
    [
        ("LunarLander-v3", ["normalise-observations", "normalise-rewards"], "Box2D", (8,)),
        ("BipedalWalker-v3", [{"time-limit": {"steps": 20}}], "Box2D", (24,)),
        ("ALE/Breakout-v5", ["atari", {"time-limit": {"steps": 8}}], "ale_py", (4, 84, 84)),
        ("MiniGrid-Empty-5x5-v0", ["image-only", {"time-limit": {"steps": 8}}], "minigrid", (3, 7, 7)),
        ("MiniGrid-Empty-5x5-v0", ["flatten", {"time-limit": {"steps": 8}}], "minigrid", (2935,)),
        ("Hopper-v5", [], "mujoco", (11,)),
        ("FrozenLake-v1", [], "gymnasium", (16,)),
    ],
)
def test_environments_run_by_id(env, wrappers, needs, obs):
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"{env} needs {needs}, which is not installed")
    envs, state, _ = start(env, steps=4, wrappers=wrappers, n_envs=1, eval_episodes=1, seeds=(3,))
    state, rollout = envs.collect({}, state, 0)
    assert rollout.obs.shape == (1, 4, 1, *obs)
    assert (rollout.obs.dtype == torch.uint8) == (env == "ALE/Breakout-v5")
    assert torch.isfinite(envs.evaluate({}, state, 4, 1)).all()
    envs.close()


@pytest.mark.parametrize("actions", ["start", "multi", "bits", "box"])
def test_every_space_of_actions_arrives_as_the_environment_has_it(actions, monkeypatch):
    monkeypatch.setattr("agents.envs.describing.is_trusted", lambda *_: True)  # no process: seconds
    limit = {"time-limit": {"steps": 5}}
    options = {"actions": actions}
    envs, state, _ = start(HERE + "Odd-v0", env_options=options, wrappers=[limit], env_workers=0)
    _, rollout = envs.collect({}, state, 0)  # the environment asserts that its space contains the action
    assert rollout.action.shape == (2, 16, 2, *envs.spec.action.shape)
    assert rollout.truncated[0, :, 0].nonzero().flatten().tolist() == [4, 9, 14]
    envs.close()


@pytest.mark.parametrize(
    ("seen", "shape", "kind"),
    [
        ("number", (4,), "float32"),
        ("scalar", (1,), "float32"),
        ("multi", (5,), "float32"),
        ("bits", (3,), "float32"),
        ("dict", (7,), "float64"),
        ("tuple", (5,), "float64"),
        ("picture", (3, 6, 5), "uint8"),
        ("grey", (1, 6, 5), "uint8"),
    ],
)
def test_observations_become_arrays(seen, shape, kind):
    env = make_gym(HERE + "Odd-v0", {"seen": seen}, [])
    obs, _ = env.reset(seed=1)
    assert (obs.shape, env.observation_space.shape) == (shape, shape)
    found = describe(HERE + "Odd-v0", {"seen": seen}, [])
    assert (found["obs_shape"], found["obs_dtype"]) == (list(shape), kind)


def test_pictures_keep_their_pixels():
    bare = gymnasium.make(HERE + "Odd-v0", seen="picture", disable_env_checker=True)
    expected, _ = bare.reset(seed=1)
    obs, _ = make_gym(HERE + "Odd-v0", {"seen": "picture"}, []).reset(seed=1)
    np.testing.assert_array_equal(obs[2], expected[:, :, 2])
    stacked, _ = make_gym(HERE + "Odd-v0", {"seen": "picture"}, [{"frame-stack": {"frames": 2}}]).reset(seed=1)
    np.testing.assert_array_equal(stacked[5], expected[:, :, 2])


@pytest.mark.parametrize(
    ("wrappers", "sentence"),
    [
        (["frame-stak"], "did you mean `frame-stack`"),
        (["zzz"], "known: time-limit, frame-stack, atari, clip-rewards, rescale-actions, image-only, flatten, fra"),
        ([{"frame-stack": {"frame": 3}}], "did you mean `frames`"),
        ([{"frame-stack": {"frames": "3"}}], "`frames` should be a whole number, not '3'"),
        ([{"frame-stack": {"frames": True}}], "should be a whole number, not True"),
        (["time-limit"], "write {time-limit: {steps: ...}}"),
        ([{"clip-rewards": {"a": 1}}], "takes no options"),
        ([{"normalise-rewards": {"clip": 5}}], "write it as a plain name"),
        (["no.such:Wrapper"], "No module named 'no'"),
        (["rescale-actions"], "requires a Box action space"),
        (["image-only"], "have no `image`"),
        (["atari"], "games of ALE"),
    ],
)
def test_wrappers_are_refused_with_the_mend(wrappers, sentence):
    with pytest.raises(ValidationError) as caught:
        Config(env="CartPole-v1", wrappers=wrappers)
    assert sentence in str(caught.value)


def test_a_wrapper_of_ones_own_and_rewards_by_their_sign():
    env = make_gym("CartPole-v1", {}, ["gymnasium.wrappers:TimeAwareObservation", {"time-limit": {"steps": 3}}])
    assert env.reset(seed=0)[0].shape == (5,)
    clipped = ["clip-rewards"]
    for evaluating, reward in ((False, -1.0), (True, -16.0)):
        env = make_gym("Pendulum-v1", {}, clipped, evaluating)
        env.reset(seed=0)
        found = [env.step(np.zeros(1, np.float32))[1] for _ in range(9)]
        assert min(found) == -1.0 if not evaluating else reward < min(found) < -1.0


def test_actions_rescaled():
    env = make_gym("Pendulum-v1", {}, ["rescale-actions"])
    assert (env.action_space.low, env.action_space.high) == (-1, 1)


class Lives(gymnasium.Env):
    """Three lives of two steps each."""

    action_space, observation_space = gymnasium.spaces.Discrete(2), gymnasium.spaces.Box(0, 9, (1,))
    ale = property(lambda self: self)

    def lives(self):
        return 3 - self.taken // 2

    def reset(self, *, seed=None, options=None):
        self.taken, self.games = 0, getattr(self, "games", 0) + 1
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.taken += 1
        return np.full(1, self.taken, np.float32), 1.0, self.taken == 6, False, {}


def test_a_lost_life_ends_an_episode_and_the_game_goes_on():
    game = Lives()
    env = EpisodicLife(game)
    env.reset()
    assert [env.step(0)[2] for _ in range(2)] == [False, True]
    env.reset()  # an idle step in the same game
    assert (game.games, game.taken) == (1, 3)
    assert env.step(0)[2]
    env.reset(seed=3)  # a seed starts a new one
    assert game.games == 2
    for _ in range(2):
        env.step(0)
    env.reset(), env.step(0), env.reset()
    assert env.step(0)[2]
    env.reset()
    assert game.games == 3


class Waits(Lives):
    """Two lives of a game that stands still until FIRE is pressed, then loses a life at once for action 3."""

    action_space = gymnasium.spaces.Discrete(4)

    def lives(self):
        return self.left

    def reset(self, *, seed=None, options=None):
        self.left, self.fired, self.pressed = 2, False, []
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.pressed.append(action)
        self.fired = self.fired or action == 1
        lost = self.fired and action == 3
        self.left -= lost
        self.fired = self.fired and not lost
        return np.zeros(1, np.float32), float(action == 2), self.left == 0, False, {}


def test_fire_is_pressed_for_every_life_in_evaluation_as_in_training():
    game = Waits()
    env = FireReset(game)
    env.reset()
    _, reward, terminated, _, _ = env.step(3)
    assert (game.pressed, reward, terminated) == ([1, 2, 3, 0, 1, 2], 1.0, False)
    assert env.step(3)[2]
    training = FireReset(EpisodicLife(game))
    training.reset()
    assert training.step(3)[2]
    training.reset()
    assert game.pressed == [1, 2, 3, 0, 1, 2]


def test_breakout_is_played_to_its_last_life():
    if importlib.util.find_spec("ale_py") is None:
        pytest.skip("Breakout needs ale_py, which is not installed")

    def to_the_right(params, carry, obs, mask, noise):
        return torch.full(obs.shape[:1], 2), carry  # never FIRE

    wrappers = [{"atari": {"screen_size": 36, "frames": 1, "noop_max": 0, "frame_skip": 12}}]
    envs, state, lanes = start(
        "ALE/Breakout-v5", policy=to_the_right, wrappers=wrappers, n_envs=1, eval_episodes=1, seeds=(3,)
    )
    envs.evaluate({}, state, 0, 1)
    slot = envs.vector.engine._slots[1]
    assert slot.env.get_wrapper_attr("ale").lives() == 0
    assert lanes.warnings == {}
    envs.close()


@pytest.mark.parametrize("env", ["Masked-v0", "Told-v0"])
def test_masks_reach_the_policy(env, monkeypatch):
    monkeypatch.setattr("agents.envs.describing.is_trusted", lambda *_: True)
    envs, state, _ = start(HERE + env, env_workers=0)
    assert envs.spec.masked
    state, rollout = envs.collect({}, state, 0)
    assert (rollout.mask[..., 0] == (rollout.obs[..., 0] >= 0)).all()
    assert (rollout.next_mask[..., 0] == (rollout.next_obs[..., 0] >= 0)).all()
    assert not rollout.mask[..., 2].any()
    assert not rollout.mask[..., 0].all()
    assert (rollout.reward >= 0).all()  # no action that is not allowed
    assert (envs.evaluate({}, state, 16, 3) >= 0).all()
    envs.close()


def test_a_time_limit_gives_what_was_seen_before_the_reset():
    envs, state, _ = start("MountainCar-v0", steps=201, n_envs=1, wrappers=[{"time-limit": {"steps": 150}}])
    _, rollout = envs.collect({}, state, 0)
    assert rollout.truncated[0, :, 0].nonzero().flatten().tolist() == [149]
    assert not rollout.terminated.any()
    assert rollout.episode[0, 149, 0] == -150
    assert torch.equal(rollout.next_obs[:, :149], rollout.obs[:, 1:150])
    assert not torch.equal(rollout.next_obs[0, 149], rollout.obs[0, 150])
    envs.close()


def test_processes_and_this_process_give_the_same_numbers():
    found = []
    for workers in (0, 2):
        envs, state, _ = start("CartPole-v1", env_options={"max_episode_steps": 30}, env_workers=workers, seeds=(3,))
        state, rollout = envs.collect({}, state, 0)
        found.append((*rollout, envs.evaluate({}, state, 16, 3), envs.evaluate({}, state, 16, 3, sampled=True)))
        ids = [p.process.pid for p in envs.vector.engine._running.values()] if workers else []
        assert len(ids) == workers
        envs.close()
        assert not any(os.path.exists(f"/proc/{pid}") for pid in ids)
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_worker_processes_do_without_torch():
    modules = "agents.envs.serving, agents.envs.describing, agents.envs.stepping"
    code = f"import {modules}, sys; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_evaluation_is_a_function_of_seed_and_progress_and_ends():
    envs, state, _ = start("CartPole-v1", env_options={"max_episode_steps": 30}, eval_episodes=13)
    first = envs.evaluate({}, state, 16, 13)
    envs.collect({}, state, 0)
    assert torch.equal(envs.evaluate({}, state, 16, 13), first)
    assert not torch.equal(envs.evaluate({}, state, 32, 13), first)
    envs.close()
    alone, other, _ = start("CartPole-v1", env_options={"max_episode_steps": 30}, eval_episodes=13, seeds=(4,))
    assert torch.equal(alone.evaluate({}, other, 16, 13), first[1:])
    alone.close()


def test_an_episode_without_a_limit_is_cut_off_in_evaluation(monkeypatch):
    monkeypatch.setattr("agents.envs.describing.is_trusted", lambda *_: True)
    envs, state, lanes = start(HERE + "Odd-v0", env_workers=0, eval_max_steps=7)
    assert envs.spec.max_steps is None
    assert envs.evaluate({}, state, 0, 3)[0].tolist() == [7 * 5.0] * 3  # action 0, counted from 5
    (said,) = lanes.warnings.values()
    assert "Odd-v0' has no time limit: an episode of an evaluation was cut off after 7 steps" in said
    envs.close()


def test_an_episode_that_ends_at_its_own_limit_is_not_cut():
    envs, state, lanes = start("CartPole-v1", env_options={"max_episode_steps": 7}, eval_max_steps=4)
    assert (envs.evaluate({}, state, 0, 3) == 7).all()
    assert lanes.warnings == {}
    envs.close()


def test_the_worker_may_let_go_of_an_evaluation(monkeypatch):
    monkeypatch.setattr("agents.envs.describing.is_trusted", lambda *_: True)
    envs, state, lanes = start(HERE + "Odd-v0", env_workers=0)

    def let_go():
        raise KeyboardInterrupt

    object.__setattr__(lanes, "heed", let_go)
    with pytest.raises(KeyboardInterrupt):
        envs.evaluate({}, state, 0, 3)
    envs.close()


@pytest.mark.parametrize(
    ("env", "options", "wrappers", "needs", "limit"),
    [
        ("CartPole-v1", {"max_episode_steps": 30}, [], "gymnasium", 30),
        ("CartPole-v1", {"max_episode_steps": -1}, [], "gymnasium", None),
        ("CartPole-v1", {}, [{"time-limit": {"steps": 8}}], "gymnasium", 8),
        ("CartPole-v1", {"max_episode_steps": 30}, [{"time-limit": {"steps": 80}}], "gymnasium", 30),
        (HERE + "Odd-v0", {}, [], "gymnasium", None),
        ("ALE/Breakout-v5", {}, ["atari"], "ale_py", 27_000),
        ("ALE/Breakout-v5", {"frameskip": 5}, [], "ale_py", 21_600),
        ("ALE/Breakout-v5", {"max_num_frames_per_episode": 1001}, ["atari"], "ale_py", 251),
        ("ALE/Breakout-v5", {"max_num_frames_per_episode": 0}, ["atari"], "ale_py", None),
        ("MiniGrid-Empty-5x5-v0", {}, ["image-only"], "minigrid", 100),
        ("MiniGrid-Empty-5x5-v0", {"max_steps": 7}, ["image-only", {"time-limit": {"steps": 8}}], "minigrid", 7),
    ],
)
def test_environments_are_asked_for_the_limit_that_they_keep_to_themselves(env, options, wrappers, needs, limit):
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"{env} needs {needs}, which is not installed")
    assert describe(env, options, wrappers)["max_steps"] == limit


@pytest.mark.parametrize("exact", [True, False])
def test_checkpoints_reset_environments_unless_told_otherwise(exact):
    envs, state, _ = start("CartPole-v1", env_options={"max_episode_steps": 30}, exact=exact)
    state, _ = envs.collect({}, state, 0)
    before = state["obs"].clone()
    envs.checkpointed(state, 16)
    assert torch.equal(state["obs"], before) != exact
    envs.close()
    again, restored, _ = start("CartPole-v1", env_options={"max_episode_steps": 30}, exact=exact)
    restored["obs"] = before.clone()
    again.checkpointed(restored, 16)
    assert not torch.equal(restored["obs"], before)  # after restoring they always begin anew
    again.close()


def test_memory_starts_anew_with_an_episode():
    def count(params, carry, obs, mask, u):
        return torch.zeros(obs.shape[0], dtype=torch.int64), {"steps": carry["steps"] + 1}

    options = {"env_options": {"max_episode_steps": 5}, "env_workers": 0}
    envs, state, _ = start("CartPole-v1", steps=7, policy=count, carry={"steps": ()}, **options)
    state, rollout = envs.collect({}, state, 0)
    assert rollout.truncated[:, 4].all()
    assert (state["carry"]["steps"] == 2).all()
    envs.close()


def test_missing_packages_and_unknown_ids_are_named(monkeypatch):
    registering = (("ale_py", "ALE/Pong-v5", "ale-py"), ("minigrid", "MiniGrid-Empty-8x8-v0", "minigrid"))
    for module, env, package in registering:
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ValueError, match=rf"{env}' needs the package {package}: pip install 'seedbed\["):
            make_gym(env, {}, [])
    monkeypatch.setitem(sys.modules, "mujoco", None)
    for name in [n for n in sys.modules if n.startswith("gymnasium.envs.mujoco")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ValueError, match=r"needs the package mujoco: pip install 'seedbed\[mujoco\]'"):
        make_gym("Swimmer-v5", {}, [])
    with pytest.raises(ValueError, match=r"NoSuch.*module:NoSuch-v0"):
        make_gym("NoSuch-v0", {}, [])
    with pytest.raises(ValueError, match=r"unexpected keyword argument 'colour'"):
        make_gym("CartPole-v1", {"colour": 1}, [])


def test_mujoco_leaves_no_file_and_prints_nothing(tmp_path, monkeypatch, capfd):
    if importlib.util.find_spec("mujoco") is None:
        pytest.skip("HalfCheetah needs MuJoCo, which is not installed")
    import mujoco

    monkeypatch.chdir(tmp_path)
    mujoco.set_mju_user_warning(None)
    make_gym("HalfCheetah-v4", {}, []).close()  # its model has an attribute that MuJoCo warns of
    assert mujoco.get_mju_user_warning() is not None
    assert list(tmp_path.iterdir()) == []
    assert "".join(capfd.readouterr()) == ""


def test_whose_environments_are_trusted():
    assert is_trusted("CartPole-v1")
    assert is_trusted("ALE/Breakout-v5")
    assert not is_trusted(HERE + "Odd-v0")


@pytest.mark.parametrize(
    ("env", "options", "sentence"),
    [
        ("Odd-v0", {"actions": "dict"}, "of a kind that no learner takes"),
        ("Odd-v0", {"seen": "graph"}, "cannot be made an array"),
        ("Rude-v0", {}, "raised TypeError at its reset"),
        ("Broken-v0", {"fault": "drift", "at": 1}, "breaks Gymnasium's rules (check_env): Deterministic step"),
        ("Broken-v0", {"fault": "die", "at": 1}, "was killed by signal 9"),
    ],
)
def test_environments_of_others_are_checked_when_the_file_is_read(env, options, sentence):
    with pytest.raises(ValidationError) as caught:
        Config(env=HERE + env, env_options=options)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("kind", ["bool_", "array", "int"])
def test_ends_of_steps_may_be_numbers_of_numpy(kind, monkeypatch):
    check(HERE + "Terse-v0", {"kind": kind})  # Gymnasium's check alone says that it "truncates after 1 step"
    monkeypatch.setattr("agents.envs.describing.is_trusted", lambda *_: True)
    envs, state, _ = start(HERE + "Terse-v0", env_options={"kind": kind}, env_workers=0)
    _, rollout = envs.collect({}, state, 0)
    envs.close()
    assert rollout.terminated.sum(1).tolist() == [[1, 1], [1, 1]]  # of 16 steps: episodes have 10
    assert not rollout.truncated.any()


def test_a_constructor_that_hangs_does_not_hang_the_plan(monkeypatch):
    monkeypatch.setattr("agents.envs.processes.CHECK", 3.0)
    with pytest.raises(ValidationError, match="hangs: making and checking it has not ended within 3 s"):
        Config(env=HERE + "Broken-v0", env_options={"fault": "hang-constructor"})


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("nan", "gave the observation nan at step 5"),
        ("inf-reward", "gave the reward inf at step 5"),
        ("shape", r"gave an observation of shape \[1\]; its space says \[2\] at step 5"),
        ("kind", "gave an observation of type <U1; its space says float32 at step 5"),
        ("inf", "gave the observation inf at step 5"),
        ("word", "gave a reward that is not a number: 'much' at step 5"),
        ("raise", "raised RuntimeError: told to at step 5"),
    ],
)
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_environment_that_breaks_its_own_space_is_named(fault, sentence, workers, monkeypatch):
    monkeypatch.setattr("agents.envs.describing.is_trusted", lambda *_: True)
    seed = adapter.derive_seed(4, "env/1", 0)
    envs, state, _ = start(HERE + "Broken-v0", env_options={"fault": fault, "seeds": [seed]}, env_workers=workers)
    with pytest.raises(LaneError, match=sentence) as caught:
        envs.collect({}, state, 0)
    envs.close()
    assert caught.value.lanes == (1,)
    assert "Broken-v0' (training 1 of the trial with seed 4)" in caught.value.reason


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_box_that_lies_is_named_once_and_fails_nothing(workers, monkeypatch):
    monkeypatch.setattr("agents.envs.describing.is_trusted", lambda *_: True)
    envs, state, lanes = start(HERE + "Broken-v0", env_options={"fault": "bounds"}, env_workers=workers)
    state, rollout = envs.collect({}, state, 0)
    assert (rollout.obs > 90).any()  # it did leave its box of -4 to 4
    sentences = list(lanes.warnings.values())
    assert len(sentences) == 1
    assert "environment 'tests.agents.broken_env:Broken-v0' (training 0 of the trial with seed 3) gave " in sentences[0]
    assert " in dimension 0 of its observation, outside [-4, 4]: the space that it declares is wrong" in sentences[0]
    lanes.warnings.clear()
    envs.collect({}, state, 16)
    assert lanes.warnings == {}
    envs.close()


def test_lunar_lander_flies_out_of_its_box():
    if importlib.util.find_spec("Box2D") is None:
        pytest.skip("LunarLander needs Box2D, which is not installed")

    def climb(params, carry, obs, mask, noise):
        return torch.full(obs.shape[:1], 2), carry  # the main engine

    envs, state, lanes = start("LunarLander-v3", steps=150, policy=climb, n_envs=1, eval_episodes=1, seeds=(3,))
    _, rollout = envs.collect({}, state, 0)
    assert rollout.obs[..., 1].max() > 2.5
    assert "in dimension 1 of its observation, outside [-2.5, 2.5]" in lanes.warnings["space LunarLander-v3"]
    envs.close()


def test_environments_get_seeds_of_31_bits(monkeypatch):
    monkeypatch.setattr("agents.envs.describing.is_trusted", lambda *_: True)
    envs, state, _ = start(HERE + "Narrow-v0", seeds=(0, 2**63 - 1), n_envs=8, env_workers=0)  # it refuses longer ones
    state, _ = envs.collect({}, state, 0)
    envs.checkpointed(state, 16)
    for sampled in (False, True):
        assert envs.evaluate({}, state, 16, 8, sampled).isfinite().all()
    assert envs.record({}, state, 0, 16) is None  # it draws nothing
    envs.close()


def test_an_environment_that_dies_once_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("agents.envs.describing.is_trusted", lambda *_: True)
    options = {"fault": "die", "seeds": [adapter.derive_seed(4, "env/0", 0)], "once": str(tmp_path / "died")}
    envs, state, lanes = start(HERE + "Broken-v0", env_options=options)
    state, rollout = envs.collect({}, state, 0)
    assert (tmp_path / "died").exists()
    assert len(lanes.notes) == 1
    assert "training 0 of the trial with seed 4) is lost: its process was killed by signal 9" in lanes.notes[0]
    assert rollout.truncated[1, 4].all()  # both of the trial's environments were in that process
    assert torch.equal(rollout.next_obs[1, 4], rollout.obs[1, 4])
    assert not rollout.truncated[0, 4].any()
    assert rollout.obs[1].isfinite().all()
    assert envs.evaluate({}, state, 16, 3).isfinite().all()
    envs.close()


def test_descriptions_are_plain_values():
    found = adapter.description_of("CartPole-v1", {}, [])
    assert json.loads(json.dumps(found)) == found
