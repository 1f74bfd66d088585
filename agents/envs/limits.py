"""How long an episode may last: what an environment says of itself. Gymnasium only: worker processes import this."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.wrappers import AtariPreprocessing, TimeLimit

__all__ = ["own_limit"]


def own_limit(env: gymnasium.Env) -> int | None:
    """Steps after which an environment itself ends an episode at the latest; None where nothing says so.

    Gymnasium's TimeLimit says it, and so do environments that keep their limit to themselves: ALE counts frames, and
    MiniGrid steps. BabyAI sets another limit for every mission; the answer is then that of the current one.
    """
    limits = [limit for limit in (_kept_to_itself(env.unwrapped), _registered(env)) if limit]
    limit = min(limits, default=0)
    for wrapper in _inside_out(env):
        if isinstance(wrapper, TimeLimit):
            most = int(wrapper._max_episode_steps)
            limit = min(limit, most) if limit else most
        elif isinstance(wrapper, AtariPreprocessing):
            limit = -(-limit // wrapper.frame_skip)
    return limit or None


def _inside_out(env: gymnasium.Env) -> list[gymnasium.Wrapper]:
    wrappers = []
    while isinstance(env, gymnasium.Wrapper):
        wrappers.append(env)
        env = env.env
    return wrappers[::-1]


def _registered(env: gymnasium.Env) -> int:
    """What the bare environment was registered with; 0 for nothing."""
    spec = env.unwrapped.spec
    return max(0, (spec.max_episode_steps if spec else None) or 0)


def _kept_to_itself(env: Any) -> int:
    """ALE's or MiniGrid's limit in steps of the bare environment; 0 for no limit and for any other environment."""
    packages = {cls.__module__.partition(".")[0] for cls in type(env).__mro__}
    if "ale_py" in packages:
        skip = env._frameskip if isinstance(env._frameskip, int) else min(env._frameskip)
        return -(-max(0, env.ale.getInt("max_num_frames_per_episode")) // skip)
    return max(0, int(env.max_steps)) if "minigrid" in packages else 0
