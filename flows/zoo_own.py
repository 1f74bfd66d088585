"""An entry of rl-baselines3-zoo for one of our own learners.

What an entry does not say is stable-baselines3's default, and is written out, for ours have other ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from flows.zoo_values import Keys, Untranslatable, mapping, named_activation

__all__ = ["OWN", "OwnLearner", "own_fields"]

ELSEWHERE = "leave --own out to train it with stable-baselines3"


@dataclass(frozen=True)
class OwnLearner:
    """One of our learners, as far as it differs from stable-baselines3's of the same kind.

    Attributes:
        name: as experiment files have it.
        fields: stable-baselines3's argument -> our field.
        defaults: stable-baselines3's own, written out where an entry is silent.
        neutral: arguments that ours has not, and the values at which they change nothing.
        layers: their default network: widths and activation.
        sides: whose widths `net_arch` names; ours has equal ones for all.
        orthogonal: whether their layers start orthogonal.
        policies: theirs that ours can be.
        policy: arguments of stable-baselines3's policy -> our field, beside widths, activation and initialisation.
        policy_neutral: as `neutral`, of the policy's arguments.
        fixed: our fields that make ours theirs.
    """

    name: str
    fields: Mapping[str, str]
    defaults: Mapping[str, Any]
    neutral: Mapping[str, tuple[Any, ...] | None]
    layers: tuple[list[int], str]
    sides: tuple[str, ...] = ()
    orthogonal: bool = False
    policies: tuple[str, ...] = ("MlpPolicy",)
    policy: Mapping[str, str] = field(default_factory=dict)
    policy_neutral: Mapping[str, tuple[Any, ...] | None] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


ON_POLICY = _same("n_steps", "gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm") | {"learning_rate": "lr"}
PPO = ON_POLICY | {"clip_range": "clip", "clip_range_vf": "clip_value", "n_epochs": "epochs", "target_kl": "target_kl"}
OFF_POLICY = _same("buffer_size", "learning_starts", "train_freq", "gradient_steps", "gamma", "tau")
OFF_POLICY |= {"learning_rate": "lr", "batch_size": "batch"}
REPLAY = {"buffer_size": 1_000_000, "learning_starts": 100, "gamma": 0.99}
# with gSDE off, and with images as bytes
WITHOUT_SDE: dict[str, tuple[Any, ...] | None] = {"full_std": None, "use_expln": None, "squash_output": (False,)}
BYTES: dict[str, tuple[Any, ...] | None] = {"normalize_images": (True,)}
ADAM: dict[str, tuple[Any, ...] | None] = {"optimizer_kwargs": (None, {}, {"eps": 1e-8})}
ADAM_1E_5: dict[str, tuple[Any, ...] | None] = {"optimizer_kwargs": (None, {"eps": 1e-5})}
TWINS: dict[str, tuple[Any, ...] | None] = {"n_critics": (2,), "share_features_extractor": None}
NO_SDE_OF_SAC: dict[str, tuple[Any, ...] | None] = {"log_std_init": None, "use_expln": None, "clip_mean": None}
ONE_CRITIC: dict[str, tuple[Any, ...] | None] = {"n_critics": (1,)}
# of an LSTM policy: our policy and value have cells of their own, and flattening has no weights
MEMORY: dict[str, tuple[Any, ...] | None] = {
    "enable_critic_lstm": (True,), "shared_lstm": (False,), "share_features_extractor": None, "lstm_kwargs": (None, {}),
}  # fmt: skip
OWN = {
    "ppo": OwnLearner(
        "ppo",
        PPO | {"batch_size": "batch", "normalize_advantage": "normalise_advantage"},
        {"learning_rate": 3e-4, "n_steps": 2048, "batch_size": 64, "n_epochs": 10, "gamma": 0.99, "gae_lambda": 0.95,
         "clip_range": 0.2, "ent_coef": 0.0, "vf_coef": 0.5, "max_grad_norm": 0.5},
        {"clip_range_vf": (None,), "target_kl": (None,)},
        ([64, 64], "tanh"), ("pi", "vf"), True, ("MlpPolicy", "CnnPolicy"),
        {"log_std_init": "log_std_init"}, WITHOUT_SDE | BYTES | ADAM_1E_5,
    ),
    "a2c": OwnLearner(
        "a2c",
        ON_POLICY | {"normalize_advantage": "normalise_advantage", "rms_prop_eps": "eps"},
        {"learning_rate": 7e-4, "n_steps": 5, "gamma": 0.99, "gae_lambda": 1.0, "ent_coef": 0.0, "vf_coef": 0.5,
         "max_grad_norm": 0.5},
        {},
        ([64, 64], "tanh"), ("pi", "vf"), True, ("MlpPolicy", "CnnPolicy"),
        {"log_std_init": "log_std_init"}, WITHOUT_SDE | BYTES,
    ),
    "ppo_lstm": OwnLearner(
        "recurrent-ppo",
        PPO | {"batch_size": "minibatches"},
        {"learning_rate": 3e-4, "n_steps": 128, "batch_size": 128, "n_epochs": 10, "gamma": 0.99, "gae_lambda": 0.95,
         "clip_range": 0.2, "ent_coef": 0.0, "vf_coef": 0.5, "max_grad_norm": 0.5},
        {"clip_range_vf": (None,), "target_kl": (None,), "normalize_advantage": (True,)},
        ([64, 64], "tanh"), ("pi", "vf"), True, ("MlpLstmPolicy", "MlpPolicy"),
        {"log_std_init": "log_std_init", "lstm_hidden_size": "memory_features", "n_lstm_layers": "depth"},
        WITHOUT_SDE | BYTES | ADAM_1E_5 | MEMORY,
    ),
    "dqn": OwnLearner(
        "dqn",
        OFF_POLICY | _same("target_update_interval", "exploration_fraction", "exploration_initial_eps",
                           "exploration_final_eps", "max_grad_norm") | {"n_steps": "n_step"},
        REPLAY | {"learning_rate": 1e-4, "batch_size": 32, "tau": 1.0, "train_freq": 4, "gradient_steps": 1,
                  "target_update_interval": 10_000, "exploration_fraction": 0.1, "exploration_final_eps": 0.05,
                  "max_grad_norm": 10.0},
        {},
        ([64, 64], "relu"), (), False, ("MlpPolicy", "CnnPolicy"), {}, BYTES | ADAM,
    ),
    "sac": OwnLearner(
        "sac",
        OFF_POLICY | _same("ent_coef", "target_entropy"),
        REPLAY | {"learning_rate": 3e-4, "batch_size": 256, "tau": 0.005, "train_freq": 1, "gradient_steps": 1,
                  "ent_coef": "auto"},
        {"target_update_interval": (1,), "n_steps": (1,)},
        ([256, 256], "relu"), ("pi", "qf"), False, ("MlpPolicy",), {},
        BYTES | ADAM | TWINS | NO_SDE_OF_SAC,
    ),
    "td3": OwnLearner(
        "td3",
        OFF_POLICY | {"policy_delay": "policy_delay", "target_policy_noise": "target_noise",
                      "target_noise_clip": "target_noise_clip"},
        REPLAY | {"learning_rate": 1e-3, "batch_size": 256, "tau": 0.005, "train_freq": 1, "gradient_steps": 1},
        {"n_steps": (1,)},
        ([400, 300], "relu"), ("pi", "qf"), False, ("MlpPolicy",), {}, BYTES | ADAM | TWINS,
    ),
}  # fmt: skip
OWN["ddpg"] = replace(
    OWN["td3"],
    fields=OFF_POLICY,
    policy_neutral={**OWN["td3"].policy_neutral, **ONE_CRITIC},
    fixed={"n_critics": 1, "policy_delay": 1, "target_noise": 0.0, "target_noise_clip": 0.0},
)
SCHEDULED = ("learning_rate", "clip_range")
NO_NOISE = {"kind": "normal", "std": 0.0}  # the zoo's default


def own_fields(fields: Mapping[str, Any], keys: Keys, noise: dict[str, Any] | None, ours: OwnLearner) -> dict[str, Any]:
    """An entry for one of our learners.

    Args:
        fields: of the environment.
        keys: what is left of the entry; all of it is taken.
        noise: on actions, {kind, std}, None where there is none.
        ours: the learner.

    Raises:
        Untranslatable: a key has no counterpart.
    """
    trial = {"learner": ours.name, **fields, **ours.fixed}
    if keys.left.get("use_sde"):
        raise Untranslatable("use_sde", f"our {ours.name} has no equivalent; {ELSEWHERE}")
    trial |= _noise(noise, ours)
    policy = str(keys.take("policy", ours.policies[0]))
    network = Keys(mapping("policy_kwargs", keys.take("policy_kwargs", {})))
    if ours.name == "a2c":
        trial |= _optimiser(keys, network)
    keys.take_neutral(ours.neutral)
    arguments = {**ours.defaults, **{key: keys.take(key) for key in list(keys.left)}}
    if ours.name == "recurrent-ppo":
        arguments["batch_size"] = _minibatches(arguments, trial["n_envs"])
    for key, value in arguments.items():
        trial |= _argument(key, value, ours)
    return trial | _network(policy, network, ours)


def _noise(noise: dict[str, Any] | None, ours: OwnLearner) -> dict[str, Any]:
    if ours.name == "td3":
        both = noise or NO_NOISE
        return {"noise": both["kind"], "noise_std": both["std"]}
    if noise and noise["std"] != 0:
        raise Untranslatable("noise_type", f"our {ours.name} has no equivalent; {ELSEWHERE}")
    return {}


def _optimiser(keys: Keys, network: Keys) -> dict[str, Any]:
    """A2C's: torch's RMSprop, TensorFlow's, or Adam, each with the eps that stable-baselines3 gives it."""
    rmsprop, eps = keys.take("use_rms_prop", True), keys.take("rms_prop_eps", 1e-5)
    name, given = network.take("optimizer_class"), network.take("optimizer_kwargs")
    more = dict(mapping("policy_kwargs", given or {}))
    if name == "RMSpropTFLike":
        optimiser, eps = "rmsprop-tf", more.pop("eps", 1e-8)
    elif name is not None:
        raise Untranslatable("policy_kwargs", f"our a2c has nothing like `optimizer_class`={name}; {ELSEWHERE}")
    elif rmsprop:
        optimiser, more = "rmsprop", {}  # stable-baselines3 overwrites them
    else:
        optimiser, eps = "adam", more.pop("eps", 1e-5 if given is None else 1e-8)
    usual = {"alpha": (0.99,), "momentum": (0,), "weight_decay": (0,), "centered": (False,)}
    for key, value in more.items():
        if value not in usual.get(key, ()):
            raise Untranslatable("policy_kwargs", f"our a2c keeps the optimiser's `{key}`; {ELSEWHERE}")
    return {"optimiser": optimiser, "eps": eps}


