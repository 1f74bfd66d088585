"""`seedbed zoo`: files as rl-baselines3-zoo has them become experiment files; what cannot be said is one error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows import zoo_translation
from flows.cli import app
from flows.zoo import read_zoo
from flows.zoo_values import ACTIVATIONS, Untranslatable, python_value
from harness import yaml_lines
from harness.experiment import load_experiment

ATARI = "stable_baselines3.common.atari_wrappers.AtariWrapper"
PPO = """
default:
  n_timesteps: !!float 1e6
  policy: 'MlpPolicy'

atari:
  env_wrapper:
    - stable_baselines3.common.atari_wrappers.AtariWrapper
  frame_stack: 4
  policy: 'CnnPolicy'
  n_envs: 8
  n_timesteps: !!float 1e7
  learning_rate: lin_2.5e-4

# Tuned
Pole-v1:
  n_envs: 8
  n_timesteps: !!float 1e5
  policy: 'MlpPolicy'
  n_steps: 32
  batch_size: 256
  ent_coef: 0.0
  learning_rate: lin_0.001
  clip_range: lin_0.2

Walk-v3: &walk-defaults
  normalize: true
  n_timesteps: !!float 5e6
  policy: 'MlpPolicy'
  ent_coef: .0
  policy_kwargs: "dict(
                    activation_fn=nn.ReLU,
                    net_arch=dict(pi=[256, 256], vf=[256, 256])
                  )"

Run-v3:
  <<: *walk-defaults
  normalize: "{'norm_obs': False, 'norm_reward': True}"
  n_envs: 4

Sway-v1:
  n_timesteps: 20000
  policy: 'MlpPolicy'
  use_sde: True
  sde_sample_freq: 4
  policy_kwargs: "dict(log_std_init=-3.29, ortho_init=False)"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "ppo.yml").write_text(PPO)
    return tmp_path / "ppo.yml"


def translate(env: str, entry: dict, algo: str, own: bool) -> dict:
    return zoo_translation.translate(env, entry, algo, own).trial


def one(file: Path, name: str, own: bool = False, algo: str = "ppo") -> dict:
    return translate(name, read_zoo(file)[0][name], algo, own)


def test_an_entry_for_stable_baselines3(file: Path) -> None:
    assert one(file, "Pole-v1") == {
        "learner": "sb3", "algo": "PPO", "env": "Pole-v1", "n_envs": 8, "steps": 100_000, "policy": "MlpPolicy",
        "hyper": {"n_steps": 32, "batch_size": 256, "ent_coef": 0.0, "learning_rate": "lin_0.001",
                  "clip_range": "lin_0.2"},
    }  # fmt: skip
    assert one(file, "Sway-v1") == {
        "learner": "sb3", "algo": "PPO", "env": "Sway-v1", "n_envs": 1, "steps": 20_000, "policy": "MlpPolicy",
        "hyper": {"use_sde": True, "sde_sample_freq": 4},
        "policy_kwargs": {"log_std_init": -3.29, "ortho_init": False},
    }  # fmt: skip


def test_an_entry_for_our_own_learner_says_what_stable_baselines3_takes_for_granted(file: Path) -> None:
    assert one(file, "Pole-v1", own=True) == {
        "learner": "ppo", "env": "Pole-v1", "n_envs": 8, "steps": 100_000, "lr": 0.001, "lr_schedule": "linear",
        "n_steps": 32, "batch": 256, "epochs": 10, "gamma": 0.99, "gae_lambda": 0.95, "clip": 0.2,
        "clip_schedule": "linear", "ent_coef": 0.0, "vf_coef": 0.5, "max_grad_norm": 0.5,
        "net": {"kind": "mlp", "hidden_features": [64, 64], "activation": "tanh"},
    }  # fmt: skip


def test_merge_keys_and_python_in_text(file: Path) -> None:
    both = ["normalise-observations", "normalise-rewards"]
    first, second = one(file, "Walk-v3"), one(file, "Run-v3")
    assert (first["wrappers"], first["n_envs"], first["steps"]) == (both, 1, 5_000_000)
    assert (second["wrappers"], second["n_envs"], second["steps"]) == (both[1:], 4, 5_000_000)
    net = {"activation_fn": "relu", "net_arch": {"pi": [256, 256], "vf": [256, 256]}}
    assert first["policy_kwargs"] == second["policy_kwargs"] == net
    own = one(file, "Run-v3", own=True)
    assert own["net"] == {"kind": "mlp", "hidden_features": [256, 256], "activation": "relu"}
    assert (own["lr"], own["lr_schedule"], own["wrappers"]) == (3e-4, "constant", both[1:])


