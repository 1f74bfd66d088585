"""PPO's pure functions against closed forms, and its learning."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from agents.envs.identity import REWARD_THRESHOLD
from agents.envs.transition import Rollout
from agents.ppo import PPO, Batch, PPOConfig, ppo_loss
from harness.learner import Lanes
from nets.distributions import Categorical
from nets.normalisers import normalise
from nets.returns import gae, mean_return

OFF = torch.tensor(0.0)
COEFFICIENTS = (torch.tensor(0.2), OFF, 0.1, 0.5)


def rollout_of(reward, terminated, truncated):
    zeros = torch.zeros_like(reward)
    none = zeros[..., None][..., :0].bool()
    return Rollout(zeros, none, zeros.long(), reward, zeros, none, terminated, truncated, zeros)


def batch_of(action, log_prob, advantage, target):
    """A minibatch whose old values are 0."""
    zeros = torch.zeros_like(target)
    return Batch(zeros[:, None], zeros[:, None][:, :0].bool(), action, log_prob, zeros, advantage, target)


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
    assert torch.equal(gae(rollout_of(reward, no, no), value, value, gamma, 0.0), reward)  # lambda 0: one step
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
    batch = batch_of(action, torch.full((64,), -np.log(4.0)), advantage, target)
    policy = Categorical(logits)
    loss, log = ppo_loss(policy.log_prob(action), policy.entropy().mean(), torch.zeros(64), batch, *COEFFICIENTS)
    assert float(log["policy_loss"]) == pytest.approx(-float(advantage.mean()), abs=1e-6)
    assert float(log["entropy"]) == pytest.approx(np.log(4))
    assert float(log["value_loss"]) == pytest.approx(float(target.square().mean()))
    assert float(log["kl"]) == pytest.approx(0, abs=1e-6)
    parts = float(log["policy_loss"]) + 0.5 * float(log["value_loss"]) - 0.1 * np.log(4)
    assert float(loss) == pytest.approx(parts, abs=1e-6)


def test_clipping_stops_the_gradient():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]], requires_grad=True)
    batch = batch_of(torch.tensor([0, 0]), torch.full((2,), np.log(0.5)), torch.tensor([1.0, -1.0]), torch.zeros(2))
    log_prob = Categorical(logits).log_prob(batch.action)  # both ratios are beyond the clip range
    loss, log = ppo_loss(log_prob, torch.zeros(()), torch.zeros(2), batch, torch.tensor(0.2), OFF, 0.0, 0.0)
    loss.backward()
    assert logits.grad.abs().max() == 0
    assert float(log["clip_fraction"]) == 1.0


def test_value_clipping_takes_the_worse_of_both_errors():
    """Old value 0, target 1, clip 0.2: a value of 0.5 counts as 0.2; one of -0.5 as itself (it is worse)."""
    for value, error in ((0.5, 0.8**2), (-0.5, 1.5**2), (0.1, 0.9**2)):
        batch = batch_of(torch.zeros(1).long(), torch.zeros(1), torch.zeros(1), torch.ones(1))
        given = (torch.zeros(1), torch.zeros(()), torch.tensor([value]), batch, torch.tensor(0.2))
        assert float(ppo_loss(*given, torch.tensor(0.2), 0.0, 1.0)[0]) == pytest.approx(error)
        assert float(ppo_loss(*given, OFF, 0.0, 1.0)[0]) == pytest.approx((1 - value) ** 2)


def test_target_kl_stops_its_lane_alone():
    common = {"n_envs": 2, "n_steps": 16, "batch": 8, "epochs": 4, "eval_episodes": 2, "lr": 0.05}
    configs = [PPOConfig(**common, target_kl=kl) for kl in (0.0, 1e-4, 0.0)]
    plain, stopped = ([], [])
    for chosen, found in (([configs[0]] * 3, plain), (configs, stopped)):
        learner = PPO()
        state = learner.start(Lanes(tuple(chosen), (1, 2, 3)))
        found += [learner.advance(state), state["params"]]
    steps = stopped[0]["steps_taken"]
    assert steps[0] == steps[2] == 1.0
    assert 0 < steps[1] < 1
    for name, p in plain[1].items():
        assert torch.equal(p[0], stopped[1][name][0])
        assert torch.equal(p[2], stopped[1][name][2])
    assert any(not torch.equal(p[1], stopped[1][n][1]) for n, p in plain[1].items())


def test_an_exported_network_takes_raw_observations():
    wrappers = ["normalise-observations", "normalise-rewards"]
    config = PPOConfig(env="Pendulum-v1", n_envs=2, n_steps=16, batch=16, wrappers=wrappers)
    learner = PPO()
    state = learner.start(Lanes((config,) * 2, (1, 2)))
    for _ in range(3):
        learner.advance(state)
    raw = learner.envs.env.observe(state["envs"]["env"])
    for lane in (0, 1):
        moments = {n: t[lane] for n, t in state["envs"]["norm"]["obs"].items()}
        inner = {n: p[lane] for n, p in state["params"].items()}
        expected = learner._call(inner, normalise(moments, raw[lane]))
        found = learner.network(state, lane)(raw[lane])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_mean_return_keeps_the_last_one_without_episodes():
    done = torch.tensor([[[True, True]], [[False, False]]])
    rollout = rollout_of(torch.zeros(2, 1, 2), done, torch.zeros_like(done))._replace(
        episode=torch.tensor([[[3.0, 5.0]], [[0.0, 0.0]]])
    )
    assert mean_return(rollout, torch.tensor([1.0, 2.0])).tolist() == [4.0, 2.0]


def test_config_refuses_what_cannot_work():
    with pytest.raises(ValidationError, match="one advantage has no spread"):
        PPOConfig(n_envs=3, n_steps=3, batch=4)
    with pytest.raises(ValidationError, match=r"net: .*thanh"):
        PPOConfig(net={"kind": "mlp", "activation": "thanh"})
    assert PPOConfig(steps=1000).budget == 1024
    assert PPOConfig(n_envs=3, n_steps=4, batch=5).minibatches == [5, 5, 2]  # nothing is dropped
    assert PPOConfig(n_envs=1, n_steps=8, batch=256).minibatches == [8]
    assert all(info.description for info in PPOConfig.model_fields.values())


def test_gymnasium_adapter_is_a_function_of_seed_and_progress():
    """A restored run equals an uninterrupted one, although environments cannot be saved."""
    theirs = {"env": "Acrobot-v1", "env_options": {"render_mode": None}}
    config = PPOConfig(**theirs, n_envs=2, n_steps=16, batch=8, eval_episodes=3)
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
    config = PPOConfig(env="MountainCar-v0", env_options={"goal_velocity": 0.0}, n_envs=1, n_steps=201, batch=201)
    learner = PPO()
    state = learner.start(Lanes((config,), (0,)))
    _, rollout = learner.envs.collect(state["params"], state["envs"], 0)
    assert rollout.truncated[0, :, 0].nonzero().flatten().tolist() == [199]
    assert not rollout.terminated.any()
    assert rollout.episode[0, 199, 0] == -200
    assert not torch.equal(rollout.next_obs[0, 199, 0], rollout.obs[0, 200, 0])  # before and after the reset


def test_unsuitable_environments_are_refused():
    with pytest.raises(ValueError, match="NoSuchEnv-v0"):
        PPOConfig(env="NoSuchEnv-v0")


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


SPACES = (
    "Identity-v0",
    "IdentityMultiBinary-v0",
    "IdentityBox-v0",
    pytest.param("IdentityMultiDiscrete-v0", marks=pytest.mark.slow),
    pytest.param("MaskedIdentity-v0", marks=pytest.mark.slow),
)


@pytest.mark.parametrize("env", SPACES)
def test_learns_the_identity_in_every_lane(env):
    """stable-baselines3's own test, its settings and its threshold: 90 of 100."""
    config = PPOConfig(
        env=env, n_envs=1, n_steps=256, epochs=4, batch=64, gamma=0.4, gae_lambda=0.95, lr=2e-3, lr_schedule="constant",
        steps=1000 if env == "IdentityBox-v0" else 1200, eval_episodes=20,
    )  # fmt: skip
    learner = PPO()
    state = learner.start(Lanes((config,) * 6, tuple(range(6))))
    while int(state["progress"][0]) < config.budget:
        learner.advance(state)
    assert (learner.evaluate(state)["return"].mean(1) >= REWARD_THRESHOLD).all()


