"""Wrappers of Gymnasium environments by name, as the configuration field `wrappers` has them, innermost first.

`normalise-observations` and `normalise-rewards` stand in the same field, but are part of a trial's state
(`agents.envs.normalising`). numpy and Gymnasium only: worker processes import this.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any, SupportsFloat, get_type_hints

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import (
    AtariPreprocessing,
    FlattenObservation,
    FrameStackObservation,
    RescaleAction,
    TimeLimit,
    TransformObservation,
)

from agents.envs.masks import mask_apart
from agents.envs.missions import FlatMission, has_mission
from agents.envs.observing import FrameSkip, History, MaskVelocity, TimeFeature, greyscale, resize
from agents.envs.pictures import Picture, holds_codes, scale_pictures

__all__ = ["NORMALISERS", "WRAPPERS", "check_wrappers", "flatten", "wrap"]

NORMALISERS = ("normalise-observations", "normalise-rewards")
_TYPES = {int: "a whole number", float: "a number", bool: "true or false"}


class ClipRewards(gymnasium.RewardWrapper):
    """Rewards by their sign: -1, 0 or 1 (Mnih et al. 2015)."""

    def reward(self, reward: SupportsFloat) -> float:
        return float(np.sign(float(reward)))


class FireReset(gymnasium.Wrapper):
    """Presses FIRE, then the button after it, at the start of every episode and every life: some games wait for that.

    Where a lost life ends an episode, its reset does it. Elsewhere, as in evaluations, it is done after the step that
    lost the life, and what is earned meanwhile counts: a policy that never had to press FIRE plays on.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.lives = 0

    def reset(self, **options: Any) -> Any:
        obs, info = self.env.reset(**options)
        for action in (1, 2):
            obs, _, terminated, truncated, info = self.env.step(action)
            if terminated or truncated:
                obs, info = self.env.reset()
        self.lives = lives_of(self.env)
        return obs, info

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        before, self.lives = self.lives, lives_of(self.env)
        if not 0 < self.lives < before:
            return obs, reward, terminated, truncated, info
        for press in (0, 1, 2):  # as EpisodicLife and then this do at a reset
            if terminated or truncated:
                break
            obs, more, terminated, truncated, info = self.env.step(press)
            reward = float(reward) + float(more)
        self.lives = lives_of(self.env)
        return obs, reward, terminated, truncated, info


class EpisodicLife(gymnasium.Wrapper):
    """A lost life ends the episode, and the game goes on in the next one (Mnih et al. 2015).

    A reset with a seed always starts a new game, so that a resumed run sees what an uninterrupted one sees.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.lives, self.over = 0, True

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.over = terminated or truncated
        lives = lives_of(self.env)
        lost = 0 < lives < self.lives  # some games show 0 lives for a few frames before they end
        self.lives = lives
        return obs, reward, terminated or lost, truncated, info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if self.over or seed is not None:
            obs, info = self.env.reset(seed=seed, options=options)
        else:
            obs, _, terminated, truncated, info = self.env.step(0)
            if terminated or truncated:
                obs, info = self.env.reset()
        self.lives, self.over = lives_of(self.env), False
        return obs, info


def lives_of(env: gymnasium.Env) -> int:
    """Lives that are left in a game of ALE."""
    return int(env.get_wrapper_attr("ale").lives())


def time_limit(env: gymnasium.Env, steps: int) -> gymnasium.Env:
    """Episodes are cut off after so many steps."""
    return TimeLimit(env, max_episode_steps=steps)


def frame_stack(env: gymnasium.Env, frames: int = 4) -> gymnasium.Env:
    """The newest `frames` observations, the oldest first; at the start of an episode the first one repeated.

    Vectors stand one after another, pictures above one another (their channels are put together).
    """
    stacked = FrameStackObservation(env, frames)
    return FlattenObservation(stacked) if len(env.observation_space.shape or ()) == 1 else stacked


def atari(
    env: gymnasium.Env,
    noop_max: int = 30,
    frame_skip: int = 4,
    screen_size: int = 84,
    frames: int = 4,
    life_loss: bool = True,
    clip_rewards: bool = True,
) -> gymnasium.Env:
    """What stable-baselines3's AtariWrapper does (Machado et al. 2018), and a stack of frames.

    In its order: up to `noop_max` idle frames at a reset, the maximum of the last two of every `frame_skip` frames, a
    lost life ends an episode, FIRE where a game waits for it, 84 x 84 grey bytes, rewards by their sign. Different:
    grey is ALE's own luminance, not OpenCV's of the RGB frame; an episode that ends during FIRE gives the
    observation after its reset. ALE/...-v5 repeat the last action with probability 0.25, the older ids
    that stable-baselines3's scores are of do not: `env_options: {repeat_action_probability: 0}`.
    """
    if not env.has_wrapper_attr("ale"):
        raise ValueError("it is for games of ALE")
    env = AtariPreprocessing(env, noop_max=noop_max, frame_skip=frame_skip, screen_size=screen_size)
    if life_loss:
        env = EpisodicLife(env)
    if "FIRE" in env.unwrapped.get_action_meanings():  # type: ignore[attr-defined]
        env = FireReset(env)
    if clip_rewards:
        env = ClipRewards(env)
    return FrameStackObservation(env, frames)


def rescale_actions(env: gymnasium.Env, low: float = -1.0, high: float = 1.0) -> gymnasium.Env:
    """A box's actions between other bounds."""
    return RescaleAction(env, np.float32(low), np.float32(high))


