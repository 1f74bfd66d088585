"""Hyper-parameters as rl-baselines3-zoo writes them, as entries of an experiment file: for `sb3` or our own learners.

Their values may be Python written as text ("dict(net_arch=[64, 64], activation_fn=nn.ReLU)"). It is read, never run:
literals, `dict(...)` and names of `nn` are all there is.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ALGORITHMS", "OWN", "Untranslatable", "python_value", "translate"]

ALGORITHMS = {  # the zoo's name -> the class of stable-baselines3 or sb3-contrib
    "a2c": "A2C", "ars": "ARS", "crossq": "CrossQ", "ddpg": "DDPG", "dqn": "DQN", "ppo": "PPO",
    "ppo_lstm": "RecurrentPPO", "ppo_mask": "MaskablePPO", "qrdqn": "QRDQN", "sac": "SAC", "td3": "TD3", "tqc": "TQC",
    "trpo": "TRPO",
}  # fmt: skip
ACTIVATIONS = {
    "ReLU": "relu", "Tanh": "tanh", "ELU": "elu", "GELU": "gelu", "SiLU": "silu", "LeakyReLU": "leaky_relu",
    "Sigmoid": "sigmoid", "Softplus": "softplus",
}  # fmt: skip
OPTIMISERS = ("RMSpropTFLike",)
NOISES = {"normal": "normal", "ornstein-uhlenbeck": "ou"}
BY_OBSERVATION = ("MlpPolicy", "CnnPolicy", "MultiInputPolicy", "MlpLstmPolicy", "CnnLstmPolicy")  # sb3 chooses
LEFT_OUT = {
    "callback": "take it out: evaluation, checkpoints and early ends are the experiment's own",
    "vec_env_wrapper": "take it out, or say it by `frame_stack` or `normalize`",
    "eval_env_kwargs": "take it out: evaluation uses the environment that is trained on",
    "replay_buffer_class": "take it out: other replay buffers are not known",
}
LONGEST = 5_000  # characters of a value that is Python


class Untranslatable(ValueError):
    """A key that cannot be said in an experiment file.

    Args:
        key: of the zoo's entry.
        text: why not, and what to do about it.
    """

    def __init__(self, key: str, text: str) -> None:
        super().__init__(f"{key}: {text}")
        self.key, self.text = key, text


@dataclass(frozen=True)
class OwnLearner:
    """One of our learners, as far as it differs from stable-baselines3's of the same kind.

    Attributes:
        name: as experiment files have it.
        fields: stable-baselines3's argument -> our field.
        defaults: stable-baselines3's own, written out where an entry is silent.
        neutral: arguments that ours has not, and the values at which they change nothing.
        layers: their default network: widths and activation.
        policy: arguments of stable-baselines3's policy -> our field, beside widths, activation and initialisation.
    """

    name: str
    fields: Mapping[str, str]
    defaults: Mapping[str, Any]
    neutral: Mapping[str, tuple[Any, ...]]
    layers: tuple[list[int], str]
    policy: Mapping[str, str] = field(default_factory=dict)


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


NO_SDE = {"use_sde": (False,), "sde_sample_freq": (-1,), "use_sde_at_warmup": (False,)}
ON_POLICY = _same("n_steps", "gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm") | {"learning_rate": "lr"}
OFF_POLICY = _same("buffer_size", "learning_starts", "train_freq", "gradient_steps", "gamma", "tau")
OFF_POLICY |= {"learning_rate": "lr", "batch_size": "batch"}
REPLAY = {"buffer_size": 1_000_000, "learning_starts": 100, "gamma": 0.99}
OWN = {
    "ppo": OwnLearner(
        "ppo",
        ON_POLICY | {"clip_range": "clip", "clip_range_vf": "clip_value", "batch_size": "batch", "n_epochs": "epochs",
                     "normalize_advantage": "normalise_advantage", "target_kl": "target_kl"},
        {"learning_rate": 3e-4, "n_steps": 2048, "batch_size": 64, "n_epochs": 10, "gamma": 0.99, "gae_lambda": 0.95,
         "clip_range": 0.2, "ent_coef": 0.0, "vf_coef": 0.5, "max_grad_norm": 0.5},
        NO_SDE | {"clip_range_vf": (None,), "target_kl": (None,)},
        ([64, 64], "tanh"),
        {"log_std_init": "log_std_init"},
    ),
    "a2c": OwnLearner(
        "a2c",
        ON_POLICY | {"normalize_advantage": "normalise_advantages", "rms_prop_eps": "eps"},
        {"learning_rate": 7e-4, "n_steps": 5, "gamma": 0.99, "gae_lambda": 1.0, "ent_coef": 0.0, "vf_coef": 0.5,
         "max_grad_norm": 0.5},
        NO_SDE | {"use_rms_prop": (True,)},
        ([64, 64], "tanh"),
    ),
    "dqn": OwnLearner(
        "dqn",
        OFF_POLICY | _same("target_update_interval", "exploration_fraction", "exploration_initial_eps",
                           "exploration_final_eps", "max_grad_norm"),
        REPLAY | {"learning_rate": 1e-4, "batch_size": 32, "tau": 1.0, "train_freq": 4, "gradient_steps": 1,
                  "target_update_interval": 10_000, "exploration_fraction": 0.1, "exploration_final_eps": 0.05,
                  "max_grad_norm": 10.0},
        {},
        ([64, 64], "relu"),
    ),
    "sac": OwnLearner(
        "sac",
        OFF_POLICY | _same("ent_coef", "target_entropy"),
        REPLAY | {"learning_rate": 3e-4, "batch_size": 256, "tau": 0.005, "train_freq": 1, "gradient_steps": 1,
                  "ent_coef": "auto"},
        NO_SDE | {"target_update_interval": (1,)},
        ([256, 256], "relu"),
    ),
    "td3": OwnLearner(
        "td3",
        OFF_POLICY | {"policy_delay": "policy_delay", "target_policy_noise": "target_noise",
                      "target_noise_clip": "target_noise_clip", "noise_type": "noise", "noise_std": "noise_std"},
        REPLAY | {"learning_rate": 1e-3, "batch_size": 256, "tau": 0.005, "train_freq": 1, "gradient_steps": 1,
                  "noise_type": "normal", "noise_std": 0.0},
        {},
        ([400, 300], "relu"),
    ),
}  # fmt: skip
ORTHOGONAL = ("ppo", "a2c")  # their layers start orthogonal
SCHEDULED = ("learning_rate", "clip_range")
WHOLE = (
    "n_timesteps", "n_envs", "frame_stack", "n_steps", "batch_size", "n_epochs", "buffer_size", "learning_starts",
    "train_freq", "gradient_steps", "target_update_interval", "policy_delay",
)  # fmt: skip


@dataclass
class _Entry:
    """An entry of the zoo, taken apart: what is the environment's, the network's, and the algorithm's arguments."""

    env: dict[str, Any]
    policy: str
    network: dict[str, Any]
    arguments: dict[str, Any] = field(default_factory=dict)


