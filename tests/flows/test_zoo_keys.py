"""Every key of an entry of rl-baselines3-zoo has its counterpart, changes nothing, or is an error."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticCnnPolicy

from agents.sb3_arguments import ALGORITHMS as CLASSES
from flows import zoo_translation
from flows.zoo_translation import ALGORITHMS, OWN
from flows.zoo_values import Untranslatable
from nets.registry import build


def translate(env: str, entry: dict, algo: str, own: bool) -> dict:
    return zoo_translation.translate(env, entry, algo, own).trial


ATARI = "stable_baselines3.common.atari_wrappers.AtariWrapper"
RESIZE = "rl_zoo3.wrappers.YAMLCompatResizeObservation"
GREY = "gymnasium.wrappers.transform_observation.GrayscaleObservation"


@pytest.mark.parametrize(
    ("given", "frames", "expected"),
    [
        (ATARI, None, [{"atari": {"frames": 1}}]),
        ([ATARI], 4, [{"atari": {"frames": 4}}]),
        ([{ATARI: {"terminal_on_life_loss": False, "clip_reward": False, "noop_max": 5, "frame_skip": 2}}], 4,
         [{"atari": {"frames": 4, "noop_max": 5, "frame_skip": 2, "life_loss": False, "clip_rewards": False}}]),
        ([{ATARI: {"action_repeat_probability": 0.0, "screen_size": 42}}], 1,
         [{"atari": {"frames": 1, "screen_size": 42}}]),
        ([ATARI, {"rl_zoo3.wrappers.FrameSkip": {"skip": 3}}], 4,
         [{"atari": {"frames": 1}}, {"frame-skip": {"skip": 3}}, {"frame-stack": {"frames": 4}}]),
        ("rl_zoo3.wrappers.FrameSkip", 1, ["frame-skip"]),
        ([{"rl_zoo3.wrappers.HistoryWrapper": {"horizon": 5}}], None, [{"history": {"horizon": 5}}]),
        ([{RESIZE: {"shape": [64, 32]}}, {GREY: {"keep_dim": True}}], 2,
         [{"resize": {"height": 64, "width": 32}}, "greyscale", {"frame-stack": {"frames": 2}}]),
        ({"gym.wrappers.ResizeObservation": {"shape": 64}}, None, [{"resize": {"height": 64, "width": 64}}]),
        ("sb3_contrib.common.wrappers.TimeFeatureWrapper", None, ["time-feature"]),
        ({"utils.wrappers.TimeFeatureWrapper": {"max_steps": 9, "test_mode": False}}, None,
         [{"time-feature": {"max_steps": 9}}]),
        ([{"ae.wrapper.Coder": {"path": "a"}}, "b.c.D"], None, [{"ae.wrapper:Coder": {"path": "a"}}, {"b.c:D": {}}]),
        (["stable_baselines3.common.monitor.Monitor", "my.own.TimeLimit"], None, [{"my.own:TimeLimit": {}}]),
        (None, None, None),
    ],
)  # fmt: skip
def test_every_wrapper_and_option_has_its_counterpart(given: object, frames: int | None, expected: object) -> None:
    entry = {"n_timesteps": 10, "env_wrapper": given, "frame_stack": frames}
    for own in (False, True):
        assert translate("E-v0", entry, "ppo", own).get("wrappers") == expected


@pytest.mark.parametrize(
    ("env", "written", "wrappers", "note"),
    [
        ("Pendulum-v1", "Pendulum-v1", None, None),
        ("PendulumNoVel-v1", "Pendulum-v1", ["mask-velocity"], None),
        ("CartPoleNoVel-v1", "CartPoleNoVel-v1", None, None),
        ("LunarLanderNoVel-v2", "LunarLander-v3", ["mask-velocity"], "LunarLanderNoVel-v3"),
        ("Reacher-v2", "Reacher-v4", None, "Reacher-v4"),
        ("Reacher-v5", "Reacher-v5", None, None),
        ("CarRacing-v0", "CarRacing-v3", None, "CarRacing-v3"),
        ("FetchReach-v1", "FetchReach-v4", None, "FetchReach-v4"),
    ],
)
def test_environments_that_only_the_zoo_or_nobody_registers(
    env: str, written: str, wrappers: object, note: str | None
) -> None:
    found = zoo_translation.translate(env, {"n_timesteps": 10}, "ppo", own=False)
    assert (found.trial["env"], found.trial.get("wrappers")) == (written, wrappers)
    said = f"{env} no longer exists; replaced by {note}, the same task"
    assert found.notes == ([] if note is None else [said])


NOTHING = {
    "optimize_memory_usage": False, "replay_buffer_class": None, "replay_buffer_kwargs": "dict()", "sde_sample_freq": 4,
    "use_sde": False, "use_sde_at_warmup": True, "callback": [], "monitor_kwargs": "dict(info_keywords=('x',))",
    "stats_window_size": 7, "noise_type": None, "normalize": False, "frame_stack": 1, "policy_kwargs": "dict()",
    "vec_env_wrapper": None, "env_wrapper": None, "env_kwargs": None,
}  # fmt: skip


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_what_changes_nothing_is_taken_and_not_written(algo: str) -> None:
    bare = {"n_timesteps": 10}
    for own in (False, True)[: 1 + (algo in OWN)]:
        assert translate("E-v0", bare | NOTHING, algo, own) == translate("E-v0", bare, algo, own)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("algo", [*OWN])
def test_a_key_that_no_rule_takes_is_an_error(algo: str, own: bool) -> None:
    with pytest.raises(Untranslatable, match=r"^learning_rat: "):
        translate("E-v0", {"n_timesteps": 10, "learning_rat": 1e-3}, algo, own)
    with pytest.raises(Untranslatable, match=r"^policy_kwargs: .*`net_arc`"):
        translate("E-v0", {"n_timesteps": 10, "policy_kwargs": "dict(net_arc=[8])"}, algo, own)


def test_policies_are_written_as_they_are_named() -> None:
    entry = {"n_timesteps": 10, "policy": "LinearPolicy"}
    assert translate("E-v0", entry, "ars", own=False)["policy"] == "LinearPolicy"
    assert translate("E-v0", entry | {"policy": "CnnPolicy"}, "ppo", own=False)["policy"] == "CnnPolicy"
    memory = zoo_translation.translate("E-v0", {"n_timesteps": 10, "policy": "MlpPolicy"}, "ppo_lstm", own=False)
    assert memory.trial["policy"] == "MlpLstmPolicy"
    assert memory.notes == ["policy: MlpPolicy is written as MlpLstmPolicy, for this algorithm has a memory"]


@pytest.mark.parametrize("algo", ["ppo", "a2c", "dqn"])
def test_a_cnn_stays_a_cnn(algo: str) -> None:
    entry = {"n_timesteps": 10, "policy": "CnnPolicy", "policy_kwargs": "dict(activation_fn=nn.ELU, net_arch=[])"}
    own = translate("ALE/Pong-v5", entry, algo, own=True)
    init = "torch" if algo == "dqn" else "orthogonal"
    assert own["net"] == {"kind": "nature-cnn", "hidden_features": 512, "init": init}
    assert own.get("shared") == (None if algo == "dqn" else True)
    other = "dict(features_extractor_kwargs=dict(features_dim=64))"
    assert translate("E-v0", entry | {"policy_kwargs": other}, algo, own=True)["net"]["hidden_features"] == 64
    if algo != "dqn":
        apart = "dict(ortho_init=False, share_features_extractor=False)"
        own = translate("E-v0", entry | {"policy_kwargs": apart}, algo, own=True)
        assert (own["net"]["init"], own["shared"]) == ("torch", False)


def test_a_cnn_has_the_weights_of_stable_baselines3() -> None:
    own = translate("E-v0", {"n_timesteps": 10, "policy": "CnnPolicy"}, "ppo", own=True)
    network = {"kind": "actor-critic", "encoder": own["net"], "policy": "categorical", "shared": own["shared"]}
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    theirs = ActorCriticCnnPolicy(space, spaces.Discrete(6), lambda _: 1e-3)
    ours = build(network, (4, 84, 84), 6)
    assert sorted(tuple(p.shape) for p in ours.parameters()) == sorted(tuple(p.shape) for p in theirs.parameters())
    for first in (next(ours.parameters()), next(theirs.parameters())):  # orthogonal, with a gain of sqrt(2)
        rows = first.flatten(1)
        torch.testing.assert_close(rows @ rows.T, 2 * torch.eye(32), atol=1e-4, rtol=0)


TF = "optimizer_class=RMSpropTFLike"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, ("rmsprop", 1e-5)),
        ({"rms_prop_eps": 1e-3}, ("rmsprop", 1e-3)),
        ({"use_rms_prop": False, "rms_prop_eps": 1e-3}, ("adam", 1e-5)),
        ({"policy_kwargs": f"dict({TF}, optimizer_kwargs=dict(eps=1e-5))"}, ("rmsprop-tf", 1e-5)),
        ({"policy_kwargs": f"dict({TF})"}, ("rmsprop-tf", 1e-8)),
    ],
)
def test_the_optimiser_of_a2c(entry: dict, expected: tuple[str, float]) -> None:
    own = translate("E-v0", {"n_timesteps": 10, **entry}, "a2c", own=True)
    assert (own["optimiser"], own["eps"]) == expected


def test_agents_with_a_memory() -> None:
    kwargs = "dict(ortho_init=False, activation_fn=nn.ReLU, lstm_hidden_size=64, enable_critic_lstm=True, net_arch=[9])"
    entry = {"n_timesteps": 10, "n_envs": 8, "n_steps": 32, "batch_size": 64, "policy": "MlpLstmPolicy"}
    own = translate("E-v0", entry | {"policy_kwargs": kwargs}, "ppo_lstm", own=True)
    assert own | {
        "learner": "recurrent-ppo", "minibatches": 4, "memory_features": 64, "depth": 1, "shared": False,
        "hidden_features": [9], "activation": "relu", "init": "torch", "lr": 3e-4, "epochs": 10,
    } == own  # fmt: skip
    assert translate("E-v0", entry | {"batch_size": 512}, "ppo_lstm", own=True)["minibatches"] == 1


def test_ddpg_is_td3_with_one_critic() -> None:
    own = translate("E-v0", {"n_timesteps": 10, "noise_type": "normal", "noise_std": 0.1}, "ddpg", own=True)
    assert own | {
        "learner": "td3", "n_critics": 1, "policy_delay": 1, "target_noise": 0.0, "noise_std": 0.1, "lr": 1e-3
    } == own  # fmt: skip


def test_goals_and_the_environments_of_ars() -> None:
    goals = {"replay_buffer_class": "HerReplayBuffer", "replay_buffer_kwargs": "dict(n_sampled_goal=4,)"}
    entry = {"n_timesteps": 10, "policy": "MultiInputPolicy"} | goals
    hyper = {"replay_buffer_class": "HerReplayBuffer", "replay_buffer_kwargs": {"n_sampled_goal": 4}}
    assert translate("E-v0", entry, "tqc", own=False)["hyper"] == hyper
    assert translate("E-v0", {"n_timesteps": 10, "n_envs": 16}, "ars", own=False)["n_envs"] == 1


def test_noise_on_actions() -> None:
    entry = {"n_timesteps": 300_000.0, "policy": "MlpPolicy", "noise_type": "ornstein-uhlenbeck", "noise_std": 0.5}
    own = translate("Car-v0", entry, "td3", own=True)
    assert translate("Car-v0", entry, "td3", own=False)["hyper"] == {"action_noise": {"kind": "ou", "std": 0.5}}
    assert (own["noise"], own["noise_std"]) == ("ou", 0.5)
    assert own["net"] == {"kind": "mlp", "hidden_features": [400, 300], "activation": "relu"}


@pytest.mark.parametrize("algo", OWN)
def test_defaults_written_out_are_those_of_stable_baselines3(algo: str) -> None:
    theirs = {name: p.default for name, p in inspect.signature(CLASSES[ALGORITHMS[algo]].cls).parameters.items()}
    assert OWN[algo].defaults == {name: theirs[name] for name in OWN[algo].defaults}
    for name, values in OWN[algo].neutral.items():
        assert values is None or theirs.get(name, values[0]) in values
    elsewhere = {"policy", "env", "verbose", "seed", "device", "_init_setup_model", "action_noise", "use_rms_prop"}
    elsewhere |= {"use_sde", "sde_sample_freq", "use_sde_at_warmup"}
    assert set(theirs) - set(OWN[algo].fields) - set(OWN[algo].neutral) - set(zoo_translation.NEUTRAL) <= elsewhere
    said = {name: theirs[name] for name in OWN[algo].fields if name in theirs and theirs[name] is not None}
    own = translate("E-v0", {"n_timesteps": 10} | said, algo, own=True)  # every argument's default is a value of ours
    assert own == translate("E-v0", {"n_timesteps": 10}, algo, own=True) | own