def test_how_networks_start(file: Path) -> None:
    entry = {"n_timesteps": 10, "policy_kwargs": "dict(log_std_init=-2, ortho_init=False)"}
    own = translate("E-v0", entry, "ppo", own=True)
    assert own["log_std_init"] == -2
    assert own["net"] == {"kind": "mlp", "hidden_features": [64, 64], "activation": "tanh", "init": "torch"}
    orthogonal = translate("E-v0", entry | {"policy_kwargs": "dict(ortho_init=True)"}, "ppo", own=True)
    assert orthogonal["net"] == {"kind": "mlp", "hidden_features": [64, 64], "activation": "tanh"}


def test_a_list_of_merged_entries_counts_from_the_left(tmp_path: Path) -> None:
    text = "a: &a {n_timesteps: 1, gamma: 0.1}\nb: &b {gamma: 0.2, tau: 0.3}\nc: {<<: [*a, *b], n_timesteps: 9}\n"
    (tmp_path / "x.yml").write_text(text)
    assert read_zoo(tmp_path / "x.yml")[0]["c"] == {"n_timesteps": 9, "gamma": 0.1, "tau": 0.3}


def test_wrappers_by_our_names() -> None:
    cut = {"gymnasium.wrappers.time_limit.TimeLimit": {"max_episode_steps": 100}}
    entry = {"n_timesteps": 10, "env_wrapper": ["minigrid.wrappers.FlatObsWrapper", cut], "frame_stack": 2}
    found = translate("E-v0", entry | {"normalize": True}, "ppo", own=False)["wrappers"]
    normalisers = ["normalise-observations", "normalise-rewards"]
    assert found == ["flatten", {"time-limit": {"steps": 100}}, {"frame-stack": {"frames": 2}}, *normalisers]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("dict(net_arch=[64, 64], activation_fn=nn.ReLU)", {"net_arch": [64, 64], "activation_fn": "nn.ReLU"}),
        ("dict(a=dict(b=(1, -2.5)), c=None, d='x', e=True)", {"a": {"b": [1, -2.5]}, "c": None, "d": "x", "e": True}),
        ("{'norm_obs': True}", {"norm_obs": True}),
        ("dict(f=th.nn.Tanh, g=torch.nn.ELU, h=-1e-3)", {"f": "nn.Tanh", "g": "nn.ELU", "h": -1e-3}),
        ("dict()", {}),
        ("dict(optimizer_class=RMSpropTFLike)", {"optimizer_class": "RMSpropTFLike"}),
    ],
)
def test_python_that_is_read(text: str, value: object) -> None:
    assert python_value("policy_kwargs", text) == value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('false')",
        "dict(a=open('/etc/passwd'))",
        "dict([('a', 1)])",
        "dict(**{'a': 1})",
        "{**{}}",
        "{1: 2}",
        "dict(a=[x for x in ()])",
        "dict(a=nn.Module.__init__)",
        "dict(a=os.environ)",
        "dict(a=lambda: 0)",
        "dict(a=1j)",
        "dict(a=b'x')",
        "dict(a=...)",
        "dict(a=10**10)",
        "dict(a=f'{1}')",
        "dict(a=",
        "[" * 3000,
        "-" * 4000 + "1",
        "dict(a=1)" + " " * 6000,
        "",
    ],
)
def test_python_that_is_not(text: str) -> None:
    with pytest.raises(Untranslatable, match="policy_kwargs: cannot be read"):
        python_value("policy_kwargs", text)


