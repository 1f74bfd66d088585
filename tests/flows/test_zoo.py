"""`seedbed zoo`: files as rl-baselines3-zoo has them become experiment files; what cannot be said is one error."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import stable_baselines3
from typer.testing import CliRunner

from flows.cli import app
from flows.zoo import read_zoo
from flows.zoo_translation import ACTIVATIONS, ALGORITHMS, OWN, Untranslatable, python_value, translate
from harness import yaml_lines

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


def one(file: Path, name: str, own: bool = False, algo: str = "ppo") -> dict:
    return translate(name, read_zoo(file)[0][name], algo, own)


def test_an_entry_for_stable_baselines3(file: Path) -> None:
    assert one(file, "Pole-v1") == {
        "learner": "sb3", "algo": "PPO", "env": "Pole-v1", "n_envs": 8, "steps": 100_000,
        "hyper": {"n_steps": 32, "batch_size": 256, "ent_coef": 0.0, "learning_rate": "lin_0.001",
                  "clip_range": "lin_0.2"},
    }  # fmt: skip
    assert one(file, "Sway-v1") == {
        "learner": "sb3", "algo": "PPO", "env": "Sway-v1", "n_envs": 1, "steps": 20_000,
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
    assert found == [{"time-limit": {"steps": 100}}, {"frame-stack": {"frames": 2}}, *normalisers]


def test_policies_that_observations_do_not_decide() -> None:
    entry = {"n_timesteps": 10, "policy": "LinearPolicy"}
    assert translate("E-v0", entry, "ars", own=False)["policy"] == "LinearPolicy"
    assert "policy" not in translate("E-v0", entry | {"policy": "CnnPolicy"}, "ppo", own=False)


def test_noise_on_actions() -> None:
    entry = {"n_timesteps": 300_000.0, "policy": "MlpPolicy", "noise_type": "ornstein-uhlenbeck", "noise_std": 0.5}
    own = translate("Car-v0", entry, "td3", own=True)
    assert translate("Car-v0", entry, "td3", own=False)["hyper"] == {"action_noise": {"kind": "ou", "std": 0.5}}
    assert (own["noise"], own["noise_std"]) == ("ou", 0.5)
    assert own["net"] == {"kind": "mlp", "hidden_features": [400, 300], "activation": "relu"}


@pytest.mark.parametrize("algo", OWN)
def test_defaults_written_out_are_those_of_stable_baselines3(algo: str) -> None:
    cls = getattr(stable_baselines3, ALGORITHMS[algo])
    theirs = {name: p.default for name, p in inspect.signature(cls.__init__).parameters.items()}
    ours = {k: v for k, v in OWN[algo].defaults.items() if not k.startswith("noise_")}  # the zoo's own, for TD3
    assert ours == {name: theirs[name] for name in ours}
    for name, values in OWN[algo].neutral.items():
        assert theirs.get(name, values[0]) in values
    shared = {"policy", "env", "policy_kwargs", "verbose", "seed", "device", "_init_setup_model", "stats_window_size"}
    shared |= {"tensorboard_log", "self", "action_noise"}
    known = set(OWN[algo].fields) | set(OWN[algo].neutral)
    rare = {"replay_buffer_class", "replay_buffer_kwargs", "rollout_buffer_class", "rollout_buffer_kwargs"}
    assert set(theirs) - known - shared - rare <= {"optimize_memory_usage", "n_steps", "target_entropy"}


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
        ({"use_sde": True}, True, "use_sde: our ppo has nothing like it; leave --own out"),
        ({"policy_kwargs": "dict(full_std=False)"}, True, "policy_kwargs: our ppo has nothing like `full_std`"),
        ({"policy_kwargs": "dict(net_arch=dict(pi=[8], vf=[9]))"}, True, "policy_kwargs: our ppo has equal networks"),
        ({"policy_kwargs": "dict(activation_fn=nn.Fold)"}, False, "policy_kwargs: nn.Fold is not known; known are"),
        ({"policy_kwargs": "64"}, False, r"policy_kwargs: write dict\(\.\.\.\), not '64'"),
        ({"ent_coef": "lin_0.1"}, True, "ent_coef: our ppo keeps it constant; write a number"),
        ({"learning_rate": "lin_fast"}, True, "learning_rate: lin_fast is no schedule; write for example lin_1e-3"),
        ({"normalize": "dict(clip_obs=5)"}, False, "normalize: `clip_obs` cannot be set; take it out"),
        ({"env_wrapper": "rl_zoo3.wrappers.FrameSkip"}, False, "env_wrapper: rl_zoo3.wrappers.FrameSkip is not known"),
        ({"callback": ["rl_zoo3.callbacks.X"]}, False, "callback: take it out"),
        ({"noise_type": "adaptive-param"}, False, "noise_type: adaptive-param is not known; write normal or"),
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
    assert seedbed("zoo", file, "--algo", "ppo", "-o", out) == (0, str(out))
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


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (PPO, ("--algo", "ppo", "--own"), "ppo.yml:44: Sway-v1: use_sde: our ppo"),
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
