"""The grid games agree with the `minatar` package, played as a black box with its draws injected."""

import logging

import numpy as np
import pytest
import torch

from agents.envs.catalogue import tensor_env
from agents.envs.tables import one_hot

logging.getLogger().setLevel(logging.ERROR)  # the package warns that it cannot draw
minatar = pytest.importorskip("minatar", reason="the judge, the `minatar` package, is not installed")

GAMES = {"breakout": "MinAtar/Breakout-v1", "space_invaders": "MinAtar/SpaceInvaders-v1"}


class Recorder:
    """A random generator that remembers the uniform number behind every draw."""

    def __init__(self, seed):
        self.rng, self.drawn = np.random.default_rng(seed), 0.0

    def rand(self):
        self.drawn = self.rng.random()
        return self.drawn

    def randint(self, count):
        return int(self.rand() * count)


class Judge:
    """The package's game and what it drew."""

    def __init__(self, game, seed):
        self.env = minatar.Environment(game)
        self.env.random = self.env.env.random = self.draws = Recorder(seed)
        self.actions = self.env.minimal_action_set()

    def reset(self):
        self.env.reset()
        return np.array([self.draws.drawn])

    def act(self, action):
        """(observation as ours, reward, terminated, what was drawn)."""
        reward, terminated = self.env.act(self.actions[action])
        return self.seen(), float(reward), bool(terminated), np.array([self.draws.drawn])

    def seen(self):
        return np.moveaxis(self.env.state(), -1, 0)


def random(state, rng):
    return int(rng.integers(1_000_000))


def follows_the_ball(state, rng):
    """Keeps the paddle under the ball."""
    x = state["x"] + state["dx"] * (state["dy"] > 0)
    return int(state["paddle"] > x) + 2 * int(state["paddle"] < x)


def shoots(state, rng):
    """Steps out of the way of bullets and never into it; else goes to a column ahead of the aliens and fires."""
    cannon, columns = int(state["cannon"]), state["aliens"].any(0).nonzero().flatten().numpy()
    danger = np.pad(state["theirs"][6:].any(0).numpy(), 1, constant_values=True)
    danger = danger[cannon : cannon + 3]  # left, here, right
    ahead = columns + int(state["direction"])
    target = int(ahead[np.abs(ahead - cannon).argmin()])
    if danger[1]:
        return 1 if not danger[0] and (target <= cannon or danger[2]) else 2
    if target == cannon:
        return 3 if state["reload"] == 0 else 0
    return 0 if danger[0 if target < cannon else 2] else 1 if target < cannon else 2


def thinned(game, state, judge, kept):
    """Leaves both with a few bricks or aliens, so that new ones come soon."""
    things, theirs = ("bricks", "brick_map") if game == "breakout" else ("aliens", "alien_map")
    keep = state[things] & (state[things].flatten().cumsum(0).reshape(10, 10) > state[things].sum() - kept)
    setattr(judge.env.env, theirs, keep.numpy().astype(float))
    return {**state, things: keep}


def follow(game, policy, seed=0, steps=2500, kept=100):
    """Plays both side by side; returns what happened: counts of rewards, ends, sticky steps and new waves.

    Args:
        kept: bricks or aliens that an episode begins with, at most.
    """
    rng, judge, ours = np.random.default_rng(seed), Judge(game, seed), tensor_env(GAMES[game], {}, ())
    n_actions, happened = ours.action.counts[0], {"reward": 0.0, "ends": 0, "sticky": 0, "waves": 0}
    things = "bricks" if game == "breakout" else "aliens"
    fresh = True
    for _ in range(steps):
        if fresh:
            state = ours.reset(torch.tensor(judge.reset()))
            carried = judge.actions.index(judge.env.last_action)  # from the episode before
            state["last"] = torch.tensor(float(carried), dtype=torch.float64)
            np.testing.assert_array_equal(ours.observe(state).numpy(), judge.seen())
            state = thinned(game, state, judge, kept)
        action = policy(state, rng) % n_actions
        seen, reward, terminated, drawn = judge.act(action)
        before, (state, step) = state, ours.step(state, torch.tensor(action), torch.tensor(drawn))
        np.testing.assert_array_equal(step.next_obs.numpy(), seen)
        assert float(step.reward) == reward
        assert bool(step.terminated) == terminated
        happened["reward"] += reward
        happened["ends"] += terminated
        happened["sticky"] += int(state["last"]) != action
        happened["waves"] += bool(state[things].sum() > before[things].sum())
        fresh = terminated or bool(step.truncated)
    return happened


@pytest.mark.parametrize("game", GAMES)
def test_random_play_agrees(game):
    happened = follow(game, random, steps=1500)
    assert happened["ends"] >= 10
    assert happened["reward"] > 20
    assert happened["sticky"] > 50


def test_breakout_agrees_while_the_ball_is_followed():
    happened = follow("breakout", follows_the_ball, kept=4)
    assert happened["reward"] > 50
    assert happened["waves"] >= 3
    assert happened["ends"] > 1


def test_space_invaders_agrees_while_waves_are_shot_and_grow_faster():
    happened = follow("space_invaders", shoots, kept=6)
    assert happened["reward"] > 100
    assert happened["waves"] >= 3
    assert happened["ends"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize(("game", "policy"), [("breakout", follows_the_ball), ("space_invaders", shoots)])
def test_long_play_agrees(game, policy):
    happened = follow(game, policy, seed=1, steps=40_000)
    assert happened["waves"] >= 1


def test_aliens_are_as_fast_as_they_get_after_six_waves():
    env = tensor_env(GAMES["space_invaders"], {}, ())
    state = env.reset(torch.zeros(1))
    found = []
    for _ in range(8):
        row, column = torch.tensor(0), torch.tensor(4)
        state["aliens"] = one_hot(row, 10).unsqueeze(-1) & one_hot(column, 10)
        state["ours"] = one_hot(row + 1, 10).unsqueeze(-1) & one_hot(column, 10)  # about to hit the last alien
        state["move_in"] = torch.tensor(9.0)
        state, step = env.step(state, torch.tensor(0), torch.ones(1))
        assert float(step.reward) == 1
        found.append(int(state["interval"]))
    assert found == [11, 10, 9, 8, 7, 6, 6, 6]