@pytest.mark.parametrize(
    ("entry", "own", "message"),
    [
        ({}, False, "n_timesteps: is missing; say how many steps"),
        ({"use_sde": True}, True, "use_sde: our ppo has no equivalent; leave --own out"),
        ({"use_sde": True, "sde_sample_freq": 4}, True, "use_sde: our ppo has no equivalent"),
        ({"policy_kwargs": "dict(squash_output=True)"}, True, "policy_kwargs: our ppo has nothing like `squash"),
        ({"policy_kwargs": "dict(net_arch=dict(pi=[8]))"}, True, "policy_kwargs: our ppo has equal networks"),
        ({"policy_kwargs": "dict(net_arch=[])"}, True, "policy_kwargs: our ppo needs a hidden layer"),
        ({"policy_kwargs": "dict(net_arch=dict(pi=[8], qf=[8]))"}, True, "policy_kwargs: net_arch names pi, qf, not"),
        ({"policy": "CnnPolicy", "policy_kwargs": "dict(net_arch=[8])"}, True, "policy_kwargs: our ppo has no layers"),
        ({"policy": "MultiInputPolicy"}, True, "policy: our ppo has nothing like MultiInputPolicy"),
        ({"policy": "MlpPolice"}, False, "policy: MlpPolice is not known; known are MlpPolicy, CnnPolicy"),
        ({"clip_range": -0.5}, True, r"clip_range: our ppo does not take -0.5 \(Input should be greater than 0\)"),
        ({"n_steps": "many"}, False, "n_steps: 'many' is no int"),
        ({"optimize_memory_usage": True}, False, "optimize_memory_usage: take it out"),
        ({"replay_buffer_class": "HerReplayBuffer"}, True, "replay_buffer_class: our ppo has no equivalent"),
        ({"noise_type": "normal", "noise_std": 0.1}, False, "noise_type: unknown argument of PPO"),
        ({"noise_type": "normal"}, False, "noise_type: has no noise_std"),
        ({"noise_std": 0.1}, False, "noise_std: is for a noise that `noise_type` does not name"),
        ({"normalize": {"gamma": 0.9}}, False, "normalize: `gamma` cannot be set"),
        ({"env_wrapper": {"a.B": {}, "c.D": {}}}, False, "env_wrapper: a.B, c.D: write every wrapper as a list's item"),
        ({"env_wrapper": "Atari"}, False, "env_wrapper: Atari is not known; write package.module.Class"),
        ({"env_wrapper": [{ATARI: {"action_repeat_probability": 0.25}}]}, False, "env_wrapper: .*`action_repeat_proba"),
        ({"policy_kwargs": "dict(net_arch=dict(pi=[8], vf=[9]))"}, True, "policy_kwargs: our ppo has equal networks"),
        ({"policy_kwargs": "dict(activation_fn=nn.Fold)"}, False, "policy_kwargs: nn.Fold is not known; known are"),
        ({"policy_kwargs": "64"}, False, r"policy_kwargs: write dict\(\.\.\.\), not '64'"),
        ({"ent_coef": "lin_0.1"}, True, "ent_coef: our ppo keeps it constant; write a number"),
        ({"learning_rate": "lin_fast"}, True, "learning_rate: lin_fast is no schedule; write for example lin_1e-3"),
        ({"normalize": "dict(clip_obs=5)"}, False, "normalize: `clip_obs` cannot be set; take it out"),
        ({"callback": ["rl_zoo3.callbacks.X"]}, False, "callback: take it out"),
        ({"noise_type": "adaptive", "noise_std": 0.1}, False, "noise_type: adaptive is not known; write normal or"),
    ],
)
def test_what_cannot_be_said_names_its_key_and_the_mend(entry: dict, own: bool, message: str) -> None:
    full = entry if not entry else {"n_timesteps": 1e5, "policy": "MlpPolicy"} | entry
    with pytest.raises(Untranslatable, match=f"^{message}"):
        translate("CartPole-v1", full, "ppo", own)


