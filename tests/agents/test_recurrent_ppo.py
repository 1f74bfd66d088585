"""Recurrent PPO: sequences against single steps, memory at ends and time limits, and what memory is good for."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from agents.envs.transition import Rollout
from agents.ppo import PPO
from agents.recurrent_ppo import RecurrentPPO, RecurrentPPOConfig
from harness.learner import Lanes, progress_of
from nets.lanes import Execution
from nets.recurrent_actor_critic import RecurrentActorCritic
from nets.returns import gae

SMALL = {"n_envs": 4, "n_steps": 12, "memory_features": 5, "hidden_features": (6,), "epochs": 2, "steps": 48}
RECALL = {"env": "Recall-v0", "n_envs": 128, "n_steps": 8, "steps": 25 * 1024, "epochs": 4, "lr": 1e-2}
KINDS = [("lstm", 1, False), ("lstm", 2, True), ("gru", 2, False), ("gru", 1, True)]


def trained(cls=RecurrentPPO, lanes=4, **fields):
    """(learner, state) at the end of a training."""
    config = cls.Config(**fields)
    learner = cls()
    state = learner.start(Lanes((config,) * lanes, tuple(range(lanes))))
    while progress_of(state) < config.budget:
        learner.advance(state)
    return learner, state


def started(**fields):
    """A learner of one lane in float64 and its state, after one rollout and its update."""
    config = RecurrentPPOConfig(**{**SMALL, **fields})
    learner = RecurrentPPO()
    state = learner.start(Lanes((config,), (3,), Execution(dtype=torch.float64)))
    learner.advance(state)
    return learner, state


def first(tree):
    """The only lane's part of a dict."""
    return {name: t[0] for name, t in tree.items()}


@pytest.mark.parametrize(("cell", "depth", "shared"), KINDS)
def test_a_sequence_equals_its_steps_with_resets_in_the_middle(cell, depth, shared):
    torch.manual_seed(0)
    encoder = {"kind": "mlp", "hidden_features": 6}
    net = RecurrentActorCritic((3,), 2, encoder, cell, 5, depth, (4,), shared=shared).double()
    obs, reset = torch.randn(4, 9, 3, dtype=torch.float64), torch.rand(4, 9) < 0.3
    before = {name: torch.randn(4, *shape, dtype=torch.float64) for name, shape in net.memory.items()}
    raw, value, after = net(obs, before, reset)
    memory = before
    for t in range(9):
        memory = {name: torch.where(reset[:, t, None, None], 0.0, m) for name, m in memory.items()}
        raw_t, value_t, memory = net(obs[:, t], memory)
        torch.testing.assert_close(raw[:, t], raw_t, rtol=0, atol=1e-12)
        torch.testing.assert_close(value[:, t], value_t, rtol=0, atol=1e-12)
    assert set(memory) == set(after) == set(net.memory)
    for name, m in memory.items():
        torch.testing.assert_close(after[name], m, rtol=0, atol=1e-12)
    assert reset[:, 1:].any()
    assert not torch.equal(net(obs, before)[1], value)  # resets do something


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_first_minibatch_sees_the_policy_that_collected(cell):
    """Sequences give the log-probabilities and values that were found step by step, over ends of episodes too."""
    learner, state = started(cell=cell, n_steps=40)
    params, before = first(state["params"]), first(state["envs"]["carry"])
    envs, rollout = learner.envs.collect(state["params"], state["envs"], progress_of(state))
    rollout = Rollout(*(t[0] for t in rollout))
    batch = learner._targets_of_one(params, first(learner.hyper), rollout, before)
    assert batch.reset.any()
    raw, value, after = learner._call(params, batch.rows.obs, batch.memory, batch.reset)
    log_prob = learner.spec.action.distribution(raw).log_prob(batch.rows.action)
    torch.testing.assert_close(log_prob, batch.rows.log_prob, rtol=0, atol=1e-12)
    torch.testing.assert_close(value, batch.rows.value, rtol=0, atol=1e-12)
    done = (rollout.terminated | rollout.truncated)[-1]
    for name, m in first(envs["carry"]).items():  # what the environments carry on is what the sequence ends with
        torch.testing.assert_close(m, torch.where(done[:, None, None], 0.0, after[name]), rtol=0, atol=1e-12)