def translate(env: str, entry: Mapping[str, Any], algo: str, own: bool) -> dict[str, Any]:
    """One entry of an experiment file's `trials`.

    Args:
        env: its id.
        entry: the zoo's keys and values for it.
        algo: a name of `ALGORITHMS`.
        own: for our learner of that kind instead of `sb3`.

    Raises:
        Untranslatable: a key has no counterpart.
    """
    parts = _apart(env, entry)
    return _for_own(parts, OWN[algo]) if own else _for_sb3(parts, ALGORITHMS[algo])


def python_value(key: str, text: str) -> Any:
    """Python written as text: literals, dict(...) and names of nn, which become "nn.ReLU"; RMSpropTFLike too.

    Raises:
        Untranslatable: it is anything else.
    """
    try:
        if len(text) > LONGEST:
            raise ValueError("too long")
        return _literal(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        known = "literals, dict(...) and names such as nn.ReLU"
        raise Untranslatable(key, f"cannot be read: {shown!r}; write {known}") from None


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "dict" and not node.args:
        return {_word(pair.arg): _literal(pair.value) for pair in node.keywords}
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("nn", "th.nn", "torch.nn"):
        return f"nn.{node.attr}"
    if isinstance(node, ast.Name) and node.id in OPTIMISERS:
        return node.id
    if isinstance(node, ast.Dict):
        return {_word(_literal(k) if k else None): _literal(v) for k, v in zip(node.keys, node.values, strict=True)}
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item) for item in node.elts]
    value = ast.literal_eval(node)  # allowed: reads a constant, runs nothing
    if not isinstance(value, str | int | float | None):
        raise ValueError("neither number nor text")
    return value


def _word(key: Any) -> str:
    if not isinstance(key, str):
        raise ValueError("not a name")
    return key


def _apart(env: str, entry: Mapping[str, Any]) -> _Entry:
    rest = {key: _plain(key, value) for key, value in entry.items()}
    for key, mend in LEFT_OUT.items():
        if rest.pop(key, None) is not None:
            raise Untranslatable(key, mend)
    if "n_timesteps" not in rest:
        raise Untranslatable("n_timesteps", "is missing; say how many steps to train for")
    fields = {"env": env, "n_envs": rest.pop("n_envs", 1), "steps": rest.pop("n_timesteps")}
    if options := rest.pop("env_kwargs", None):
        fields["env_options"] = _mapping("env_kwargs", options)
    wrappers = _wrappers(rest.pop("env_wrapper", None), rest.pop("frame_stack", None))
    wrappers += _normalisers(rest.pop("normalize", False))
    if wrappers:
        fields["wrappers"] = wrappers
    network = _mapping("policy_kwargs", rest.pop("policy_kwargs", None) or {})
    return _Entry(fields, str(rest.pop("policy", "MlpPolicy")), network, rest)


def _plain(key: str, value: Any) -> Any:
    """Python in text as values, whole numbers as integers."""
    if isinstance(value, str) and value.strip().startswith(("dict(", "{", "[", "(")):
        value = python_value(key, value)
    if key in WHOLE and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Untranslatable(key, f"write dict(...), not {value!r}")
    return value