def seedbed(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    return done.exit_code, done.output.strip()


def test_the_command_writes_every_environment_of_a_file(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned.yaml"
    code, output = seedbed("zoo", file, "--algo", "ppo", "-o", out)
    assert code == 0
    skipped = "skipped default and atari (for any environment); name one with --env ID"
    assert output.splitlines() == [str(out), skipped]
    spec, _ = yaml_lines.parse(out.read_text())
    assert spec["name"] == "tuned"
    names = ["Pole-v1", "Walk-v3", "Run-v3", "Sway-v1"]
    assert spec["trials"] == [one(file, name) for name in names]


@pytest.mark.parametrize(
    ("env", "key"), [("ALE/Pong-v5", "atari"), ("PongNoFrameskip-v4", "atari"), ("New-v0", "default")]
)
def test_families_stand_for_environments_that_have_no_entry(file: Path, tmp_path: Path, env: str, key: str) -> None:
    assert seedbed("zoo", file, "--algo", "ppo", "--env", env, "-o", tmp_path / "out.yaml")[0] == 0
    (trial,) = yaml_lines.parse((tmp_path / "out.yaml").read_text())[0]["trials"]
    assert trial == translate(env, read_zoo(file)[0][key], "ppo", own=False)
    assert trial.get("wrappers") == ([{"atari": {"frames": 4}}] if key == "atari" else None)


def test_a_whole_file_is_written_with_what_can_be_translated_and_the_rest_is_listed(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.yaml"
    code, output = seedbed("zoo", file, "--algo", "ppo", "--own", "-o", out)
    assert code == 1
    written = yaml_lines.parse(out.read_text())[0]["trials"]
    assert [trial["env"] for trial in written] == ["Pole-v1", "Walk-v3", "Run-v3"]
    assert f"{file}:44: Sway-v1: use_sde: our ppo has no equivalent" in output
    assert output.splitlines()[-1] == f"1 of 4 entries were left out of {out}"


def test_what_is_not_as_it_was_is_said_beside_the_file_and_in_it(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("Reacher-v2: {n_timesteps: 1000}\n")
    out = tmp_path / "out.yaml"
    code, output = seedbed("zoo", tmp_path / "a.yml", "--algo", "sac", "-o", out)
    note = "Reacher-v2: Reacher-v2 no longer exists; replaced by Reacher-v4, the same task"
    assert (code, output.splitlines()) == (0, [str(out), note])
    assert f"# {note}\n" in out.read_text()


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    ("algo", "env", "entry"),
    [
        ("ppo", "CartPole-v1", {"learning_rate": "lin_1e-3", "normalize": True, "n_envs": 2}),
        ("a2c", "Pendulum-v1", {"policy_kwargs": "dict(log_std_init=-2, ortho_init=False)", "use_rms_prop": False}),
        ("dqn", "CartPole-v1", {"buffer_size": 1000, "optimize_memory_usage": False, "train_freq": [4, "step"]}),
        ("sac", "Pendulum-v1", {"env_wrapper": {"rl_zoo3.wrappers.HistoryWrapper": {"horizon": 2}}, "ent_coef": 0.1}),
        ("td3", "PendulumNoVel-v1", {"noise_type": "normal", "noise_std": 0.1}),
        ("ddpg", "Pendulum-v1", {"env_wrapper": ["rl_zoo3.wrappers.FrameSkip"]}),
        ("ppo_lstm", "CartPoleNoVel-v1", {"n_envs": 2, "n_steps": 16, "batch_size": 16, "policy": "MlpLstmPolicy"}),
    ],
)
def test_what_is_written_is_planned(algo: str, env: str, entry: dict, own: bool, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(json.dumps({env: {"n_timesteps": 2000, **entry}}))
    out = tmp_path / "out.yaml"
    assert seedbed("zoo", tmp_path / "a.yml", "--algo", algo, *(["--own"] if own else []), "-o", out)[0] == 0
    assert len(load_experiment(out).trials) >= 1


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("A-v0: {n_timesteps: 1, use_sde: true}", ("--algo", "ppo", "--own"), "ppo.yml:1: A-v0: use_sde: our ppo"),
        ("atari: {n_timesteps: 1}", ("--algo", "ppo", "--env", "atari"), "--env atari: it is for any game of Atari"),
        ("default: {n_timesteps: 1}", ("--algo", "ppo", "--env", "default"), "--env default: it is for any"),
        ("default: {n_timesteps: 1}", ("--algo", "ppo"), "has only default (for any environment); name one"),
        (PPO, ("--algo", "pop"), "--algo pop: known are a2c, "),
        (PPO, ("--algo", "tqc", "--own"), "--algo tqc: we have ppo, "),
        ("A-v0: {n_timesteps: 1}", ("--algo", "ppo", "--env", "B-v0"), "ppo.yml has no entry B-v0; it has A-v0"),
        ("- 1", ("--algo", "ppo"), "ppo.yml: expected ids of environments"),
        ("A-v0: 3", ("--algo", "ppo"), "ppo.yml: expected ids of environments"),
        ("A-v0: [", ("--algo", "ppo"), "ppo.yml:1"),
        ("A: !!python/object:os.x {}", ("--algo", "ppo"), "ppo.yml:1"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(
    tmp_path: Path, text: str, options: tuple[str, ...], message: str
) -> None:
    (tmp_path / "ppo.yml").write_text(text)
    code, output = seedbed("zoo", tmp_path / "ppo.yml", *options, "-o", tmp_path / "out.yaml")
    assert code == 2
    assert message in output
    assert "Traceback" not in output
    assert [p.name for p in tmp_path.iterdir()] == ["ppo.yml"]


def test_a_missing_file_and_a_missing_folder(file: Path, tmp_path: Path) -> None:
    code, output = seedbed("zoo", tmp_path / "none.yml", "--algo", "ppo", "-o", tmp_path / "out.yaml")
    assert (code, output) == (2, f"{tmp_path}/none.yml cannot be read: No such file or directory")
    code, output = seedbed("zoo", file, "--algo", "ppo", "-o", tmp_path / "no" / "out.yaml")
    assert (code, output) == (1, f"{tmp_path}/no/out.yaml cannot be written: No such file or directory")


def test_activations_are_those_of_our_networks() -> None:
    from nets.activations import ACTIVATIONS as KNOWN

    assert set(ACTIVATIONS.values()) <= set(KNOWN)