def test_forbidden_actions_are_never_taken():
    config = PPOConfig(env="MaskedIdentity-v0", n_envs=2, n_steps=64, epochs=1)
    learner = PPO()
    state = learner.start(Lanes((config,) * 2, (0, 1)))
    _, rollout = learner.envs.collect(state["params"], state["envs"], 0)
    assert rollout.mask.gather(-1, rollout.action.unsqueeze(-1)).all()
    assert (~rollout.mask).any()
    assert (learner.evaluate(state)["return"] >= 0).all()  # each forbidden action would cost 1


def test_log_probabilities_of_continuous_actions_are_those_of_normal_numbers():
    config = PPOConfig(env="Pendulum-v1", n_envs=2, n_steps=8, batch=16, log_std_init=-0.5)
    learner = PPO()
    state = learner.start(Lanes((config,), (0,)))
    _, rollout = learner.envs.collect(state["params"], state["envs"], 0)
    batch = learner._targets(state["params"], learner.hyper, rollout)
    mean, _ = learner.network(state, 0)(batch.obs[0])
    normal = torch.distributions.Normal(mean[:, :1], np.exp(-0.5))
    torch.testing.assert_close(batch.log_prob[0], normal.log_prob(batch.action[0]).sum(-1))


@pytest.mark.parametrize("progress", [0, 32])
def test_minibatches_come_in_order_and_those_looked_at_alone(progress):
    shape = {"n_envs": 4, "n_steps": 8, "epochs": 2, "batch": 8, "steps": 64}

    def parts(every):
        learner = PPO()
        learner.start(Lanes((PPOConfig(**shape, layers_every=every),), (0,)))
        return learner._minibatches(progress)

    ((looked_at, expected),) = parts(0)
    assert not looked_at
    found, first = parts(3), progress // 32 * 8
    assert torch.equal(torch.stack([m for _, part in found for m in part]), torch.stack(expected))
    assert [look for look, part in found for _ in part] == [i % 3 == 0 for i in range(first, first + 8)]
    assert all(len(part) == 1 for look, part in found if look)


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        ({}, 3e-3),
        ({"env": "MinAtar/Breakout-v1", "net": {"kind": "cnn"}}, 1e-3),
        ({"env": "MinAtar/Breakout-v1", "net": {"kind": "cnn"}, "lr": 3e-3}, 3e-3),
    ],
)
def test_the_learning_rate_is_the_networks_unless_it_is_given(given, rate):
    config = PPOConfig(**given)
    assert config.lr == rate
    assert PPOConfig.model_validate(config.model_dump()) == config