def image_only(env: gymnasium.Env) -> gymnasium.Env:
    """Of observations by name, "image" alone (MiniGrid's partial view)."""
    space = env.observation_space
    if not isinstance(space, spaces.Dict) or "image" not in space.spaces:
        raise ValueError(f"its observations have no `image`: {space}")
    return TransformObservation(env, lambda obs: obs["image"], space["image"])


def picture(env: gymnasium.Env, last: bool = True, scaled: bool = True) -> gymnasium.Env:
    """Says which axis of a picture holds the channels, and whether its bytes are brightnesses from 0 to 255."""
    return Picture(env, last, scaled)


def flatten(env: gymnasium.Env, scaled: bool = True, letters: int = 0) -> gymnasium.Env:
    """One vector of numbers: names and tuples side by side, discrete ones as one-hot, MiniGrid's mission by letters.

    Pictures, bytes from 0 to 255, become numbers from 0 to 1 unless `scaled` is false. `letters` is the room for a
    mission; 0: for the longest that the environment may give.
    """
    if scaled and not holds_codes(env):
        env = scale_pictures(env)
    return FlatMission(env, letters) if has_mission(env.observation_space) else FlattenObservation(env)


WRAPPERS: dict[str, Callable[..., gymnasium.Env]] = {
    "time-limit": time_limit,
    "frame-stack": frame_stack,
    "atari": atari,
    "clip-rewards": ClipRewards,
    "rescale-actions": rescale_actions,
    "image-only": image_only,
    "flatten": flatten,
    "frame-skip": FrameSkip,
    "history": History,
    "time-feature": TimeFeature,
    "mask-velocity": MaskVelocity,
    "resize": resize,
    "greyscale": greyscale,
    "picture": picture,
}
# what shapes training and would falsify a score: evaluation plays the whole game for its own rewards
_NOT_EVALUATED = {"clip-rewards": None, "atari": {"life_loss": False, "clip_rewards": False}}


def wrap(env: gymnasium.Env, wrappers: Sequence[Any], evaluating: bool = False) -> gymnasium.Env:
    """The environment in its wrappers.

    Args:
        env: a bare one.
        wrappers: names, or {name: options}; "package.module:Class" is a user's own.
        evaluating: leaves out what shapes training only: clipped rewards, lives as episodes.

    Raises:
        ValueError: no such wrapper or option, or it does not suit the environment.
    """
    for name, options in check_wrappers(wrappers):
        if evaluating and name in _NOT_EVALUATED:
            instead = _NOT_EVALUATED[name]
            if instead is None:
                continue
            options = {**options, **instead}
        wrapper = _find(name)
        try:
            if ":" not in name:  # a user's own takes observations as they are, and may put the mask there
                env = mask_apart(env)
            env = wrapper(env, **options)
        except (ImportError, gymnasium.error.DependencyNotInstalled):
            raise
        except Exception as error:
            raise ValueError(f"wrappers: {name}: {error}") from error
    return mask_apart(env)


def check_wrappers(wrappers: Sequence[Any]) -> list[tuple[str, dict[str, Any]]]:
    """(name, options) of every wrapper.

    Raises:
        ValueError: an unknown name or option, or a value of the wrong type.
    """
    pairs: list[tuple[str, dict[str, Any]]] = []
    for one in wrappers:
        pairs += [(one, {})] if isinstance(one, str) else list(one.items())
    for name, options in pairs:
        if name in NORMALISERS:
            raise ValueError(f"wrappers: {name} takes no options; write it as a plain name")
        if ":" not in name:
            _check_options(name, _find(name), options)
    return pairs


def _find(name: str) -> Callable[..., gymnasium.Env]:
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"wrappers: {name}: {error}") from error
    if name not in WRAPPERS:
        raise ValueError(f"wrappers: {_nearest(name, (*WRAPPERS, *NORMALISERS), 'wrapper')}")
    return WRAPPERS[name]


def _check_options(name: str, wrapper: Callable[..., gymnasium.Env], options: dict[str, Any]) -> None:
    known = dict(list(inspect.signature(wrapper).parameters.items())[1:])
    hints = get_type_hints(wrapper if inspect.isfunction(wrapper) else wrapper.__init__)
    for option, value in options.items():
        if option not in known:
            what = _nearest(option, known, "option") if known else f"takes no options, `{option}` was given"
            raise ValueError(f"wrappers: {name}: {what}")
        wanted = hints[option]
        fits = isinstance(value, int | float) if wanted is float else isinstance(value, wanted)
        if not fits or (isinstance(value, bool) and wanted is not bool):
            raise ValueError(f"wrappers: {name}: `{option}` should be {_TYPES[wanted]}, not {value!r}")
    missing = [o for o, p in known.items() if p.default is p.empty and o not in options]
    if missing:
        raise ValueError(f"wrappers: {name} needs an option: write {{{name}: {{{missing[0]}: ...}}}}")


def _nearest(name: str, known: Any, noun: str) -> str:
    from harness.spec_errors import nearest  # pydantic, which worker processes do without

    return nearest(name, known, noun)