def _minibatches(arguments: Mapping[str, Any], n_envs: int) -> int:
    """Minibatches of whole sequences that have as many rows as stable-baselines3's."""
    rows, batch = arguments["n_steps"] * n_envs, arguments["batch_size"]
    if batch >= rows:
        return 1
    if batch % arguments["n_steps"] or rows % batch:
        one = f"a minibatch of our recurrent-ppo is whole environments of {arguments['n_steps']} steps"
        raise Untranslatable("batch_size", f"{one}, {batch} rows are not; {ELSEWHERE}")
    return rows // batch


def _argument(key: str, value: Any, ours: OwnLearner) -> dict[str, Any]:
    """Our field, or two, for an argument of stable-baselines3's."""
    if key not in ours.fields:
        raise Untranslatable(key, f"our {ours.name} has no equivalent; {ELSEWHERE}")
    name = ours.fields[key]
    schedule = {}
    if key in SCHEDULED:
        schedule = {f"{name}_schedule": "constant"}
    if isinstance(value, str) and value.startswith("lin_"):
        if key not in SCHEDULED:
            raise Untranslatable(key, f"our {ours.name} keeps it constant; write a number, or {ELSEWHERE}")
        value, schedule = _number(key, value.removeprefix("lin_")), {f"{name}_schedule": "linear"}
    if key == "train_freq" and isinstance(value, list):
        if len(value) != 2 or value[1] != "step":
            raise Untranslatable(key, f"our {ours.name} counts steps; write a whole number, or {ELSEWHERE}")
        value = value[0]
    return {name: _checked(key, value, ours), **schedule}


