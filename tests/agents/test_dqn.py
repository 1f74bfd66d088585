"""DQN: closed forms, stable-baselines3's numbers, what is refused, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from agents.dqn import DQN, DQNConfig, epsilon_greedy, permitted, q_target
from agents.envs.identity import REWARD_THRESHOLD
from harness.learner import Lanes, progress_of
from nets.lanes import Execution
from nets.registry import build

TINY = {"net": {"hidden_features": [8, 8]}, "batch": 16, "steps": 400, "buffer_size": 200, "eval_episodes": 2}
CARTPOLE = {
    "steps": 50_000, "lr": 2.3e-3, "batch": 64, "buffer_size": 100_000, "learning_starts": 1000, "gamma": 0.99,
    "target_update_interval": 10, "train_freq": 256, "gradient_steps": 128, "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04, "net": {"hidden_features": [256, 256]},
}  # fmt: skip


def started(seeds=(0,), dtype=torch.float64, mode="eager", **config):
    learner = DQN()
    lanes = Lanes((DQNConfig(**{**TINY, **config}),) * len(seeds), tuple(seeds), Execution(mode, dtype=dtype))
    return learner, learner.start(lanes)


def test_targets_are_the_published_ones():
    next_q, online = torch.tensor([[1.0, 3.0, 2.0]] * 3), torch.tensor([[0.0, 1.0, 5.0]] * 3)
    reward, discount = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.5, 0.25, 0.5])
    terminated = torch.tensor([False, False, True])
    plain = q_target(reward, discount, terminated, next_q, next_q.argmax(-1))
    assert plain.tolist() == [2.5, 1.75, 1.0]
    double = q_target(reward, discount, terminated, next_q, online.argmax(-1))
    assert double.tolist() == [2.0, 1.5, 1.0]
    mask = torch.tensor([[True, False, False], [True, False, True], [False, False, False]])
    best = permitted(next_q, mask).argmax(-1)
    assert q_target(reward, discount, terminated, next_q, best).tolist() == [1.5, 1.5, 1.0]


def test_actions_are_greedy_or_uniform_among_the_allowed():
    q = permitted(torch.tensor([1.0, 5.0, 2.0, 0.0]), torch.tensor([True, False, True, True]))
    u = (torch.arange(30_000) + 0.5) / 30_000
    actions = epsilon_greedy(q.expand(len(u), 4), u, torch.tensor(0.3))
    shares = actions.bincount(minlength=4) / len(u)
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.0, 0.1 + 0.7, 0.1]), rtol=0, atol=1e-3)
    assert (epsilon_greedy(q.expand(len(u), 4), u, torch.tensor(0.0)) == 2).all()
    nearly_one = torch.tensor([1 - 2.0**-24])
    assert epsilon_greedy(torch.zeros(1, 3), nearly_one, torch.tensor(1.0)).tolist() == [2]


def test_epsilon_is_the_mean_of_stable_baselines3s_schedule():
    from stable_baselines3.common.utils import LinearSchedule

    learner, _ = started(steps=1000, train_freq=7, n_envs=3, learning_starts=30, exploration_fraction=0.2)
    schedule = LinearSchedule(1.0, 0.05, 0.2)
    for progress in (0, 21, 42, 189, 210, 630):
        steps = progress + 3 * np.arange(7)
        expected = np.mean([1.0 if s < 30 else schedule(1 - s / 1000) for s in steps])
        assert float(learner._epsilon(progress)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("interval", "n_envs"), [(6, 2), (1, 2), (40, 1), (10, 1)])
def test_the_target_follows_in_environment_steps(interval: int, n_envs: int):
    learner, state = started(
        target_update_interval=interval, n_envs=n_envs, train_freq=4, tau=0.3, lr=0.0, learning_starts=300
    )
    state["target"] = {name: torch.zeros_like(p) for name, p in state["params"].items()}
    expected, calls = 0.0, 0  # share of the network in its target
    for _ in range(12):
        learner.advance(state)
        for _ in range(4):  # as DQN._on_step of stable-baselines3 counts
            calls += 1
            if calls % max(interval // n_envs, 1) == 0:
                expected = 0.3 + 0.7 * expected
        for name, p in state["params"].items():
            torch.testing.assert_close(state["target"][name], expected * p, rtol=1e-9, atol=1e-12)
    assert expected > 0


def test_gradient_steps_are_those_of_stable_baselines3():
    from stable_baselines3 import DQN as Theirs
    from stable_baselines3.common.logger import Logger
    from stable_baselines3.common.type_aliases import ReplayBufferSamples

    rates = {"lr": 1e-2, "max_grad_norm": 0.05}
    learner, state = started(dtype=torch.float32, learning_starts=16, train_freq=16, **rates)
    learner.advance(state)  # fills the replay and learns nothing yet
    state["target"] = {name: p + 0.1 for name, p in state["target"].items()}
    theirs = Theirs(
        "MlpPolicy", "CartPole-v1", learning_rate=1e-2, max_grad_norm=0.05, policy_kwargs={"net_arch": [8, 8]}
    )
    theirs._logger = Logger(None, [])
    for mine, net in ((state["params"], theirs.q_net), (state["target"], theirs.q_net_target)):
        net.load_state_dict(weights_like(net, mine))
    batches = [rows for _, rows, _ in learner.sampler.batches(state, 16, 5)]
    queue = iter(batches)

    def sample(*args, **kwargs):
        row = {name: t[0] for name, t in next(queue).items()}
        ends, reward = row["terminated"].float().unsqueeze(1), row["reward"].unsqueeze(1)
        return ReplayBufferSamples(row["obs"], row["action"].unsqueeze(1), row["next_obs"], ends, reward)

    theirs.replay_buffer.sample = sample
    theirs.train(5, 16)
    learned = (state["params"], state["adam"])
    for rows in batches:
        weight = torch.ones_like(rows["reward"])
        fixed = (state["target"], state["alive"], learner.hyper, learner.hyper["lr"])
        learned, _, _ = learner._update(learned, *fixed, rows, weight)
    expected = theirs.q_net.state_dict()
    for name, p in weights_like(theirs.q_net, learned[0]).items():
        torch.testing.assert_close(p, expected[name], rtol=0, atol=2e-6)
        assert not torch.allclose(p, weights_like(theirs.q_net, state["params"])[name], atol=1e-3)


def weights_like(net, params):
    """Lane 0's weights under another network's names: both sort by layer, bias before weight."""
    names = sorted(net.state_dict())
    return {name: params[own][0] for name, own in zip(names, sorted(params), strict=True)}


def test_nothing_is_learned_before_learning_starts_and_as_often_as_asked_after():
    learner, state = started(learning_starts=16, train_freq=4, n_envs=2, gradient_steps=-1)
    for progress, count in ((8, 0), (16, 0), (24, 8), (32, 16)):
        metrics = learner.advance(state)
        assert progress_of(state) == progress
        assert state["adam"]["count"].tolist() == [count]
        assert metrics["loss"].isnan().all() == (count == 0)


def test_prioritised_replay_learns_from_large_errors():
    learner, state = started(seeds=(0, 1), prioritised=True, learning_starts=8, gradient_steps=4)
    for _ in range(20):
        learner.advance(state)
    power = state["priority"]["power"].flatten(1)
    assert (power[:, :80] > 0).all()
    assert (power[:, 80:] == 0).all()
    assert (power[:, :76].std(1) > 0).all()


def test_environments_that_begin_anew_cut_their_returns():
    learner, state = started(env="Acrobot-v1", env_options={"render_mode": None}, n_step=3)
    learner.advance(state)
    learner.checkpointed(state)
    assert state["replay"]["truncated"][0, :, 0].nonzero().flatten().tolist() == [3]
    learner.close()
    learner, state = started(n_step=3)
    learner.advance(state)
    learner.checkpointed(state)  # a tensor environment goes on
    assert not state["replay"]["truncated"].any()


def test_sampled_episodes_have_the_final_epsilon():
    learner, state = started(exploration_final_eps=1.0, eval_sampled_episodes=200, eval_episodes=200)
    scores = learner.evaluate(state)
    assert scores["sampled_return"].shape == (1, 200)
    assert 20 < float(scores["sampled_return"].mean()) < 25  # CartPole's random policy: 22
    assert float(scores["return"].mean()) < 15  # an untrained network pushes one way


def test_networks_are_rebuilt_from_their_recipes():
    learner, state = started(seeds=(0, 1), dueling=True)
    net = learner.network(state, 1)
    twin = build(**{**net.recipe, "output": net.recipe["output"]})
    twin.load_state_dict(net.state_dict())
    obs = torch.rand(5, 4)
    assert torch.equal(twin(obs), net(obs))
    assert not torch.equal(learner.network(state, 0)(obs), net(obs))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"gradient_steps": 0}, "gradient_steps.*0 would learn nothing"),
        ({"steps": 100, "learning_starts": 100}, "learning_starts: 100 leaves no gradient step"),
        ({"buffer_size": 10, "train_freq": 16}, "buffer_size: 10 keeps 10 steps.*raise buffer_size"),
        ({"net": {"kind": "nature-cnn"}}, "net: "),
        ({"env": "Pendulum-v1"}, "box actions; this learner takes discrete"),
    ],
)
def test_what_cannot_learn_is_refused(config: dict, message: str):
    with pytest.raises(ValidationError, match=f"(?s){message}"):
        DQNConfig(**config)


def test_the_zoos_settings_can_be_said():
    acrobot = {"train_freq": 4, "gradient_steps": -1, "target_update_interval": 250, "learning_starts": 0}
    assert DQNConfig(env="Acrobot-v1", steps=100_000, **acrobot).updates == 4
    assert DQNConfig(**CARTPOLE).chunk == 256


def test_pixels_are_learned_from_as_bytes():
    rows = {"obs": torch.randint(256, (1, 4, 4, 36, 36), dtype=torch.uint8)}
    learner, _ = started()
    learner.net = build({"kind": "nature-cnn", "hidden_features": 8, "channels": [2, 2, 2]}, (4, 36, 36), 3)
    params = dict(learner.net.named_parameters())
    learner.lanes = Lanes(learner.lanes.configs, learner.lanes.seeds, Execution())
    expected = learner.net(rows["obs"][0].float() / 255)
    torch.testing.assert_close(learner._q(params, rows["obs"][0]), expected)


@pytest.mark.parametrize("env", ["Identity-v0", "MaskedIdentity-v0"])
def test_identities_are_learned_in_stable_baselines3s_number_of_steps(env: str):
    config = {"env": env, "steps": 1200, "gamma": 0.4, "lr": 2e-3, "learning_starts": 0, "batch": 32}
    learner, state = started(tuple(range(4)), torch.float32, **config, net={}, buffer_size=1200, eval_episodes=20)
    while progress_of(state) < 1200:
        learner.advance(state)
    assert (learner.evaluate(state)["return"].mean(1) >= REWARD_THRESHOLD).all()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_cartpole_is_solved_with_the_zoos_settings():
    learner, state = started(tuple(range(8)), torch.float32, "compiled", **CARTPOLE, eval_episodes=20)
    while progress_of(state) < DQNConfig(**CARTPOLE).budget:
        learner.advance(state)
    scores = learner.evaluate(state)["return"].mean(1).sort().values
    assert float(scores[2:6].mean()) >= 475  # interquartile mean
