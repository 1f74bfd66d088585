"""`learner: sb3`: driven as stable-baselines3's own `learn`, checked at plan time, with our encoders inside."""

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from stable_baselines3.common.logger import Logger

from agents.envs.identity import REWARD_THRESHOLD
from agents.sb3 import SB3, SB3Config, _agent, _environments
from agents.sb3_envs import TensorGym, make_env
from harness.driver import Driver
from harness.experiment import load_experiment
from harness.learner import Lanes
from harness.randomness import derive_seed
from tests.agents.sb3_cases import CASES, HER, QUICK

ALGORITHMS = pytest.mark.parametrize(
    "algo", [pytest.param(a, marks=() if a in QUICK else pytest.mark.slow) for a in CASES]
)
SEED = 3
IDENTITY_STEPS = 3000
ON_POLICY = {"n_steps": 256, "n_epochs": 4, "learning_rate": 3e-3, "gamma": 0.5}
IDENTITY = {
    "PPO": ON_POLICY,
    "MaskablePPO": ON_POLICY,
    "A2C": {"learning_rate": 3e-3, "gamma": 0.5},
    "DQN": {"learning_rate": 1e-3, "gamma": 0.5, "exploration_fraction": 0.5, "target_update_interval": 100},
    "SAC": {"learning_rate": 1e-3, "gamma": 0.5},
    "TD3": {"gamma": 0.5, "action_noise": {"kind": "normal", "std": 0.1}},
}
GOALS = {"algo": "SAC", "env": "tests.agents.goal_env:Reaching-v0", "policy": "MultiInputPolicy"}


class Rates(Logger):
    """Keeps every learning rate that is recorded."""

    def __init__(self):
        super().__init__(None, [])
        self.seen = []

    def record(self, key, value, exclude=None):
        if key == "train/learning_rate":
            self.seen.append(value)


def config_of(algo, **more):
    return SB3Config(**{"steps": 700, "eval_episodes": 2, **CASES[algo], **more})


def started(config, seed=SEED):
    learner = SB3()
    return learner, learner.start(Lanes((config,), (seed,)))


def trained(config, seed=SEED):
    learner, state = started(config, seed)
    while int(state["progress"][0]) < config.budget:
        learner.advance(state)
    return learner, state


@ALGORITHMS
def test_weights_and_learning_rates_are_those_of_one_call_of_learn(algo):
    config = config_of(algo)
    theirs = _agent(config, _environments(config), "cpu", SEED)
    theirs.set_logger(Rates())
    theirs.learn(config.steps)
    learner, state = started(config)
    learner.model.set_logger(Rates())
    while int(state["progress"][0]) < config.budget:
        learner.advance(state)
    assert learner.model.num_timesteps == theirs.num_timesteps
    assert learner.model._n_updates == theirs._n_updates > 0
    assert learner.model.logger.seen == theirs.logger.seen
    if isinstance(CASES[algo]["hyper"].get("learning_rate"), str):
        assert len(set(theirs.logger.seen)) > 2
    for (name, ours), other in zip(
        learner.model.policy.state_dict().items(), theirs.policy.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, other), name


