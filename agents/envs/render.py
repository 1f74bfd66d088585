"""Episodes to look at, drawn without a display: classic control by Gymnasium's own pictures, grids by ours.

Drawing is for looking only: where a package, a driver or a picture is missing there is no video, and no error.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
import torch
from torch import Tensor

from agents.envs.transition import TensorEnv
from harness.learner import Lanes, Media

__all__ = ["Episode", "can_draw", "draw", "draw_grid", "episode_media", "film"]

_log = logging.getLogger(__name__)

MOST_FRAMES = 200
FILMED = 2  # lanes of one configuration: drawing an episode costs about a second
GRID_FPS = 8.0
GRID_PIXELS = 200
# Gymnasium's environments of these names hold in `state` what is "physics" in ours
CLASSIC = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1")
HEADLESS = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
EMPTY = (24, 28, 36)
COLOURS = (  # one a channel
    (94, 160, 255), (255, 176, 59), (95, 211, 141), (240, 98, 146), (186, 142, 255), (255, 241, 118), (120, 220, 232),
    (214, 140, 90), (236, 239, 244), (144, 164, 174),
)  # fmt: skip


class Episode(NamedTuple):
    """One episode as pictures.

    Attributes:
        frames: uint8 [at most 200, H, W, 3], at even steps of the episode.
        fps: at which they are shown in real time.
        total: the return.
        steps: of the episode.
    """

    frames: np.ndarray
    fps: float
    total: float
    steps: int


class Records(Protocol):
    """Environments that can play one episode to be looked at."""

    def record(self, params: Any, state: dict[str, Any], lane: int, progress: int) -> Episode | None:
        """A deterministic episode of one lane; None where it cannot be drawn."""
        ...


def episode_media(
    envs: Records, lanes: Lanes, params: Any, state: dict[str, Any], lane: int, progress: int
) -> dict[str, Media]:
    """A learner's `media`: {"episode": video}, {} where nothing can be drawn or enough lanes of this kind are filmed.

    Args:
        envs: what `make_environments` gave.
        lanes: the cohort; the first two lanes of every configuration are filmed.
        params: the policy's, with lanes.
        state: the environments' part of the state.
        lane: whose episode.
        progress: the cohort's.
    """
    if lanes.configs[:lane].count(lanes.configs[lane]) >= FILMED:
        return {}
    episode = envs.record(params, state, lane, progress)
    if episode is None:
        return {}
    caption = f"return {episode.total:.5g} in {episode.steps:,} steps, without noise, after {progress:,} of training"
    return {"episode": Media("video", episode.frames, caption=caption, fps=episode.fps)}


def can_draw(env_id: str, env: TensorEnv) -> bool:
    """Whether `draw` knows how this environment looks: the classic ones, and all whose observation is a picture."""
    return env_id in CLASSIC or len(env.obs_shape) >= 2


def draw(env_id: str, env: TensorEnv, states: Sequence[Mapping[str, Tensor]], total: float) -> Episode | None:
    """Pictures of an episode of a tensor environment.

    Args:
        env_id: its name.
        env: the environment.
        states: of one environment before every step, tensors [...] without leading axes.
        total: the episode's return.
    """
    stride = -(-len(states) // MOST_FRAMES)
    kept = states[::stride]
    if env_id in CLASSIC:
        drawn = _attempted(lambda: _classic(env_id, kept), env_id)
    else:
        seen = torch.stack([env.observe(state) for state in kept])
        drawn = draw_grid(seen.cpu().numpy()), GRID_FPS
    return None if drawn is None else Episode(drawn[0], drawn[1] / stride, total, len(states))


def draw_grid(observed: np.ndarray) -> np.ndarray:
    """Grids as pictures: every channel has its colour, later ones lie over earlier ones, as opaque as they are bright.

    Args:
        observed: [T, rows, columns] or [T, channels, rows, columns]; 0 and below is nothing, 1 is bright.

    Returns:
        uint8 [T, H, W, 3], H and W at most 200 for grids of up to 200 cells a side.
    """
    layers = observed[:, None] if observed.ndim == 3 else observed
    count, channels, rows, columns = layers.shape
    frames = np.full((count, rows, columns, 3), EMPTY, dtype=np.float64)
    for channel in range(channels):
        opaque = layers[:, channel, :, :, None].clip(0, 1)
        frames += opaque * (COLOURS[channel % len(COLOURS)] - frames)
    cell = max(1, GRID_PIXELS // max(rows, columns))
    return frames.round().astype(np.uint8).repeat(cell, axis=1).repeat(cell, axis=2)


def film(
    make: Callable[[], gymnasium.Env], act: Callable[..., Any], seed: int, most: int | None = None
) -> tuple[Episode | None, bool]:
    """(one episode of a Gymnasium environment, whether it was cut off); (None, False) where it cannot be drawn.

    Args:
        make: gives the environment, made with `render_mode="rgb_array"`.
        act: from an observation, the environment and its information to the action that it takes; it may remember.
        seed: of the reset.
        most: steps after which the episode is cut off; None where the environment has a limit of its own.
    """
    return _attempted(lambda: _filmed(make, act, seed, most), "the environment") or (None, False)


def _filmed(
    make: Callable[[], gymnasium.Env], act: Callable[..., Any], seed: int, most: int | None
) -> tuple[Episode, bool]:
    env = make()
    try:
        obs, info = env.reset(seed=seed)
        frames: list[np.ndarray] = []
        stride, total, steps, ended = 1, 0.0, 0, False
        while not ended and steps != most:
            if steps % stride == 0:
                frames.append(np.asarray(env.render(), dtype=np.uint8))
            if len(frames) > MOST_FRAMES:
                frames, stride = frames[::2], 2 * stride
            obs, reward, terminated, truncated, info = env.step(act(obs, env, info))
            total, steps, ended = total + float(reward), steps + 1, terminated or truncated
    finally:
        env.close()
    return Episode(np.stack(frames), _fps(env) / stride, total, steps), not ended


def _classic(env_id: str, states: Sequence[Mapping[str, Tensor]]) -> tuple[np.ndarray, float]:
    """Gymnasium's pictures of states of its own environment of that name."""
    env = gymnasium.make(env_id, render_mode="rgb_array")
    try:
        env.reset(seed=0)
        inner: Any = env.unwrapped
        frames = []
        for state in states:
            inner.state = np.array(state["physics"].tolist())
            frames.append(np.asarray(inner.render(), dtype=np.uint8))
    finally:
        env.close()
    return np.stack(frames), _fps(env)


def _fps(env: gymnasium.Env) -> float:
    return float(env.metadata.get("render_fps") or 30.0)


def _attempted(action: Callable[[], Any], what: str) -> Any:
    """What the action gives, or None where it fails: renderers lack displays, drivers and packages in many ways."""
    for name, value in HEADLESS.items():
        os.environ.setdefault(name, value)
    if not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        return action()
    except Exception as error:
        if isinstance(error, NotImplementedError) or "render_mode" in str(error):
            return None  # an environment that draws nothing says so in one of these ways
        _log.warning("no video of %s: %s", what, error or type(error).__name__)
        return None
