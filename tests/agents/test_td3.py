"""TD3: its pure functions against closed forms, its gradient steps against stable-baselines3's, and its learning."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from agents.off_policy import Batch
from agents.td3 import TD3, TD3Config, clipped_target, smoothed
from harness.learner import Lanes
from nets.lanes import Execution
from tests.agents.sb3_side import copy_weights, equal_weights, give, rows, sb3_model

TINY = {"net": {"hidden_features": (8, 8)}, "batch": 8, "learning_starts": 4, "steps": 512, "buffer_size": 64}


def started(*configs, **execution):
    learner = TD3()
    rows = tuple(TD3Config(**{**TINY, **c}) for c in configs)
    return learner, learner.start(Lanes(rows, tuple(range(len(rows))), Execution(**execution)))


def test_target_with_clipped_noise():
    action, noise = torch.tensor([[0.5], [0.5], [0.9], [-0.9]]), torch.tensor([[1.0], [-4.0], [4.0], [-1.0]])
    found = smoothed(action, noise, 0.2, torch.tensor(0.5))
    torch.testing.assert_close(found, torch.tensor([[0.7], [0.0], [1.0], [-1.0]]))
    values = torch.tensor([[1.0, 2.0], [4.0, 3.0]])
    nothing = torch.zeros(2, 1)
    batch = Batch(nothing, nothing, torch.tensor([10.0, 20.0]), nothing, torch.tensor([0.0, 1.0]))
    assert clipped_target(batch, values, 0.5).tolist() == [10.5, 20.0]


@pytest.mark.parametrize(
    ("theirs", "own"),
    [
        *((("TD3", {"policy_delay": delay}), {"policy_delay": delay}) for delay in (1, 2, 3)),
        (("DDPG", {}), {"n_critics": 1, "policy_delay": 1, "target_noise": 0.0, "target_noise_clip": 0.0}),
    ],
)
def test_gradient_steps_equal_those_of_stable_baselines3(theirs, own, monkeypatch):
    config, delay = {"lr": 3e-3, "tau": 0.1, "gamma": 0.95}, own["policy_delay"]
    learner, state = started(own, {**config, **own}, dtype=torch.float64)
    theirs = sb3_model(monkeypatch, theirs[0], TINY, config, **theirs[1])
    pairs = (
        (lambda: state["params"]["actor"], theirs.actor),
        (lambda: state["params"]["critic"], theirs.critic),
        (lambda: state["target"]["actor"], theirs.actor_target),
        (lambda: state["target"]["critic"], theirs.critic_target),
    )
    for ours, module in pairs:
        copy_weights(ours(), 1, module)
    for seed in range(5):
        batch, noise = rows(seed, lanes=2, size=8), 4 * torch.randn(2, 8, 1, dtype=torch.float64)
        give(theirs, batch, lane=1)

        def normal_(tensor, mean, std, drawn=noise[1]):
            return tensor.copy_(mean + std * drawn)

        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "normal_", normal_)
            theirs.train(gradient_steps=1, batch_size=8)
        losses = learner._train(state, learner.hyper["lr"], batch, noise)
        assert torch.isfinite(losses[:, 1]).all() == ((seed + 1) % delay == 0)
        for ours, module in pairs:
            equal_weights(ours(), 1, module)


def test_the_actor_is_updated_late_and_the_delay_goes_on_over_chunks():
    learner, state = started({"policy_delay": 3, "learning_starts": 5})
    for updates, late in ((11, 3), (27, 9)):
        learner.advance(state)
        assert int(state["updates"][0]) == float(state["adam"]["critic"]["count"][0]) == updates
        assert float(state["adam"]["actor"]["count"][0]) == late


@pytest.mark.parametrize(("noise", "kept", "added"), [("normal", 0.0, 1.0), ("ou", 1 - 0.15 * 0.01, math.sqrt(0.01))])
def test_exploration_noise(noise, kept, added):
    learner, state = started({"noise": noise, "noise_std": 0.3})
    actor = {name: p[0] for name, p in state["params"]["actor"].items()}
    params = {"actor": actor, "std": torch.tensor(0.3), "warm": torch.tensor(False)}
    obs, drawn, mask = torch.randn(2, 3), torch.tensor([[1.0], [-20.0]]), torch.zeros(2, 0)
    greedy, _ = learner._act(params, {"noise": torch.zeros(2, 1)}, obs, mask, None)
    before = torch.tensor([[0.2], [-0.1]])
    action, carry = learner._act(params, {"noise": before}, obs, mask, drawn)
    wander = kept * before + added * 0.3 * drawn
    torch.testing.assert_close(carry["noise"], wander)
    torch.testing.assert_close(action, (greedy + wander).clamp(-1, 1))
    random, _ = learner._act({**params, "warm": torch.tensor(True)}, {"noise": before}, obs, mask, drawn)
    torch.testing.assert_close(random, torch.erf(drawn / math.sqrt(2)))


def test_wandering_noise_starts_anew_with_an_episode():
    learner, state = started({"noise": "ou", "steps": 400, "learning_starts": 399})
    for _ in range(12):  # 192 of 200 steps
        learner.advance(state)
    assert state["envs"]["carry"]["noise"].abs().min() > 0
    collect, seen = learner.envs.collect, []

    def spied(params, envs, progress):
        seen.append(float(envs["carry"]["noise"][0, 0, 0]))
        return collect(params, envs, progress)

    learner.envs.collect = spied
    learner.advance(state)
    assert [i for i, x in enumerate(seen) if x == 0] == [8]


def test_every_lane_has_its_own_noise():
    learner, state = started({"noise_std": 0.0}, {"noise_std": 0.5}, {"noise_std": 0.5, "lr": 0.0})
    state["params"]["actor"] = {name: torch.zeros_like(p) for name, p in state["params"]["actor"].items()}
    acting = learner.acting(state, warm=False)
    _, rollout = learner.envs.collect(acting, state["envs"], 0)
    quiet, loud, other = rollout.action[:, 0, 0, 0].tolist()
    assert quiet == 0
    assert loud != 0
    assert other not in (0, loud)


def test_config_refuses_what_cannot_work():
    for wrong, told in (
        ({"env": "CartPole-v1"}, "env: 'CartPole-v1' has discrete actions"),
        ({"policy_delay": 0}, "policy_delay"),
        ({"noise": "pink"}, "noise"),
    ):
        with pytest.raises(ValidationError, match=told):
            TD3Config(**{**TINY, **wrong})


def test_the_network_is_the_policy():
    learner, state = started({}, {})
    learner.advance(state)
    network, obs = learner.network(state, 1), torch.randn(4, 3)
    params = {"actor": {name: p[1] for name, p in state["params"]["actor"].items()}}
    action, _ = learner._act(params, {}, obs, torch.zeros(4, 0), None)
    torch.testing.assert_close(network(obs), action)
    assert network.recipe["output"] == {"kind": "tanh", "out_features": 1}


def test_learns_the_identity():
    """Stable-baselines3's own threshold (tests/test_identity.py), in every lane."""
    config = {"env": "IdentityBox-v0", "net": {"hidden_features": (64, 64)}, "gamma": 0.95, "lr": 1e-3, "batch": 64,
              "learning_starts": 100, "steps": 400, "buffer_size": 400, "eval_episodes": 20}  # fmt: skip
    learner, state = started(*[config] * 4)
    while int(state["progress"][0]) < 400:
        learner.advance(state)
    assert learner.evaluate(state)["return"].mean(1).min() >= 90


@pytest.mark.slow
def test_solves_pendulum():
    config = TD3Config(gamma=0.98, net={"hidden_features": (64, 64)}, batch=128, learning_starts=1000)
    learner = TD3()
    state = learner.start(Lanes((config,) * 8, tuple(range(8)), Execution("compiled")))
    while int(state["progress"][0]) < config.budget:
        learner.advance(state)
    returns = np.sort(learner.evaluate(state)["return"].mean(1).numpy())
    assert returns[2:-2].mean() >= -180