@pytest.mark.parametrize(
    ("algo", "schedules", "steps"),
    [
        ("PPO", ("learning_rate", "clip_range", "clip_range_vf"), 130),  # the second of two rollouts ends at 256
        ("A2C", ("learning_rate",), 70),
        ("TRPO", ("learning_rate",), 130),
        ("RecurrentPPO", ("learning_rate", "clip_range"), 130),
        ("MaskablePPO", ("learning_rate", "clip_range"), 130),
        ("QRDQN", ("learning_rate",), 77),  # a round of 8 steps goes beyond the end
        ("SAC", ("learning_rate",), 77),
    ],
)
def test_no_schedule_turns_negative_in_a_rollout_beyond_the_end(algo, schedules, steps):
    hyper = {**CASES[algo]["hyper"], **dict.fromkeys(schedules, "lin_0.5")}
    learner, state = started(config_of(algo, steps=steps, hyper=hyper))
    learner.model.set_logger(Rates())
    while int(state["progress"][0]) < learner.lanes.config.budget:
        learner.advance(state)
    assert learner.model.num_timesteps > steps
    left = learner.model._current_progress_remaining
    assert left < 0
    inner = {"learning_rate": "lr_schedule", "delta_std": "delta_std_schedule"}
    assert [getattr(learner.model, inner.get(name, name))(left) for name in schedules] == [0.0] * len(schedules)
    assert min(learner.model.logger.seen) == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algo": "PP0"}, "unknown algorithm `PP0`; did you mean `PPO`?"),
        ({"hyper": {"n_step": 5}}, "hyper: unknown argument of PPO `n_step`; did you mean `n_steps`?"),
        ({"hyper": {"n_steps": 2.5}}, "hyper.n_steps: 2.5 is no int"),
        ({"hyper": {"gamma": "0.9"}}, "hyper.gamma: '0.9' is no float"),
        ({"hyper": {"learning_rate": "linear_1"}}, "hyper.learning_rate: 'linear_1' is neither a number nor"),
        ({"hyper": {"tensorboard_log": "x"}}, "hyper: unknown argument of PPO `tensorboard_log`"),
        ({"hyper": {"batch_size": 1}}, "stable-baselines3's PPO does not take this: `batch_size` must be greater"),
        ({"algo": "SAC"}, "env: 'CartPole-v1' has discrete actions; SAC takes box"),
        ({"algo": "MaskablePPO"}, "env: 'CartPole-v1' gives no action masks, which MaskablePPO needs"),
        ({"policy": "MlpPolice"}, "policy: unknown policy of PPO `MlpPolice`; did you mean `MlpPolicy`?"),
        ({"policy_kwargs": {"net_arc": []}}, "policy_kwargs: unknown argument of ActorCriticPolicy `net_arc`"),
        ({"policy_kwargs": {"activation_fn": "rulu"}}, "policy_kwargs.activation_fn: unknown activation `rulu`"),
        ({"policy_kwargs": {"optimizer_class": "Adams"}}, "did you mean `Adam`?"),
        ({"hyper": {"use_sde": True}}, "gSDE"),
        ({"encoder": {"kind": "cnn"}}, "encoder"),
        ({"encoder_from": "0" * 16}, "encoder_from: the policy has no encoder of ours"),
        ({"env_workers": 2}, "env_workers: stable-baselines3's environments are stepped in the worker itself"),
        (
            {"algo": "TD3", "env": "Pendulum-v1", "hyper": {"action_noise": {"kind": "norml", "std": 0.1}}},
            "hyper.action_noise.kind: unknown noise `norml`; did you mean `normal`?",
        ),
        ({"policy": "MultiInputPolicy"}, "policy: the observations of 'CartPole-v1' have no names, which MultiInput"),
        ({"hyper": {"replay_buffer_class": "HerReplayBuffer"}}, "unknown argument of PPO `replay_buffer_class`"),
        ({"algo": "DQN", "hyper": {"optimize_memory_usage": True}}, "optimize_memory_usage: only false is offered"),
        ({**GOALS, "hyper": {"replay_buffer_class": "HerBuffer"}}, "did you mean `HerReplayBuffer`?"),
        ({**GOALS, "hyper": {**HER, "n_steps": 3}}, "hyper.n_steps: HerReplayBuffer has returns of one step; give 1"),
        ({**GOALS, "encoder": {"kind": "mlp"}}, "encoder: ours see observations as one array"),
        ({**GOALS, "hyper": {"replay_buffer_kwargs": {"n_goals": 4}}}, "argument of HerReplayBuffer `n_goals`"),
        ({**GOALS, "hyper": {"replay_buffer_kwargs": {"n_sampled_goal": 0}}}, "0 is not a whole number of 1 or more"),
        (
            {**GOALS, "hyper": {"replay_buffer_kwargs": {"goal_selection_strategy": "futur"}}},
            "unknown strategy `futur`; did you mean `future`?",
        ),
    ],
)
def test_what_does_not_fit_is_said_at_plan_time(change, message):
    with pytest.raises(ValidationError) as error:
        SB3Config(**{"env": "CartPole-v1", **change})
    assert message in str(error.value)


def test_a_file_is_checked_as_strictly_as_python_and_may_hold_lists(tmp_path):
    trial = {"learner": "sb3", **CASES["DDPG"], "wrappers": ["normalise-rewards"], "steps": 512}
    file = tmp_path / "e.yaml"
    file.write_text(json.dumps({"name": "e", "trials": [trial]}))
    assert load_experiment(file).trials[0].config["hyper"]["train_freq"] == [1, "episode"]


