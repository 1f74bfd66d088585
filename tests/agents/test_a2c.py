"""A2C's loss and returns against closed forms and torch, and its learning."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike

from agents.a2c import A2C, A2CConfig, a2c_loss
from agents.envs.transition import Rollout
from harness.learner import Lanes, progress_of
from nets.distributions import Categorical
from nets.lanes import Execution
from nets.optim import rmsprop, rmsprop_tf_init
from nets.returns import gae

IDENTITY = {"n_envs": 2, "n_steps": 2, "updates": 4, "gamma": 0.4, "lr": 2e-3, "eval_episodes": 20}


def trained(lanes=4, mode="eager", **fields):
    """(learner, state) at the end of a training."""
    config = A2CConfig(**fields)
    learner = A2C()
    state = learner.start(Lanes((config,) * lanes, tuple(range(lanes)), Execution(mode)))
    while progress_of(state) < config.budget:
        learner.advance(state)
    return learner, state


def test_loss_and_gradient_at_known_values():
    """Uniform over 2 actions: d log pi(0) / d logits = (1/2, -1/2), the entropy is at its top."""
    logits = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    value = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    action, advantage = torch.tensor([0, 1]), torch.tensor([3.0, -1.0], dtype=torch.float64)
    target = torch.tensor([2.0, 4.0], dtype=torch.float64)
    loss, log = a2c_loss(Categorical(logits), action, advantage, value, target, 0.1, 0.5)
    loss.backward()
    loss, log = loss.detach(), {name: part.detach() for name, part in log.items()}
    assert float(log["policy_loss"]) == pytest.approx(np.log(2) * (3 - 1) / 2)
    assert float(log["value_loss"]) == pytest.approx((1 + 4) / 2)
    assert float(log["entropy"]) == pytest.approx(np.log(2))
    assert float(loss) == pytest.approx(np.log(2) + 0.5 * 2.5 - 0.1 * np.log(2))
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.75, 0.75], [-0.25, 0.25]], dtype=torch.float64))
    torch.testing.assert_close(value.grad, torch.tensor([-0.5, -1.0], dtype=torch.float64))


def test_targets_at_lambda_1_are_n_step_returns():
    """R_t = r_t + gamma R_t+1, from the value after the last step (algorithm S3 of the paper), cut at an end."""
    reward = torch.tensor([[1.0], [2.0], [3.0], [4.0]], dtype=torch.float64)
    value, after = torch.randn(2, 4, 1, dtype=torch.float64)
    after[:-1] = value[1:]  # nothing ends, so the next observation is the one after
    no = torch.zeros(4, 1, dtype=torch.bool)
    end = torch.tensor([[False], [True], [False], [False]])
    for terminated, expected in (
        (no, 1 + 0.5 * (2 + 0.5 * (3 + 0.5 * (4 + 0.5 * after[3])))),
        (end, torch.tensor([1 + 0.5 * 2.0], dtype=torch.float64)),
    ):
        rollout = Rollout(*[reward] * 6, terminated, no, reward)
        found = gae(rollout, value, after, 0.5, 1.0) + value
        torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-12)


def test_rmsprop_tf_equals_the_one_of_stable_baselines3():
    torch.manual_seed(0)
    p, grads = torch.randn(3, 2, dtype=torch.float64), torch.randn(5, 3, 2, dtype=torch.float64)
    theirs = torch.nn.Parameter(p.clone())
    optimiser = RMSpropTFLike([theirs], lr=1e-2, alpha=0.9, eps=1e-5, momentum=0.5, weight_decay=0.1)
    params, state = {"p": p}, rmsprop_tf_init({"p": p})
    for grad in grads:
        theirs.grad = grad.clone()
        optimiser.step()
        options = {"decay": 0.9, "momentum": 0.5, "eps": 1e-5, "weight_decay": 0.1}
        params, state = rmsprop(params, {"p": grad}, state, 1e-2, under_root=True, **options)
    torch.testing.assert_close(params["p"], theirs.detach(), rtol=0, atol=1e-12)


def test_updates_of_one_chunk_change_nothing_but_the_boundaries():
    common = {"n_envs": 2, "n_steps": 3, "steps": 48, "lr_schedule": "linear"}
    _, one = trained(lanes=2, updates=1, **common)
    _, many = trained(lanes=2, updates=4, **common)
    assert progress_of(one) == progress_of(many) == 48
    for name, p in one["params"].items():
        assert torch.equal(p, many["params"][name])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimiser": "sgd"}, "rmsprop-tf"),
        ({"net": {"kind": "mlp", "activation": "thanh"}}, "net: .*known: "),
        ({"gamma": 1.5}, "gamma"),
    ],
)
def test_config_refuses_what_cannot_work(fields, message):
    with pytest.raises(ValidationError, match=message):
        A2CConfig(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"env": "Acrobot-v1", "n_envs": 16, "wrappers": ["normalise-observations", "normalise-rewards"]},
        {"env": "CartPole-v1", "n_envs": 8, "gamma": 0.995, "lr": 8.3e-4, "lr_schedule": "linear", "ent_coef": 1e-5},
        {
            "env": "Pendulum-v1", "n_envs": 8, "n_steps": 8, "gae_lambda": 0.9, "gamma": 0.9, "vf_coef": 0.4,
            "lr_schedule": "linear", "log_std_init": -2.0, "net": {"activation": "tanh", "init": "torch"},
        },
        {"env": "CartPole-v1", "optimiser": "rmsprop-tf", "shared": True, "ent_coef": 0.01, "vf_coef": 0.25},
    ],
)  # fmt: skip
def test_settings_of_the_zoo_train(fields):
    learner, state = trained(lanes=2, **{**fields, "updates": 1, "steps": 2 * fields.get("n_envs", 8) * 5})
    assert all(p.isfinite().all() for p in state["params"].values())
    assert learner.network(state, 1) is not None


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "kind", ["", "MultiDiscrete", pytest.param("MultiBinary", marks=SLOW), pytest.param("Box", marks=SLOW)]
)
def test_every_lane_learns_the_identity(kind):
    """stable-baselines3's threshold and number of steps.

    Of 24 seeds 24, 23, 23, 24 pass; of 12 of stable-baselines3's A2C (1 environment, 5 steps) 12, 12, 11, 11.
    """
    learner, state = trained(env=f"Identity{kind}-v0", steps=2000 if kind == "Box" else 1200, **IDENTITY)
    assert (learner.evaluate(state)["return"].mean(1) >= 90).all()


def test_sampled_returns_come_on_request():
    learner, state = trained(lanes=2, steps=40, updates=1, eval_episodes=2, eval_sampled_episodes=3)
    scores = learner.evaluate(state)
    assert (scores["return"].shape, scores["sampled_return"].shape) == ((2, 2), (2, 3))


@pytest.mark.slow
def test_solves_cartpole():
    learner, state = trained(lanes=8, mode="compiled", env="CartPole-v1", n_envs=8, steps=500_000, eval_episodes=20)
    returns = np.sort(learner.evaluate(state)["return"].numpy().flatten())
    quarter = len(returns) // 4
    assert returns[quarter:-quarter].mean() >= 475
