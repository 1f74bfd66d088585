"""Episodes as pictures: Gymnasium's own of our states, grids, even steps, and no video where nothing can be drawn."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.envs import EnvConfig, make_environments, render
from agents.envs.catalogue import SHARED
from agents.envs.render import CLASSIC, EMPTY, MOST_FRAMES, Episode, draw, draw_grid, episode_media, film
from harness.learner import Lanes

ACTION = {"discrete": torch.int64, "box": torch.float64}


class Config(EnvConfig):
    """The least that `make_environments` needs."""

    @property
    def chunk(self) -> int:
        return self.n_envs


def lean(params: Any, carry: Any, obs: torch.Tensor, mask: torch.Tensor, noise: Any) -> tuple[torch.Tensor, Any]:
    """Pushes under the falling pole; `params` is a bias that is an ordinary policy's weight."""
    return (obs[:, 2] + 0.5 * obs[:, 3] + params["bias"] > 0).long(), carry


def environments(seeds=(3, 1, 2), **config):
    lanes = Lanes((Config(**config),) * len(seeds), seeds)
    envs = make_environments(lean, lanes, 4)
    return envs, lanes, envs.start()


def seen(judge: Any) -> np.ndarray:
    """What Gymnasium's environment observes of its state."""
    look = getattr(judge, "_get_obs", None) or getattr(judge, "_get_ob", None)
    return look() if look else judge.state


@pytest.mark.parametrize("env_id", CLASSIC)
def test_pictures_are_those_that_gymnasium_draws_of_the_same_states(env_id):
    env = SHARED[env_id]()
    judge = gymnasium.make(env_id, render_mode="rgb_array")
    judge.reset(seed=4)
    pictures, states = [], [env.reset(torch.full(env.reset_shape, 0.3, dtype=torch.float64))]
    for _ in range(8):  # ours moves, Gymnasium's is put where ours is
        states.append(env.step(states[-1], torch.ones(env.action.shape).to(ACTION[env.action.kind]), torch.zeros(0))[0])
    for state in states:
        judge.unwrapped.state = state["physics"].numpy()
        np.testing.assert_allclose(seen(judge.unwrapped), env.observe(state), rtol=1e-6)  # it is the same state
        pictures.append(judge.render())
    drawn = draw(env_id, env, states, 4.0)
    np.testing.assert_array_equal(drawn.frames, pictures)
    assert (drawn.fps, drawn.total, drawn.steps) == (judge.metadata["render_fps"], 4.0, 9)
    assert not np.array_equal(drawn.frames[0], drawn.frames[8])
    judge.close()


