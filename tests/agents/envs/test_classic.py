"""The tensor environments of classic control equal Gymnasium's, step by step."""

import gymnasium
import numpy as np
import pytest
import torch

from agents.envs.catalogue import SHARED, tensor_env
from agents.envs.transition import where_done

CLASSIC = pytest.mark.parametrize("env_id", sorted(SHARED))
LANES = 10  # environments side by side
NO_NOISE = torch.zeros(LANES, 0, dtype=torch.float64)
# Acrobot is chaotic: a difference of one rounding in a cosine grows over an episode of 500 steps
DRIFT = {"Acrobot-v1": 1e-6}


def put(theirs, physics):
    """Gives a Gymnasium environment a state."""
    theirs.reset()
    held = np.float32 if "Continuous" in theirs.spec.id else np.float64
    theirs.unwrapped.state = physics.numpy().astype(held)


def physics_of(envs):
    return torch.tensor(np.array([np.asarray(env.unwrapped.state, dtype=np.float64) for env in envs]))


def follow(env_id, policy, steps, rng):
    """Steps LANES of both side by side, episode after episode from states of ours.

    Returns:
        (largest difference after one step from the same state, the largest after a whole run, terminations,
        truncations)
    """
    theirs, ours = [gymnasium.make(env_id) for _ in range(LANES)], tensor_env(env_id, {}, ())
    state = ours.reset(torch.tensor(rng.random((LANES, *ours.reset_shape))))
    for k in range(LANES):
        put(theirs[k], state["physics"][k])
    stepped, run, ends = 0.0, 0.0, torch.zeros(2, dtype=torch.int64)
    for _ in range(steps // LANES):
        before = {"physics": physics_of(theirs), "time": state["time"]}
        action = policy(before["physics"].numpy())
        rows = [env.step(a)[:4] for env, a in zip(theirs, action, strict=True)]
        seen, reward, *over = (torch.tensor(np.array(column)) for column in zip(*rows, strict=True))
        once = ours.step(before, torch.tensor(action), NO_NOISE)
        state, step = ours.step(state, torch.tensor(action), NO_NOISE)
        stepped = max(stepped, difference(once, physics_of(theirs), reward))
        run = max(run, difference((state, step), physics_of(theirs), reward))
        torch.testing.assert_close(step.next_obs.float(), seen, rtol=1e-6, atol=1e-6)  # theirs is float32
        assert torch.equal(step.next_obs, ours.observe(state))
        assert torch.equal(torch.stack((step.terminated, step.truncated)), torch.stack(over))
        ends += torch.stack(over).sum(1)
        done = step.terminated | step.truncated
        state = where_done(done, ours.reset(torch.tensor(rng.random((LANES, *ours.reset_shape)))), state)
        for k in done.nonzero().flatten():
            put(theirs[k], state["physics"][k])
    return stepped, run, *map(int, ends)


def difference(ours, physics, reward):
    state, step = ours
    return float(max((state["physics"] - physics).abs().max(), (step.reward - reward).abs().max()))


def drawn(env_id, rng):
    """A policy of random actions."""
    space = tensor_env(env_id, {}, ()).action
    if space.kind == "discrete":
        return lambda _: rng.integers(space.counts[0], size=LANES)
    return lambda _: rng.uniform(space.low, space.high, (LANES, 1))


SKILLED = {
    "CartPole-v1": lambda s: (s @ [0.01, 0.1, 1, 0.3] > 0).astype(int),
    "MountainCar-v0": lambda s: np.where(s[:, 1] >= 0, 2, 0),  # push where it rolls
    "MountainCarContinuous-v0": lambda s: np.where(s[:, 1:] >= 0, 1.0, -1.0),
    "Acrobot-v1": lambda s: np.where(s[:, 3] > 0, 2, 0),
    "Pendulum-v1": lambda s: np.clip(2 * s[:, 1:], -2, 2),  # until it spins at full speed
}


@CLASSIC
def test_equals_gymnasium_over_10000_random_steps(env_id):
    rng = np.random.default_rng(1)
    stepped, run, terminations, truncations = follow(env_id, drawn(env_id, rng), 10_000, rng)
    assert stepped <= 1e-9
    assert run <= DRIFT.get(env_id, 1e-9)
    assert terminations > 300 if env_id == "CartPole-v1" else truncations >= 10


@CLASSIC
def test_equals_gymnasium_where_a_skilled_policy_goes(env_id):
    steps = 6000 if env_id == "CartPole-v1" else 3000
    stepped, run, terminations, truncations = follow(env_id, SKILLED[env_id], steps, np.random.default_rng(2))
    assert stepped <= 1e-9
    assert run <= DRIFT.get(env_id, 1e-9)
    assert truncations >= 10 if env_id in ("CartPole-v1", "Pendulum-v1") else terminations >= 10


@CLASSIC
def test_a_last_step_may_terminate_and_truncate(env_id):
    env = tensor_env(env_id, {}, ())
    over = {  # physics from which any action ends the episode
        "CartPole-v1": (2.5, 0.0, 0.0, 0.0),
        "MountainCar-v0": (0.55, 0.05),
        "MountainCarContinuous-v0": (0.55, 0.05),
        "Acrobot-v1": (3.1, 0.0, 0.0, 0.0),
        "Pendulum-v1": (0.0, 0.0),
    }[env_id]
    state = {"physics": torch.tensor(over), "time": torch.tensor(env.max_steps - 1.0)}
    _, step = env.step(state, torch.zeros(env.action.shape), torch.zeros(0))
    assert bool(step.truncated)
    assert bool(step.terminated) == (env_id != "Pendulum-v1")


def test_the_wall_of_the_mountain_is_inelastic():
    env = tensor_env("MountainCar-v0", {}, ())
    state = {"physics": torch.tensor([-1.19, -0.05]), "time": torch.tensor(0.0)}
    after, _ = env.step(state, torch.tensor(0), torch.zeros(0))
    torch.testing.assert_close(after["physics"], torch.tensor([-1.2, 0.0]), rtol=0, atol=0)


@pytest.mark.parametrize("angle", [9.0, 3.0, -3.0, -9.0])
def test_pendulums_cost_sees_the_wrapped_angle(angle):
    env = tensor_env("Pendulum-v1", {}, ())
    state = {"physics": torch.tensor([angle, 0.0]), "time": torch.tensor(0.0)}
    _, step = env.step(state, torch.zeros(1), torch.zeros(0))
    assert float(-step.reward) == pytest.approx(np.arctan2(np.sin(angle), np.cos(angle)) ** 2, rel=1e-5)
