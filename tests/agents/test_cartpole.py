"""The tensor CartPole equals Gymnasium's, step by step."""

import gymnasium
import numpy as np
import torch

from agents.envs.cartpole import CartPole


def physics_of(env):
    return torch.tensor(np.asarray(env.unwrapped.state, dtype=np.float64))


def follow(policy, steps):
    """Steps both side by side; returns (largest difference, terminations, truncations)."""
    theirs, ours = gymnasium.make("CartPole-v1"), CartPole()
    theirs.reset(seed=0)
    state = {"physics": physics_of(theirs), "time": torch.zeros((), dtype=torch.float64)}
    noise = torch.zeros(0, dtype=torch.float64)
    worst, ends = 0.0, [0, 0]
    for t in range(steps):
        action = policy(t, state["physics"])
        _, reward, terminated, truncated, _ = theirs.step(action)
        state, step = ours.step(state, torch.tensor(action), noise)
        worst = max(worst, float((step.next_obs - physics_of(theirs)).abs().max()))
        assert bool(step.terminated) == terminated
        assert bool(step.truncated) == truncated
        assert float(step.reward) == reward
        ends[0] += terminated
        ends[1] += truncated
        if terminated or truncated:
            theirs.reset()
            state = {"physics": physics_of(theirs), "time": torch.zeros((), dtype=torch.float64)}
    return worst, ends


def test_equals_gymnasium_over_10000_random_steps():
    actions = np.random.default_rng(1).integers(0, 2, 10_000)
    worst, (terminations, _) = follow(lambda t, _: int(actions[t]), 10_000)
    assert worst <= 1e-9
    assert terminations > 300


def test_time_limit_equals_gymnasiums():
    def balance(t, s):
        return int(s[2] + 0.3 * s[3] + 0.01 * s[0] + 0.1 * s[1] > 0)

    worst, (_, truncations) = follow(balance, 1500)
    assert worst <= 1e-9
    assert truncations >= 2


def test_any_leading_shape():
    env = CartPole()
    noise = torch.rand(2, 3, 4)
    state, step = env.step(env.reset(noise), torch.ones(2, 3, dtype=torch.long), noise[..., :0])
    assert step.next_obs.shape == (2, 3, 4)
    assert step.reward.shape == state["time"].shape == (2, 3)
    assert env.observe(env.reset(noise)).abs().max() <= 0.05