def test_an_episode_is_the_lanes_own_and_comes_again():
    envs, _, state = environments()
    params = {"bias": torch.tensor([0.0, 0.3, 0.0])}
    episode = envs.record(params, state, 0, 64)
    assert episode.total == episode.steps > 100
    assert len(episode.frames) == -(-episode.steps // -(-episode.steps // MOST_FRAMES))
    again = envs.record({"bias": torch.tensor([0.0, -9.0, 9.0])}, state, 0, 64)
    np.testing.assert_array_equal(episode.frames, again.frames)
    assert envs.record(params, state, 1, 64).steps < 100  # the lane whose policy is bad
    alone, _, state = environments(seeds=(3,))
    np.testing.assert_array_equal(episode.frames, alone.record({"bias": torch.zeros(1)}, state, 0, 64).frames)


def test_gymnasiums_environments_are_filmed_with_normalised_observations():
    option = {"sutton_barto_reward": True}  # with an option it is Gymnasium's
    envs, _, state = environments(env_options=option, wrappers=("normalise-observations",))
    episode = envs.record({"bias": torch.tensor([0.0, 0.0, 9.0])}, state, 2, 0)
    assert len(episode.frames) == episode.steps < 20
    assert episode.frames.shape[1:] == (400, 600, 3)
    assert episode.total == -1.0  # Sutton and Barto's reward: the pole has fallen
    envs.close()


def test_the_first_two_lanes_of_every_configuration_are_filmed():
    first, second = Config(), Config(eval_episodes=7)
    lanes = Lanes((first, second, first, first, second), (0, 1, 2, 3, 4))
    filmed = []

    class Recorder:
        def record(self, params, state, lane, progress):
            filmed.append(lane)
            return Episode(np.zeros((3, 4, 5, 3), np.uint8), 12.5, 1234.5678, 1000) if lane else None

    media = [episode_media(Recorder(), lanes, {}, {}, lane, 2048) for lane in range(5)]
    assert filmed == [0, 1, 2, 4]
    assert [sorted(items) for items in media] == [[], ["episode"], ["episode"], [], ["episode"]]
    video = media[1]["episode"]
    assert (video.kind, video.fps, video.data.shape) == ("video", 12.5, (3, 4, 5, 3))
    assert video.caption == "return 1234.6 in 1,000 steps, without noise, after 2,048 of training"


def test_grids_have_one_colour_a_channel_and_square_cells():
    grid = np.zeros((2, 3, 10, 5))  # [T, channels, rows, columns]
    grid[0, 0, 2, 4] = grid[0, 1, 2, 4] = grid[1, 2, 9, 0] = 1.0
    frames = draw_grid(grid)
    assert frames.shape == (2, 200, 100, 3)
    assert frames.dtype == np.uint8
    cells = frames[:, 10::20, 10::20]
    np.testing.assert_array_equal(frames, cells.repeat(20, axis=1).repeat(20, axis=2))
    first, second = cells[0, 2, 4], cells[1, 9, 0]
    assert len({EMPTY, tuple(first), tuple(second)}) == 3
    assert (cells == EMPTY).all(-1).sum() == 2 * 50 - 2
    np.testing.assert_array_equal(draw_grid(grid[:, 1]), draw_grid(grid[:, 1:2]))  # without channels: one


class Counting(gymnasium.Env):
    """Its picture is the number of its step; it ends after `steps`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 40}
    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Discrete(2)

    def __init__(self, steps: int, broken: bool = False) -> None:
        self.steps, self.broken, self.closed = steps, broken, False

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return np.zeros(1), {}

    def step(self, action):
        self.time += 1
        return np.zeros(1), float(action), self.time == self.steps, False, {}

    def render(self):
        if self.broken:
            raise RuntimeError("no display")
        return np.full((2, 2, 3), self.time // 8, dtype=np.uint8)

    def close(self):
        self.closed = True


@pytest.mark.parametrize(("steps", "stride"), [(150, 1), (201, 2), (900, 8)])
def test_long_episodes_are_drawn_at_even_steps(steps, stride):
    env = Counting(steps)
    episode, cut = film(lambda: env, lambda *given: 1, seed=0)
    assert not cut
    np.testing.assert_array_equal(episode.frames[:, 0, 0, 0], np.arange(0, steps, stride) // 8)
    assert len(episode.frames) <= MOST_FRAMES
    assert (episode.fps, episode.total, episode.steps) == (40 / stride, float(steps), steps)
    assert env.closed


def test_an_episode_without_end_is_cut_off():
    episode, cut = film(lambda: Counting(900), lambda *given: 1, seed=0, most=10)
    assert (cut, episode.steps, len(episode.frames)) == (True, 10, 10)


def test_where_nothing_can_be_drawn_there_is_no_video_and_no_error(monkeypatch):
    said = []  # not caplog: Prefect and Ray, in earlier tests of the same process, rearrange all logging
    monkeypatch.setattr(render._log, "warning", lambda text, *values: said.append(text % values))
    env = Counting(5, broken=True)
    assert film(lambda: env, lambda *given: 1, seed=0) == (None, False)
    assert env.closed
    assert "no display" in said[0]
    assert film(lambda: gymnasium.make("NotInstalled-v0"), lambda *given: 1, seed=0) == (None, False)


class Blind(Counting):
    def render(self):
        raise NotImplementedError


def test_an_environment_that_draws_nothing_is_passed_over_in_silence(monkeypatch):
    said = []
    monkeypatch.setattr(render._log, "warning", lambda text, *values: said.append(text % values))

    def without_modes(render_mode="rgb_array"):
        raise TypeError("__init__() got an unexpected keyword argument 'render_mode'")

    assert film(lambda: Blind(5), lambda *given: 1, seed=0) == (None, False)
    assert film(without_modes, lambda *given: 1, seed=0) == (None, False)
    assert said == []
