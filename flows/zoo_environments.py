"""What an entry of rl-baselines3-zoo says of its environments, as fields of an experiment file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flows.zoo_values import Keys, Untranslatable, mapping

__all__ = ["environment_fields"]

# ids that their packages no longer bring -> their successor, the same task: (regular expression, what takes its place)
SUCCESSORS = (
    (r"(HalfCheetah|Ant|Hopper|Walker2d|Humanoid|HumanoidStandup|Reacher|Pusher|Swimmer|InvertedPendulum"
     r"|InvertedDoublePendulum)-v[0-3]", r"\1-v4"),
    (r"(LunarLander|LunarLanderContinuous)-v[0-2]", r"\1-v3"),
    (r"(BipedalWalker|BipedalWalkerHardcore)-v[0-2]", r"\1-v3"),
    (r"CarRacing-v[0-2]", "CarRacing-v3"),
    (r"(Fetch(?:Reach|Push|Slide|PickAndPlace))-v[0-3]", r"\1-v4"),
    (r"(Panda(?:Reach|Push|Slide|PickAndPlace|Stack|Flip))-v[0-2]", r"\1-v3"),
)  # fmt: skip
WITHOUT_VELOCITY = re.compile(r"(.+)NoVel(-v\d+)")
OURS = ("CartPoleNoVel-v1",)  # one of our own environments


@dataclass(frozen=True)
class Wrapper:
    """A wrapper that has a counterpart of ours.

    Attributes:
        name: ours; empty: what it does is done anyway.
        options: its options -> ours; a tuple takes a list apart.
        neutral: its options that change nothing at these values; None: at any.
    """

    name: str
    options: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    neutral: Mapping[str, tuple[Any, ...] | None] = field(default_factory=dict)


SIZE = {"shape": ("height", "width")}
WRAPPERS = {  # (package, class)
    ("stable_baselines3", "AtariWrapper"): Wrapper(
        "atari",
        {"noop_max": "noop_max", "frame_skip": "frame_skip", "screen_size": "screen_size",
         "terminal_on_life_loss": "life_loss", "clip_reward": "clip_rewards"},
        {"action_repeat_probability": (0,)},
    ),
    ("stable_baselines3", "ClipRewardEnv"): Wrapper("clip-rewards"),
    ("stable_baselines3", "Monitor"): Wrapper("", {}, {"filename": None, "allow_early_resets": None,
                                                       "info_keywords": None}),
    ("sb3_contrib", "TimeFeatureWrapper"): Wrapper("time-feature", {"max_steps": "max_steps"}, {"test_mode": (False,)}),
    ("rl_zoo3", "TimeFeatureWrapper"): Wrapper("time-feature", {"max_steps": "max_steps"}, {"test_mode": (False,)}),
    ("rl_zoo3", "FrameSkip"): Wrapper("frame-skip", {"skip": "skip"}),
    ("rl_zoo3", "HistoryWrapper"): Wrapper("history", {"horizon": "horizon"}),
    ("rl_zoo3", "MaskVelocityWrapper"): Wrapper("mask-velocity"),
    ("rl_zoo3", "YAMLCompatResizeObservation"): Wrapper("resize", SIZE),
    ("gymnasium", "ResizeObservation"): Wrapper("resize", SIZE),
    ("gymnasium", "GrayscaleObservation"): Wrapper("greyscale", {}, {"keep_dim": None}),
    ("gymnasium", "TimeLimit"): Wrapper("time-limit", {"max_episode_steps": "steps"}),
    ("gymnasium", "FlattenObservation"): Wrapper("flatten"),
    ("minigrid", "FlatObsWrapper"): Wrapper("flatten"),
}  # fmt: skip
FORMERLY = {"gym": "gymnasium", "gym_minigrid": "minigrid", "utils.wrappers": "rl_zoo3"}
MOMENTS = {"norm_obs": "normalise-observations", "norm_reward": "normalise-rewards"}
# VecNormalize's own values, which ours have too
NEUTRAL_MOMENTS = {"training": (True,), "clip_obs": (10,), "clip_reward": (10,), "epsilon": (1e-8,),
                   "norm_obs_keys": (None,)}  # fmt: skip
GAMMA = 0.99  # VecNormalize's, and every algorithm's


def environment_fields(env: str, keys: Keys, notes: list[str]) -> dict[str, Any]:
    """The fields `env`, `n_envs`, `steps`, `env_options`, `wrappers`.

    Args:
        env: its id.
        keys: of the entry; those of the environment are taken.
        notes: gets a sentence where the environment is another one than the entry's.

    Raises:
        Untranslatable: a key has no counterpart.
    """
    if "n_timesteps" not in keys.left:
        raise Untranslatable("n_timesteps", "is missing; say how many steps to train for")
    name, found = _hidden(_successor(env, notes))
    fields = {"env": name, "n_envs": keys.take("n_envs", 1), "steps": keys.take("n_timesteps")}
    if options := keys.take("env_kwargs"):
        fields["env_options"] = mapping("env_kwargs", options)
    found += _wrappers(keys.take("env_wrapper"))
    found = _stacked(found, keys.take("frame_stack"))
    found += _normalisers(keys.take("normalize"), keys.left.get("gamma"))
    if found:
        fields["wrappers"] = found
    return fields


def _successor(env: str, notes: list[str]) -> str:
    plain, velocity, version = env.partition("NoVel")
    for pattern, instead in SUCCESSORS:
        new = re.sub(f"^{pattern}$", instead, plain + version)
        if new != plain + version:
            name, _, number = new.rpartition("-")
            new = f"{name}{velocity}-{number}"
            notes.append(f"{env} no longer exists; replaced by {new}, the same task")
            return new
    return env


def _hidden(env: str) -> tuple[str, list[Any]]:
    """(id, wrappers) of an environment without velocities, which only rl-baselines3-zoo registers."""
    found = WITHOUT_VELOCITY.fullmatch(env)
    if found is None or env in OURS:
        return env, []
    return "".join(found.groups()), ["mask-velocity"]


def _wrappers(value: Any) -> list[Any]:
    """Wrappers by our names, or by their import path."""
    found: list[Any] = []
    for item in value if isinstance(value, list) else [value] if value else []:
        if isinstance(item, dict) and len(item) != 1:
            raise Untranslatable("env_wrapper", f"{', '.join(map(str, item))}: write every wrapper as a list's item")
        path, options = next(iter(item.items())) if isinstance(item, dict) else (item, None)
        found += _wrapper(str(path), dict(mapping("env_wrapper", options or {})))
    return found


def _wrapper(path: str, options: dict[str, Any]) -> list[Any]:
    module, _, name = path.rpartition(".")
    if not module:
        raise Untranslatable("env_wrapper", f"{path} is not known; write package.module.Class")
    package = FORMERLY.get(module) or FORMERLY.get(module.split(".")[0]) or module.split(".")[0]
    ours = WRAPPERS.get((package, name))
    if ours is None:
        return [{f"{module}:{name}": options}]
    given = Keys(options)
    given.take_neutral(ours.neutral)
    taken: dict[str, Any] = {}
    for option, our in ours.options.items():
        if option in given.left:
            taken |= _option(our, given.take(option))
    if given.left:
        option = next(iter(given.left))
        raise Untranslatable("env_wrapper", f"{path}: `{option}` has no counterpart; take it out")
    return [{ours.name: taken} if taken else ours.name] if ours.name else []


def _option(ours: str | tuple[str, ...], value: Any) -> dict[str, Any]:
    """Our options for one of theirs."""
    if isinstance(ours, str):
        return {ours: value}
    values = value if isinstance(value, list) else [value] * len(ours)
    if len(values) != len(ours):
        raise Untranslatable("env_wrapper", f"{value} has {len(values)} numbers; give {len(ours)}")
    return dict(zip(ours, values, strict=True))


def _stacked(found: list[Any], frames: int | None) -> list[Any]:
    """With a stack of frames, which our `atari` contains."""
    places = [n for n, one in enumerate(found) if one == "atari" or (isinstance(one, dict) and "atari" in one)]
    if not places:
        return found if frames in (None, 1) else [*found, {"frame-stack": {"frames": frames}}]
    place, last = places[-1], places[-1] == len(found) - 1
    options = found[place]["atari"] if isinstance(found[place], dict) else {}
    atari = {"atari": {"frames": (frames or 1) if last else 1, **options}}
    stack = [] if last or frames in (None, 1) else [{"frame-stack": {"frames": frames}}]
    return [*found[:place], atari, *found[place + 1 :], *stack]


def _normalisers(value: Any, gamma: float | None) -> list[str]:
    """Our normalisers for arguments of VecNormalize.

    Args:
        value: true, or the arguments.
        gamma: the algorithm's, None where the entry is silent; both ours and the zoo's take that one.
    """
    if value in (None, False):
        return []
    if value is True:
        return list(MOMENTS.values())
    given = Keys(mapping("normalize", value))
    asked = [given.take(name, True) for name in MOMENTS]
    given.take_neutral(NEUTRAL_MOMENTS | {"gamma": (GAMMA,) if gamma is None else None})
    if given.left:
        raise Untranslatable("normalize", f"`{next(iter(given.left))}` cannot be set; take it out")
    return [wrapper for wrapper, wanted in zip(MOMENTS.values(), asked, strict=True) if wanted]
