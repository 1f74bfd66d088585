"""The classic tensor environments equal Gymnasium's, step by step, from the same states and actions."""

import math

import gymnasium
import numpy as np
import pytest
import torch

from agents.envs.catalogue import TENSOR_ENVS

CLASSIC = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1")
STEPS = 10_000


def record(name, policy, steps):
    """Gymnasium's own course: states before and after, step counts, actions, observations, rewards, ends."""
    env = gymnasium.make(name, disable_env_checker=True)
    env.reset(seed=0)
    env.action_space.seed(1)
    rows, time = [], 0
    for _ in range(steps):
        before = np.array(env.unwrapped.state, dtype=np.float64)
        action = policy(before, env)
        action = action.astype(np.float64) if isinstance(action, np.ndarray) else action
        env.unwrapped.state = before.copy()  # the continuous car rounds its state to float32 after every step
        obs, reward, terminated, truncated, _ = env.step(action)
        after = np.array(env.unwrapped.state, dtype=np.float64)
        rows.append((before, time, action, after, obs, float(reward), terminated, truncated))
        time += 1
        if terminated or truncated:
            env.reset()
            time = 0
    env.close()
    return [torch.as_tensor(np.array(column)) for column in zip(*rows, strict=True)]


def compare(name, policy, steps):
    """Steps all of Gymnasium's states at once; returns (largest difference of states, terminations, truncations)."""
    before, time, action, after, obs, reward, terminated, truncated = record(name, policy, steps)
    state = {"physics": before, "time": time.double()}
    found, step = TENSOR_ENVS[name].step(state, action, torch.zeros(steps, 0, dtype=torch.float64))
    assert torch.equal(step.terminated, terminated)
    assert torch.equal(step.truncated, truncated)
    torch.testing.assert_close(step.reward, reward, rtol=0, atol=1e-9)
    torch.testing.assert_close(step.next_obs, obs.double(), rtol=0, atol=2e-6)  # theirs is rounded to float32
    physics = found["physics"].float().double() if "Continuous" in name else found["physics"]
    return float((physics - after).abs().max()), int(terminated.sum()), int(truncated.sum())


@pytest.mark.parametrize("name", CLASSIC)
def test_equals_gymnasium_over_10000_random_steps(name):
    worst, terminations, truncations = compare(name, lambda s, env: env.action_space.sample(), STEPS)
    assert worst <= 1e-9
    assert terminations + truncations >= 10


SKILLED = {  # policies that reach the goal, so that ends of both kinds are compared
    "CartPole-v1": lambda s, env: int(s[2] + 0.3 * s[3] + 0.01 * s[0] + 0.1 * s[1] > 0),
    "Acrobot-v1": lambda s, env: 2 if s[2] < 0 else 0,
    "MountainCar-v0": lambda s, env: 2 if s[1] >= 0 else 0,
    "MountainCarContinuous-v0": lambda s, env: np.array([1.0 if s[1] >= 0 else -1.0]),
}


@pytest.mark.parametrize("name", SKILLED)
def test_ends_equal_gymnasiums(name):
    worst, terminations, truncations = compare(name, SKILLED[name], 3000)
    assert worst <= 1e-9
    assert (truncations if name == "CartPole-v1" else terminations) >= 2


@pytest.mark.parametrize("name", CLASSIC)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_leading_shape_and_dtype_and_nothing_is_changed(name, dtype):
    env = TENSOR_ENVS[name]
    state = env.reset(torch.rand(2, 3, *env.reset_shape, dtype=dtype))
    before = {n: t.clone() for n, t in state.items()}
    action = torch.rand(2, 3, *env.action.shape, dtype=dtype)
    if env.action.kind == "discrete":
        action = torch.randint(env.action.counts[0], (2, 3))
    after, step = env.step(state, action, torch.zeros(2, 3, 0, dtype=dtype))
    assert step.next_obs.shape == (2, 3, *env.obs_shape)
    assert step.reward.shape == step.terminated.shape == step.truncated.shape == (2, 3)
    assert all(t.dtype == dtype for t in (*after.values(), step.next_obs, step.reward))
    assert all(torch.equal(state[n], t) for n, t in before.items())
    row, alone = env.step({n: t[1, 2] for n, t in state.items()}, action[1, 2], torch.zeros(0, dtype=dtype))
    torch.testing.assert_close(alone.next_obs, step.next_obs[1, 2])
    assert all(r.shape == after[n][1, 2].shape for n, r in row.items())


@pytest.mark.parametrize("angle", [0.0, 3.0, math.pi, 3.5, -3.5, 9.0, -9.0, 12.7])
def test_acrobots_angles_are_wrapped_as_gymnasium_does(angle):
    from gymnasium.envs.classic_control.acrobot import wrap

    from agents.envs.acrobot import _wrapped

    found = float(_wrapped(torch.tensor(angle, dtype=torch.float64)))
    assert found == pytest.approx(wrap(angle, -math.pi, math.pi), abs=1e-12)