def _normalisers(value: Any) -> list[str]:
    kinds = {"norm_obs": "normalise-observations", "norm_reward": "normalise-rewards"}
    asked = {name: True for name in kinds} if value is True else _mapping("normalize", value or {})
    for name in asked:
        if name not in (*kinds, "gamma"):  # the learner's own gamma is the one that is meant
            raise Untranslatable("normalize", f"`{name}` cannot be set; take it out")
    if asked and value is not True:
        asked = {"norm_obs": True, "norm_reward": True} | asked  # VecNormalize's own defaults
    return [wrapper for name, wrapper in kinds.items() if asked.get(name)]


def _wrappers(value: Any, frames: int | None) -> list[Any]:
    """Wrappers of the environment by our names, and a stack of frames, which our `atari` contains."""
    found: list[Any] = []
    for item in value if isinstance(value, list) else [value] if value else []:
        path, options = next(iter(item.items())) if isinstance(item, dict) else (item, None)
        name = str(path).rpartition(".")[2]
        if name == "AtariWrapper" and not options:
            found.append({"atari": {"frames": frames or 1}})
            frames = None
        elif name == "TimeLimit" and isinstance(options, dict) and set(options) == {"max_episode_steps"}:
            found.append({"time-limit": {"steps": options["max_episode_steps"]}})
        elif name != "FlatObsWrapper":  # observations that are no arrays are flattened anyway
            mend = "take it out, and name a wrapper of ours in `wrappers`"
            raise Untranslatable("env_wrapper", f"{path} is not known; {mend}")
    return found if frames is None else [*found, {"frame-stack": {"frames": frames}}]


def _for_sb3(parts: _Entry, algo: str) -> dict[str, Any]:
    trial = {"learner": "sb3", "algo": algo, **parts.env}
    if parts.policy not in BY_OBSERVATION:
        trial["policy"] = parts.policy
    hyper = {key: value for key, value in parts.arguments.items() if not key.startswith("noise_")}
    if "noise_type" in parts.arguments:
        hyper["action_noise"] = {"kind": _noise(parts.arguments), "std": parts.arguments.get("noise_std", 0.0)}
    if hyper:
        trial["hyper"] = hyper
    if parts.network:
        trial["policy_kwargs"] = {k: _named(v) for k, v in parts.network.items()}
    return trial


def _noise(arguments: Mapping[str, Any]) -> str:
    name = str(arguments["noise_type"])
    if name not in NOISES:
        raise Untranslatable("noise_type", f"{name} is not known; write {' or '.join(NOISES)}")
    return NOISES[name]


def _named(value: Any) -> Any:
    """`nn.ReLU` as "relu", as everywhere in experiment files."""
    if not (isinstance(value, str) and value.startswith("nn.")):
        return value
    name = value.removeprefix("nn.")
    if name not in ACTIVATIONS:
        raise Untranslatable("policy_kwargs", f"{value} is not known; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _for_own(parts: _Entry, ours: OwnLearner) -> dict[str, Any]:
    elsewhere = "leave --own out to train it with stable-baselines3"
    trial = {"learner": ours.name, **parts.env}
    for key, value in {**ours.defaults, **parts.arguments}.items():
        if key in ours.neutral and value in ours.neutral[key]:
            continue
        if key not in ours.fields:
            raise Untranslatable(key, f"our {ours.name} has nothing like it; {elsewhere}")
        if isinstance(value, str) and value.startswith("lin_"):
            if key not in SCHEDULED:
                raise Untranslatable(key, f"our {ours.name} keeps it constant; write a number, or {elsewhere}")
            trial[ours.fields[key]] = _number(key, value.removeprefix("lin_"))
            trial[f"{ours.fields[key]}_schedule"] = "linear"
        else:
            trial[ours.fields[key]] = _noise({key: value}) if key == "noise_type" else value
            if key in SCHEDULED:
                trial[f"{ours.fields[key]}_schedule"] = "constant"
    return trial | _layers(parts.network, ours, elsewhere)


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Untranslatable(key, f"lin_{text} is no schedule; write for example lin_1e-3") from None


def _layers(network: Mapping[str, Any], ours: OwnLearner, elsewhere: str) -> dict[str, Any]:
    """The network's fields."""
    widths, activation = ours.layers
    fields: dict[str, Any] = {}
    init: dict[str, str] = {}
    for key, value in network.items():
        if key == "activation_fn":
            activation = _named(value)
        elif key == "net_arch":
            parts = list(value.values()) if isinstance(value, dict) else [value]
            if any(part != parts[0] for part in parts):
                raise Untranslatable("policy_kwargs", f"our {ours.name} has equal networks for both; {elsewhere}")
            widths = parts[0]
        elif key == "ortho_init" and ours.name in ORTHOGONAL:
            init = {} if value else {"init": "torch"}
        elif key in ours.policy:
            fields[ours.policy[key]] = value
        else:
            raise Untranslatable("policy_kwargs", f"our {ours.name} has nothing like `{key}`; {elsewhere}")
    return fields | {"net": {"kind": "mlp", "hidden_features": widths, "activation": activation, **init}}