def test_the_network_acts_as_the_policy_does_on_raw_observations():
    learner, state = trained(config_of("A2C"))
    obs = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    seen = learner.model.get_vec_normalize_env().normalize_obs(obs)
    expected, _ = learner.model.policy.predict(seen, deterministic=True)
    np.testing.assert_array_equal(learner.network(state, 0)(torch.as_tensor(obs)).detach().numpy(), expected)


def test_goals_that_were_reached_are_replayed_and_their_episodes_end_at_a_checkpoint():
    learner, state = started(config_of("TD3+HER", steps=300))
    learner.advance(state)
    buffer = learner.model.replay_buffer
    learner.checkpointed(state)
    assert (buffer._current_ep_start == buffer.pos).all()
    assert (buffer.ep_length[buffer.pos - 1] > 0).all()  # the newest rows can be drawn too
    rows = buffer.sample(400)
    reached = (rows.next_observations["achieved_goal"] - rows.observations["desired_goal"]).abs().amax(-1) <= 0.1
    assert torch.equal(rows.rewards[:, 0] == 0, reached)
    assert reached.float().mean() > 2 * (buffer.rewards == 0).mean()


def test_observations_by_name_come_to_the_exported_network_side_by_side():
    learner, state = trained(config_of("TD3+HER", steps=300))
    flat = np.random.default_rng(0).uniform(-1, 1, (20, 6))
    names = ("achieved_goal", "desired_goal", "observation")
    named = {name: flat[:, 2 * i : 2 * i + 2] for i, name in enumerate(names)}
    seen = learner.model.get_vec_normalize_env().normalize_obs(named)
    expected, _ = learner.model.policy.predict(seen, deterministic=True)
    np.testing.assert_allclose(learner.network(state, 0)(torch.as_tensor(flat)).detach().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("algo", ["PPO", "SAC"])
def test_our_encoders_are_the_policies_eyes_and_are_saved_once(algo):
    config = config_of(algo, steps=300, encoder={"kind": "mlp", "hidden_features": [8], "norm": "layer"})
    learner, state = started(config)
    before = {n: t.clone() for n, t in learner.network(state, 0).state_dict().items()}
    learner.advance(state)
    learner.advance(state)
    after = learner.network(state, 0).state_dict()
    changed = [n for n in after if ".encoder." in n and not torch.equal(after[n], before[n])]
    assert changed
    assert len({n.split("features_extractor.")[0] for n in after if ".encoder." in n}) == (1 if algo == "PPO" else 3)


def test_a_frozen_encoder_from_elsewhere_stays_as_it_is():
    config = config_of("PPO", encoder={"kind": "mlp", "hidden_features": [8]}, encoder_from="0" * 16,
                       freeze_encoder=True)  # fmt: skip
    source, source_state = started(config_of("PPO", encoder={"kind": "mlp", "hidden_features": [8]}), seed=9)
    weights = source.network(source_state, 0).state_dict()
    learner = SB3()
    state = learner.start(Lanes((config,), (SEED,), encoders=(weights,)))
    learner.advance(state)
    after = learner.network(state, 0).state_dict()
    encoder = [n for n in after if ".encoder." in n]
    assert encoder
    assert all(torch.equal(after[n], weights[n]) for n in encoder)
    assert not torch.equal(after["policy.action_net.weight"], weights["policy.action_net.weight"])


def test_one_of_our_tensor_environments_that_gymnasium_has_not():
    config = SB3Config(algo="DQN", env="DeepSea-v0", steps=256, hyper={"learning_starts": 50, "buffer_size": 300})
    env = make_env(config)
    assert isinstance(env, TensorGym)
    first, _ = env.reset(seed=4)
    again, _ = env.reset(seed=4)
    np.testing.assert_array_equal(first, again)
    assert env.observation_space.contains(first)
    learner, state = trained(config)
    assert learner.evaluate(state)["return"].isfinite().all()


@pytest.mark.parametrize(
    ("env", "algo"),
    [
        ("Identity-v0", "PPO"),
        *(
            pytest.param(f"Identity{env}-v0", algo, marks=pytest.mark.slow)
            for env, algos in {
                "": ("A2C", "DQN"),
                "MultiDiscrete": ("PPO", "A2C"),
                "MultiBinary": ("PPO", "A2C"),
                "Box": ("A2C", "SAC", "TD3"),
            }.items()
            for algo in algos
        ),
        pytest.param("MaskedIdentity-v0", "MaskablePPO", marks=pytest.mark.slow),
    ],
)
def test_identity_environments(env, algo):
    """Stable-baselines3's own threshold, 90 of 100."""
    config = SB3Config(algo=algo, env=env, steps=IDENTITY_STEPS, eval_episodes=5, hyper=IDENTITY.get(algo, {}))
    learner, state = trained(config, seed=0)
    assert learner.evaluate(state)["return"].mean() > REWARD_THRESHOLD


def test_through_the_driver_nothing_of_stable_baselines3_reaches_the_terminal(tmp_path, capfd, recwarn):
    trial = {"learner": "sb3", "seeds": 1, **CASES["PPO"], "steps": 700, "eval_episodes": 2}
    trial["hyper"] = {**trial["hyper"], "batch_size": 33}  # it warns of a truncated minibatch
    file = tmp_path / "e.yaml"
    file.write_text(json.dumps({"name": "e", "trials": [trial]}))
    outcome = Driver(load_experiment(file), tmp_path / "runs", executor="inline").train()
    assert [t["state"] for t in outcome.trials] == ["done"]
    text = "".join(capfd.readouterr())
    assert "mini-batch" not in text
    assert "stable" not in text.lower()
    assert [w for w in recwarn if "mini-batch" in str(w.message)] == []


def endless(monkeypatch, **more):
    monkeypatch.setattr("agents.envs.describing.is_trusted", lambda *_: True)  # no process: seconds
    env = "tests.agents.broken_env:Endless-v0"
    return started(SB3Config(**{"env": env, "steps": 16, "eval_episodes": 2, "eval_max_steps": 20, **more}))


def test_an_episode_that_never_ends_is_cut_off_in_evaluation(monkeypatch):
    learner, state = endless(monkeypatch)
    monkeypatch.setattr(learner.model, "predict", lambda obs, **rest: (np.zeros(len(obs), int), None))
    assert learner.evaluate(state)["return"].tolist() == [[20.0, 20.0]]
    (said,) = learner.lanes.warnings.values()
    assert "Endless-v0' has no time limit: an episode of an evaluation was cut off after 20 steps" in said
    learner.close()


@pytest.mark.parametrize(
    "more",
    [
        {"algo": "ARS", "hyper": {"n_delta": 1, "zero_policy": True}},
        {"algo": "DQN", "hyper": {"train_freq": [1, "episode"], "exploration_final_eps": 0.0, "learning_starts": 99}},
    ],
)
def test_training_that_waits_for_an_episodes_end_sees_one(more, monkeypatch):
    learner, state = endless(monkeypatch, **more)
    monkeypatch.setattr(learner.envs.action_space, "sample", lambda mask=None: 0)
    learner.advance(state)
    assert 20 in [episode["l"] for episode in learner.model.ep_info_buffer]
    learner.close()


def test_the_worker_may_let_go_of_a_rollout_and_of_an_evaluation(monkeypatch):
    learner, state = endless(monkeypatch, eval_max_steps=10**9)

    def let_go():
        raise KeyboardInterrupt

    object.__setattr__(learner.lanes, "heed", let_go)
    for step in (learner.advance, learner.evaluate):
        with pytest.raises(KeyboardInterrupt):
            step(state)
    learner.close()


def test_environments_get_seeds_of_31_bits(monkeypatch):
    monkeypatch.setattr("agents.envs.describing.is_trusted", lambda *_: True)  # no process: seconds
    env = "tests.agents.broken_env:Narrow-v0"
    config = SB3Config(env=env, n_envs=2, steps=16, eval_episodes=2, hyper={"n_steps": 8, "batch_size": 8})
    for seed in (2**63 - 1, 2**31 - 1):
        learner, state = started(config, seed)
        learner.advance(state)
        learner.checkpointed(state)
        assert learner.evaluate(state)["return"].shape == (1, 2)
        learner.close()


def test_evaluation_plays_episodes_of_the_network_with_frozen_moments():
    learner, state = trained(config_of("A2C"))
    network, progress = learner.network(state, 0), int(state["progress"][0])
    for n, found in enumerate(learner.evaluate(state)["return"][0].tolist()):
        env = make_env(learner.lanes.config, evaluating=True)
        obs, _ = env.reset(seed=derive_seed(SEED, f"env/evaluate/0/{n}", progress))
        total, over = 0.0, False
        while not over:
            action = network(torch.as_tensor(obs[None]))[0].detach().numpy()
            obs, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
        assert found == pytest.approx(total, rel=1e-4)