def test_a_time_limit_counts_the_value_with_the_memory_that_led_there():
    """Where nothing ends, the next value is the next step's; where a limit cuts, it is the uncut episode's."""
    learner, state = started()
    params, hyper, before = first(state["params"]), first(learner.hyper), first(state["envs"]["carry"])
    torch.manual_seed(0)
    obs = torch.randn(6, 4, 4, dtype=torch.float64)
    no = torch.zeros(5, 4, dtype=torch.bool)
    cut = no.clone()
    cut[2] = True
    zeros, action = torch.zeros(5, 4, dtype=torch.float64), torch.zeros(5, 4, dtype=torch.long)
    common = (obs[:5], no[..., None][..., :0], action, zeros, obs[1:], no[..., None][..., :0], no)
    whole = learner._targets_of_one(params, hyper, Rollout(*common, no, zeros), before).rows
    limited = learner._targets_of_one(params, hyper, Rollout(*common, cut, zeros), before).rows
    torch.testing.assert_close(limited.value[:, :3], whole.value[:, :3], rtol=0, atol=0)
    assert not torch.equal(limited.value[:, 3], whole.value[:, 3])  # the memory was emptied
    delta = hyper["gamma"] * whole.value[:, 3] - whole.value[:, 2]  # equation 10 of Schulman et al. 2016, reward 0
    torch.testing.assert_close(limited.advantage[:, 2], delta, rtol=0, atol=1e-12)
    after = torch.cat([whole.value.t()[1:], learner._call(params, obs.transpose(0, 1), before)[1].t()[5:]])
    expected = gae(Rollout(*common, no, zeros), whole.value.t(), after, hyper["gamma"], hyper["gae_lambda"])
    torch.testing.assert_close(whole.advantage.t(), expected, rtol=0, atol=1e-12)


def test_target_kl_stops_its_lane_alone():
    configs = [RecurrentPPOConfig(**{**SMALL, "lr": 0.05}, target_kl=kl) for kl in (0.0, 1e-5)]
    learner = RecurrentPPO()
    state = learner.start(Lanes(tuple(configs), (1, 2)))
    steps = learner.advance(state)["steps_taken"]
    assert steps[0] == 1.0
    assert 0 < steps[1] < 1


@pytest.mark.parametrize("kind", ["MultiDiscrete", "MultiBinary", "Box"])
def test_every_action_space_trains(kind):
    encoder = {"kind": "mlp", "hidden_features": (6,)}
    wrappers = ["normalise-observations", "normalise-rewards"]
    fields = {**SMALL, "env": f"Identity{kind}-v0", "minibatches": 2, "encoder": encoder, "shared": True}
    learner, state = trained(lanes=2, **fields, wrappers=wrappers, eval_episodes=2)
    assert learner.evaluate(state)["return"].shape == (2, 2)
    raw, value, memory = learner.network(state, 1)(torch.zeros(3, *learner.spec.obs_shape))
    assert value.shape == (3,)
    assert torch.isfinite(raw).all()
    assert set(memory) == {"both", "both_cell"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_envs": 8, "minibatches": 3}, "n_envs = 8 is not a multiple of minibatches = 3"),
        ({"activation": "thanh"}, "network: .*known: "),
        ({"encoder": {"kind": "cnn"}}, "network: "),
        ({"n_envs": 1, "n_steps": 1}, "n_steps: "),
        ({"cell": "rnn"}, "cell"),
    ],
)
def test_config_refuses_what_cannot_work(fields, message):
    with pytest.raises(ValidationError, match=message):
        RecurrentPPOConfig(**fields)


def test_memory_learns_what_no_memory_can():
    """One of four cues, asked for eight steps later: without memory one answer in four is right."""
    common = {**RECALL, "lr_schedule": "constant", "gae_lambda": 0.95, "ent_coef": 0.01, "eval_episodes": 200}
    cells = {"cell": "gru", "memory_features": 16, "hidden_features": (), "clip_schedule": "constant"}
    learner, state = trained(**common, **cells, minibatches=4)
    assert (learner.evaluate(state)["return"].mean(1) >= 0.9).all()
    learner, state = trained(PPO, **common, batch=256)
    assert (learner.evaluate(state)["return"].mean(1) <= 0.4).all()


@pytest.mark.slow
def test_solves_cartpole_without_velocities():
    """The zoo's settings of ppo_lstm, which are the defaults; published: 500."""
    learner, state = trained(env="CartPoleNoVel-v1", eval_episodes=20)
    returns = np.sort(learner.evaluate(state)["return"].numpy().flatten())
    quarter = len(returns) // 4
    assert returns[quarter:-quarter].mean() >= 475