def _checked(key: str, value: Any, ours: OwnLearner) -> Any:
    """A value that our field takes.

    Raises:
        Untranslatable: it does not.
    """
    from pydantic import TypeAdapter, ValidationError

    from harness.learner import learner_class

    info = learner_class(ours.name).Config.model_fields[ours.fields[key]]
    kind: Any = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        text = error.errors()[0]["msg"]
        raise Untranslatable(key, f"our {ours.name} does not take {value!r} ({text}); {ELSEWHERE}") from None
    return value


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Untranslatable(key, f"lin_{text} is no schedule; write for example lin_1e-3") from None


def _network(policy: str, network: Keys, ours: OwnLearner) -> dict[str, Any]:
    """The network's fields."""
    if policy not in ours.policies:
        raise Untranslatable("policy", f"our {ours.name} has nothing like {policy}; {ELSEWHERE}")
    network.take_neutral(ours.policy_neutral)
    init = "torch"
    if ours.orthogonal:
        init = "orthogonal" if network.take("ortho_init", True) else "torch"
    fields = {our: network.take(key) for key, our in ours.policy.items() if key in network.left}
    if policy == "CnnPolicy":
        fields |= _convolutions(network, init, ours)
    elif ours.name == "recurrent-ppo":
        widths, activation = _layers(network, ours)
        memory = {"memory_features": 256, "depth": 1, "shared": False}  # sb3-contrib's
        fields = memory | fields | {"hidden_features": widths, "activation": activation, "init": init}
    else:
        network.take_neutral({"share_features_extractor": None})  # flattening has no weights
        widths, activation = _layers(network, ours)
        if not widths:
            raise Untranslatable("policy_kwargs", f"our {ours.name} needs a hidden layer; {ELSEWHERE}")
        net = {"kind": "mlp", "hidden_features": widths, "activation": activation}
        fields["net"] = net | ({"init": "torch"} if ours.orthogonal and init == "torch" else {})
    for key in network.left:
        raise Untranslatable("policy_kwargs", f"our {ours.name} has nothing like `{key}`; {ELSEWHERE}")
    return fields


