"""Hyper-parameters as rl-baselines3-zoo writes them, as entries of an experiment file: for `sb3` or our own learners.

Every key of an entry is taken by exactly one rule: one of the environment's, one of those below, or an argument of the
algorithm's constructor. A key that no rule takes is an error, so nothing is read over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from flows.zoo_environments import environment_fields
from flows.zoo_own import OWN, OwnLearner, own_fields
from flows.zoo_values import Keys, Untranslatable, mapping, named_activation

__all__ = ["ALGORITHMS", "OWN", "OwnLearner", "Translation", "Untranslatable", "translate"]

ALGORITHMS = {  # the zoo's name -> the class of stable-baselines3 or sb3-contrib
    "a2c": "A2C", "ars": "ARS", "crossq": "CrossQ", "ddpg": "DDPG", "dqn": "DQN", "ppo": "PPO",
    "ppo_lstm": "RecurrentPPO", "ppo_mask": "MaskablePPO", "qrdqn": "QRDQN", "sac": "SAC", "td3": "TD3", "tqc": "TQC",
    "trpo": "TRPO",
}  # fmt: skip
NOISES = {"normal": "normal", "ornstein-uhlenbeck": "ou"}
# what changes nothing at these values (None: at any), for every algorithm and learner
NEUTRAL: dict[str, tuple[Any, ...] | None] = {
    "optimize_memory_usage": (False,),
    "replay_buffer_class": (None, "ReplayBuffer"),
    "replay_buffer_kwargs": (None, {}),
    "rollout_buffer_class": (None,),
    "rollout_buffer_kwargs": (None, {}),
    "callback": (None, []),
    "vec_env_wrapper": (None, []),
    "eval_env_kwargs": (None, {}),
    "monitor_kwargs": None,
    "stats_window_size": None,
    "tensorboard_log": None,
    "policy_kwargs": (None, {}),
}
LEFT_OUT = {
    "callback": "take it out: evaluation, checkpoints and early ends are the experiment's own",
    "vec_env_wrapper": "take it out, or say it by `frame_stack` or `normalize`",
    "eval_env_kwargs": "take it out: evaluation uses the environment that is trained on",
    "optimize_memory_usage": "take it out: the replay always keeps what follows every step",
}


class Translation(NamedTuple):
    """An entry of an experiment file's `trials`, and what a reader should know of it.

    Attributes:
        trial: its fields.
        notes: sentences.
    """

    trial: dict[str, Any]
    notes: list[str]


def translate(env: str, entry: Mapping[str, Any], algo: str, own: bool) -> Translation:
    """One entry of an experiment file's `trials`.

    Args:
        env: its id.
        entry: the zoo's keys and values for it.
        algo: a name of `ALGORITHMS`.
        own: for our learner of that kind instead of `sb3`.

    Raises:
        Untranslatable: a key has no counterpart.
    """
    keys = Keys(entry)
    notes: list[str] = []
    keys.take_neutral(NEUTRAL)
    for key, mend in LEFT_OUT.items():
        if key in keys.left:
            raise Untranslatable(key, mend)
    keys.take_exploration()
    noise = _noise(keys)
    fields = environment_fields(env, keys, notes)
    trial = own_fields(fields, keys, noise, OWN[algo]) if own else _for_sb3(fields, keys, noise, algo, notes)
    for key in keys.left:
        raise Untranslatable(key, "no rule takes it; take it out")
    return Translation(trial, notes)


def _noise(keys: Keys) -> dict[str, Any] | None:
    """Noise on actions, {kind, std}."""
    if keys.left.get("noise_type") is None:
        keys.take("noise_type")
        if keys.take("noise_std") is not None:
            raise Untranslatable("noise_std", "is for a noise that `noise_type` does not name; take it out")
        return None
    name, std = str(keys.take("noise_type")).strip(), keys.take("noise_std")
    if name not in NOISES:
        raise Untranslatable("noise_type", f"{name} is not known; write {' or '.join(NOISES)}")
    if std is None:
        raise Untranslatable("noise_type", "has no noise_std; say how large it is")
    return {"kind": NOISES[name], "std": std}


def _for_sb3(
    fields: dict[str, Any], keys: Keys, noise: dict[str, Any] | None, algo: str, notes: list[str]
) -> dict[str, Any]:
    from agents.sb3_arguments import ALGORITHMS as KNOWN

    cls = KNOWN[ALGORITHMS[algo]]
    if algo == "ars":
        fields["n_envs"] = 1  # the zoo trains ARS in one; its n_envs counts processes that share the work
    policy = _policy(str(keys.take("policy", "MlpPolicy")), list(cls.policies), notes)
    network = mapping("policy_kwargs", keys.take("policy_kwargs", {}))
    hyper = {key: keys.take(key) for key in list(keys.left)}
    if noise:
        hyper["action_noise"] = noise
    trial = {"learner": "sb3", "algo": ALGORITHMS[algo], **fields, "policy": policy}
    if hyper:
        trial["hyper"] = {key: _checked(cls, key, value) for key, value in hyper.items()}
    if network:
        trial["policy_kwargs"] = _checked_network(cls.policies[policy], network)
    return trial


def _policy(name: str, known: list[str], notes: list[str]) -> str:
    """A policy that the algorithm has: for those with a memory "MlpPolicy" can only mean "MlpLstmPolicy"."""
    longer = f"{name.removesuffix('Policy')}LstmPolicy"
    if name not in known and longer in known:
        notes.append(f"policy: {name} is written as {longer}, for this algorithm has a memory")
        return longer
    if name not in known:
        raise Untranslatable("policy", f"{name} is not known; known are {', '.join(known)}")
    return name


def _checked(cls: Any, key: str, value: Any) -> Any:
    """An argument that the constructor takes.

    Raises:
        Untranslatable: it does not.
    """
    from agents.sb3_arguments import arguments

    try:
        arguments(cls, {key: value})
    except ValueError as error:
        shown = "noise_type" if key == "action_noise" else key
        text = str(error).removeprefix("hyper").lstrip(".: ").removeprefix(f"{shown}: ")
        raise Untranslatable(shown, text) from None
    return value


def _checked_network(policy: Any, network: dict[str, Any]) -> dict[str, Any]:
    from agents.sb3_arguments import policy_arguments

    named = {key: named_activation(value) for key, value in network.items()}
    try:
        policy_arguments(policy, named)
    except ValueError as error:
        raise Untranslatable("policy_kwargs", str(error).removeprefix("policy_kwargs").lstrip(".: ")) from None
    return named
