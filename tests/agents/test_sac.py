"""SAC: its pure functions against closed forms, its gradient step against stable-baselines3's, and its learning."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import distributions as reference

from agents.envs.spaces import EnvSpec, box
from agents.off_policy import Batch, uniform_of
from agents.sac import SAC, SACConfig, soft_target, temperature_gradient
from harness.learner import Lanes
from nets.distributions import SquashedGaussian
from nets.lanes import Execution
from tests.agents.sb3_side import copy_weights, equal_weights, give, rows, sb3_model

TINY = {"net": {"hidden_features": (8, 8)}, "batch": 8, "learning_starts": 4, "steps": 512, "buffer_size": 64}


def started(*configs, **execution):
    learner = SAC()
    rows = tuple(SACConfig(**{**TINY, **c}) for c in configs)
    return learner, learner.start(Lanes(rows, tuple(range(len(rows))), Execution(**execution)))


def test_soft_target_is_that_of_the_squashed_density():
    torch.manual_seed(0)
    raw, noise = 0.5 * torch.randn(5, 4).double(), torch.randn(5, 2).double().clamp(-2, 2)
    action, log_prob = SquashedGaussian(raw).sample_with_log_prob(noise)
    mean, log_std = raw.chunk(2, -1)
    density = reference.TransformedDistribution(reference.Normal(mean, log_std.exp()), [reference.TanhTransform()])
    reward, gamma, alpha = torch.randn(5).double(), 0.9, 0.3
    values = torch.randn(5, 2).double()
    terminated = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]).double()
    found = soft_target(Batch(raw, action, reward, raw, terminated), values, log_prob, alpha, gamma)
    soft = torch.minimum(values[:, 0], values[:, 1]) - alpha * density.log_prob(action).sum(-1)
    torch.testing.assert_close(found, torch.where(terminated > 0, reward, reward + gamma * soft))


def test_temperature_gradient_is_that_of_its_loss():
    log_alpha, log_prob = torch.tensor(0.7, requires_grad=True), torch.randn(16)
    (-(log_alpha * (log_prob - 1.5)).mean()).backward()
    torch.testing.assert_close(temperature_gradient(log_prob.mean(), -1.5), log_alpha.grad)


def test_uniform_numbers_from_normal_ones():
    quantiles = torch.linspace(0.05, 0.95, 19)
    normal = reference.Normal(0.0, 1.0).icdf(quantiles)
    torch.testing.assert_close(uniform_of(normal), 2 * quantiles - 1, atol=1e-6, rtol=0)


@pytest.mark.parametrize("ent_coef", ["auto", 0.25])
def test_gradient_steps_equal_those_of_stable_baselines3(ent_coef, monkeypatch):
    config = {"lr": 3e-3, "tau": 0.1, "gamma": 0.95, "ent_coef": ent_coef}
    learner, state = started({}, config, dtype=torch.float64)
    theirs = sb3_model(monkeypatch, "SAC", TINY, config)
    theirs.actor.action_dist.epsilon = 0.0  # theirs adds it inside the logarithm
    if ent_coef == "auto":
        theirs.log_ent_coef = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        theirs.ent_coef_optimizer = torch.optim.Adam([theirs.log_ent_coef], lr=3e-3)
    copy_weights(state["params"]["actor"], 1, theirs.actor)
    copy_weights(state["params"]["critic"], 1, theirs.critic)
    copy_weights(state["target"], 1, theirs.critic_target)
    learned = (state["params"], state["target"], state["adam"])
    for seed in range(4):
        batch, noise = rows(seed, lanes=2, size=8), torch.randn(2, 2, 8, 1, dtype=torch.float64)
        drawn = [noise[1, 1], noise[1, 0]]  # they draw for obs first

        def rsample(normal, _shape=(), drawn=drawn):
            return normal.loc + normal.scale * drawn.pop(0)

        monkeypatch.setattr(torch.distributions.Normal, "rsample", rsample)
        give(theirs, batch, lane=1)
        theirs.train(gradient_steps=1, batch_size=8)
        learned, log = learner._update(learned, state["alive"], learner.hyper, learner.hyper["lr"], batch, noise)
    params, target, _ = learned
    equal_weights(params["actor"], 1, theirs.actor)
    equal_weights(params["critic"], 1, theirs.critic)
    equal_weights(target, 1, theirs.critic_target)
    if ent_coef == "auto":
        assert float(params["temperature"]["log"][1]) == pytest.approx(float(theirs.log_ent_coef.detach()), abs=1e-9)
    else:
        assert float(log[1, 3]) == ent_coef


def test_every_lane_has_its_own_temperature():
    learner, state = started({}, {"ent_coef": 0.2}, {"target_entropy": 9.0}, {"ent_coef": 0.0}, {"lr": 0.0})
    for _ in range(4):
        metrics = learner.advance(state)
    learned, fixed, hot, none, still = metrics["temperature"].tolist()
    assert (fixed, none, still) == (pytest.approx(0.2), 0.0, 1.0)
    assert learned < 0.99  # the entropy is above -1
    assert hot > 1.01  # and below 9


@pytest.mark.parametrize(
    ("rhythm", "updates", "random"),
    [
        ({"learning_starts": 5}, 11, 5),  # after steps 6 to 16
        ({"learning_starts": 0}, 16, 0),
        ({"learning_starts": 4, "train_freq": 2, "gradient_steps": 3}, 18, 4),  # after steps 6, 8, ... 16
        ({"learning_starts": 8, "n_envs": 4, "train_freq": 2, "gradient_steps": -1}, 8, 1),  # after 16
    ],
)
def test_random_actions_first_and_gradient_steps_when_they_are_due(rhythm, updates, random):
    learner, state = started(rhythm)
    learner.advance(state)
    assert learner.chunk == 16
    assert float(state["adam"]["critic"]["count"][0]) == updates
    rounds = 16 // learner.lanes.config.round
    warm = []
    learner, state = started(rhythm)
    collect = learner.envs.collect
    learner.envs.collect = lambda params, *rest: warm.append(bool(params["warm"][0])) or collect(params, *rest)
    learner.advance(state)
    steps = learner.lanes.config.round
    assert len(warm) == rounds
    assert warm == [r * steps < learner.lanes.config.learning_starts for r in range(rounds)]
    assert sum(warm) == -(-random // steps)


def test_the_replay_holds_what_was_done_and_wraps():
    learner, state = started({"buffer_size": 24, "learning_starts": 500})
    for _ in range(2):
        learner.advance(state)
    replay = state["replay"]
    assert int(replay["added"][0]) == 32
    assert replay["action"].abs().max() <= 1
    later = slice(8, 23)  # steps 8 to 23; step 31 stands at 7
    assert torch.equal(replay["next_obs"][0, later], replay["obs"][0, 9:24])


def test_a_linear_schedule_ends_at_0():
    learner, state = started({"lr_schedule": "linear", "steps": 32})
    learner.advance(state)
    seen, update = [], learner._update
    learner._update = lambda *args: seen.append(float(args[3][0])) or update(*args)
    learner.advance(state)
    assert seen == pytest.approx([1e-3 * (1 - p / 32) for p in range(17, 33)])


def test_config_refuses_what_cannot_work():
    for wrong, told in (
        ({"env": "CartPole-v1"}, "env: 'CartPole-v1' has discrete actions"),
        ({"gradient_steps": 0}, "would learn nothing"),
        ({"learning_starts": 600}, "learning_starts: 600 leaves no gradient step"),
        ({"buffer_size": 3, "train_freq": 4}, "raise buffer_size"),
        ({"ent_coef": "automatic"}, "ent_coef"),
        ({"ent_coef": -0.1}, "ent_coef"),
        ({"net": {"hidden_features": ()}}, "net: "),
        ({"net": {"kind": "cnn"}}, "net: "),
    ):
        with pytest.raises(ValidationError, match=told):
            SACConfig(**{**TINY, **wrong})
    assert {"ent_coef", "target_entropy", "gamma", "tau", "lr"} <= set(SACConfig.per_lane_fields())


def test_actions_without_bounds_are_refused(monkeypatch):
    unbounded = EnvSpec("Unbounded-v0", (3,), box((-1.0, -np.inf), (1.0, np.inf)))
    monkeypatch.setattr("agents.envs.config.spec_of", lambda *_: unbounded)
    with pytest.raises(ValidationError, match="env: an action of 'Unbounded-v0' has no finite bounds"):
        SACConfig(env="Unbounded-v0")


def test_the_network_is_the_policy():
    learner, state = started({}, {})
    learner.advance(state)
    network = learner.network(state, 1)
    obs = torch.randn(2, 4, 3)
    acting = {name: value[1] for name, value in learner.acting(state, warm=False).items() if name == "warm"}
    acting["actor"] = {name: p[1] for name, p in state["params"]["actor"].items()}
    action, _ = learner._act(acting, {}, obs[1], torch.zeros(4, 0), None)
    torch.testing.assert_close(SquashedGaussian(network(obs[1])).mode(), action)
    assert network.recipe["output"]["kind"] == "squashed-gaussian"


def test_learns_the_identity():
    """Stable-baselines3's own threshold (tests/test_identity.py), in every lane."""
    config = {"env": "IdentityBox-v0", "net": {"hidden_features": (64, 64)}, "gamma": 0.4, "lr": 3e-3,
              "train_freq": 2, "batch": 64, "learning_starts": 100, "steps": 400, "buffer_size": 400,
              "eval_episodes": 20}  # fmt: skip
    learner, state = started(*[config] * 4)
    while int(state["progress"][0]) < 400:
        learner.advance(state)
    assert learner.evaluate(state)["return"].mean(1).min() >= 90


@pytest.mark.slow
def test_solves_pendulum():
    config = SACConfig(lr=1e-3, net={"hidden_features": (64, 64)}, batch=128)
    learner = SAC()
    state = learner.start(Lanes((config,) * 8, tuple(range(8)), Execution("compiled")))
    while int(state["progress"][0]) < config.budget:
        learner.advance(state)
    returns = np.sort(learner.evaluate(state)["return"].mean(1).numpy())
    assert returns[2:-2].mean() >= -180