def _convolutions(network: Keys, init: str, ours: OwnLearner) -> dict[str, Any]:
    """stable-baselines3's NatureCNN with the heads right above it."""
    widths, _ = _layers(network, ours, [])
    if widths:
        raise Untranslatable("policy_kwargs", f"our {ours.name} has no layers above its CNN; {ELSEWHERE}")
    extractor = Keys(mapping("policy_kwargs", network.take("features_extractor_kwargs") or {}))
    width = extractor.take("features_dim", 512)
    for key in extractor.left:
        raise Untranslatable("policy_kwargs", f"our {ours.name} has nothing like `{key}`; {ELSEWHERE}")
    fields: dict[str, Any] = {}
    if ours.orthogonal:
        fields["shared"] = bool(network.take("share_features_extractor", True))
    return fields | {"net": {"kind": "nature-cnn", "hidden_features": width, "init": init}}


def _layers(network: Keys, ours: OwnLearner, usual: list[int] | None = None) -> tuple[list[int], str]:
    """(widths, activation) of the hidden layers; `usual` widths where the entry names none, else the learner's."""
    widths, activation = ours.layers
    widths = widths if usual is None else usual
    activation = named_activation(network.take("activation_fn", activation))
    given = network.take("net_arch")
    if isinstance(given, list) and len(given) == 1 and isinstance(given[0], dict):
        given = given[0]  # as stable-baselines3 before 1.8 wrote it
    if isinstance(given, dict):
        parts = [given.get(side, []) for side in ours.sides]
        if set(given) - set(ours.sides) or not parts:
            known = f"names {', '.join(given)}, not {', '.join(ours.sides)}" if ours.sides else "should be a list"
            raise Untranslatable("policy_kwargs", f"net_arch {known}")
        if any(part != parts[0] for part in parts):
            raise Untranslatable("policy_kwargs", f"our {ours.name} has equal networks for both; {ELSEWHERE}")
        given = parts[0]
    widths = widths if given is None else given
    if not isinstance(widths, list) or not all(isinstance(width, int) and width > 0 for width in widths):
        raise Untranslatable("policy_kwargs", f"net_arch {widths!r} is not a list of widths")
    return widths, activation
