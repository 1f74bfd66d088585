"""PPO's pure functions against closed forms, and its learning."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from agents.envs.transition import Rollout
from agents.ppo import PPO, Batch, PPOConfig, invert_categorical, ppo_loss
from agents.returns import gae, mean_return
from harness.learner import Lanes


def rollout_of(reward, terminated, truncated):
    zeros = torch.zeros_like(reward)
    none = zeros[..., None][..., :0].bool()
    return Rollout(zeros, none, zeros.long(), reward, zeros, none, terminated, truncated, zeros)


@pytest.mark.parametrize("steps", [1, 5, 8, 13])
def test_gae_equals_the_recursion(steps):
    torch.manual_seed(0)
    n, gamma, lam = 3, 0.9, 0.8
    reward, value, after = torch.randn(3, steps, n, dtype=torch.float64)
    terminated, truncated = torch.rand(2, steps, n) < 0.2
    expected, running = torch.zeros(steps, n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    for t in reversed(range(steps)):
        delta = reward[t] + gamma * after[t] * ~terminated[t] - value[t]
        running = delta + gamma * lam * running * ~(terminated[t] | truncated[t])
        expected[t] = running
    found = gae(rollout_of(reward, terminated, truncated), value, after, gamma, lam)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_gae_closed_forms():
    steps, gamma = 6, 0.5
    reward = torch.ones(steps, 1, dtype=torch.float64)
    no, value = torch.zeros(steps, 1, dtype=torch.bool), torch.zeros(steps, 1, dtype=torch.float64)
    returns = gae(rollout_of(reward, no, no), value, value, gamma, 1.0)[:, 0]  # lambda 1: discounted returns
    torch.testing.assert_close(returns, (1 - gamma ** torch.arange(steps, 0, -1.0).double()) / (1 - gamma))
    assert torch.equal(
        gae(rollout_of(reward, no, no), value, value, gamma, 0.0), reward
    )  # lambda 0: one step
    last = no.clone()
    last[-1] = True
    bootstrap = torch.full_like(value, 10.0)
    cut = gae(rollout_of(reward, no, last), value, bootstrap, gamma, 0.0)[-1]
    ended = gae(rollout_of(reward, last, no), value, bootstrap, gamma, 0.0)[-1]
    assert (cut.item(), ended.item()) == (6.0, 1.0)  # a time limit bootstraps, an end does not


def test_loss_at_the_old_policy():
    torch.manual_seed(0)
    logits, action = torch.zeros(64, 4), torch.randint(4, (64,))
    advantage, target = torch.randn(2, 64)
    batch = Batch(torch.zeros(64, 1), action, torch.full((64,), -np.log(4.0)), advantage, target)
    loss, log = ppo_loss(logits, torch.zeros(64), batch, torch.tensor(0.2), 0.1, 0.5)
    assert float(log["policy_loss"]) == pytest.approx(0, abs=1e-6)  # normalised advantages have mean 0
    assert float(log["entropy"]) == pytest.approx(np.log(4))
    assert float(log["value_loss"]) == pytest.approx(0.5 * float(target.square().mean()))
    assert float(log["kl"]) == pytest.approx(0, abs=1e-6)
    assert float(loss) == pytest.approx(0.5 * float(log["value_loss"]) - 0.1 * np.log(4), abs=1e-6)


def test_clipping_stops_the_gradient():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]], requires_grad=True)
    batch = Batch(
        torch.zeros(2, 1),
        torch.tensor([0, 0]),
        torch.full((2,), np.log(0.5)),
        torch.tensor([1.0, -1.0]),
        torch.zeros(2),
    )
    loss, log = ppo_loss(
        logits, torch.zeros(2), batch, torch.tensor(0.2), 0.0, 0.0
    )  # both ratios are beyond the clip range
    loss.backward()
    assert logits.grad.abs().max() == 0
    assert float(log["clip_fraction"]) == 1.0


def test_actions_follow_the_distribution():
    logits = torch.log(torch.tensor([0.1, 0.6, 0.3]))
    u = (torch.arange(1000) + 0.5) / 1000
    counts = torch.bincount(invert_categorical(logits.expand(1000, 3), u), minlength=3)
    assert counts.tolist() == [100, 600, 300]
    assert invert_categorical(logits, torch.tensor(1 - 2**-24)) == 2


def test_mean_return_keeps_the_last_one_without_episodes():
    done = torch.tensor([[[True, True]], [[False, False]]])
    rollout = rollout_of(torch.zeros(2, 1, 2), done, torch.zeros_like(done))._replace(
        episode=torch.tensor([[[3.0, 5.0]], [[0.0, 0.0]]])
    )
    assert mean_return(rollout, torch.tensor([1.0, 2.0])).tolist() == [4.0, 2.0]


def test_config_refuses_what_cannot_work():
    with pytest.raises(ValidationError, match="multiple of minibatches"):
        PPOConfig(n_envs=3, n_steps=5, minibatches=4)
    with pytest.raises(ValidationError, match="known: "):
        PPOConfig(activation="thanh")
    assert PPOConfig(steps=1000).budget == 1024
    assert all(info.description for info in PPOConfig.model_fields.values())


def test_gymnasium_adapter_is_a_function_of_seed_and_progress():
    """A restored run equals an uninterrupted one, although environments cannot be saved."""
    config = PPOConfig(env="Acrobot-v1", env_options={"render_mode": None}, n_envs=2, n_steps=16, eval_episodes=3)
    lanes = Lanes((config,) * 2, (3, 4))
    first = PPO()
    state = first.start(lanes)
    first.advance(state)
    first.checkpointed(state)
    saved = torch.utils._pytree.tree_map(torch.clone, state)
    first.advance(state)
    second = PPO()
    second.start(lanes)
    second.checkpointed(saved)
    second.advance(saved)
    for name, p in state["params"].items():
        assert torch.equal(saved["params"][name], p)
    assert first.evaluate(state)["return"].shape == (2, 3)


def test_gymnasium_adapter_bootstraps_time_limits():
    config = PPOConfig(env="MountainCar-v0", env_options={"goal_velocity": 0.0}, n_envs=1, n_steps=201, minibatches=1)
    learner = PPO()
    state = learner.start(Lanes((config,), (0,)))
    _, rollout = learner.envs.collect(state["params"], state["envs"], 0)
    assert rollout.truncated[0, :, 0].nonzero().flatten().tolist() == [199]
    assert not rollout.terminated.any()
    assert rollout.episode[0, 199, 0] == -200
    assert not torch.equal(rollout.next_obs[0, 199, 0], rollout.obs[0, 200, 0])  # before and after the reset


def test_unsuitable_environments_are_refused():
    for env in ("NoSuchEnv-v0", "Pendulum-v1"):
        with pytest.raises(ValueError, match=env):
            PPOConfig(env=env)


@pytest.mark.slow
def test_solves_cartpole():
    config = PPOConfig()
    learner = PPO()
    state = learner.start(Lanes((config,) * 8, tuple(range(8))))
    while int(state["progress"][0]) < config.budget:
        learner.advance(state)
    returns = np.sort(learner.evaluate(state)["return"].numpy().flatten())
    quarter = len(returns) // 4
    assert returns[quarter:-quarter].mean() >= 475
