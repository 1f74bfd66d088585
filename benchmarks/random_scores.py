"""The random policy's mean return in every environment of `agents/envs/scores.py` that is played here, measured anew.

Actions are drawn uniformly; ours are played as tensors, the others by Gymnasium. Prints mean, standard error, episodes
and what the table says; Atari's random scores are published ones and are not measured.

    python -m benchmarks.random_scores [ENV ...] [--episodes N]
"""

from __future__ import annotations

import argparse
import importlib
from contextlib import suppress

import gymnasium
import numpy as np
import torch

from agents.envs.catalogue import tensor_env
from agents.envs.scores import SCORES
from agents.envs.spaces import ActionSpace
from agents.envs.transition import TensorEnv

__all__ = ["random_returns"]

SEED = 0


def random_returns(env_id: str, episodes: int) -> np.ndarray:
    """Returns of so many episodes of uniformly drawn actions."""
    own = tensor_env(env_id, {}, ())
    return _foreign(env_id, episodes) if own is None else _ours(own, episodes)


def _ours(env: TensorEnv, episodes: int) -> np.ndarray:
    """All episodes side by side; finished ones no longer count."""
    rng = np.random.default_rng(SEED)

    def noise(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.from_numpy(rng.random((episodes, *shape)))

    state = env.reset(noise(env.reset_shape))
    total, running = torch.zeros(episodes, dtype=torch.float64), torch.ones(episodes, dtype=torch.bool)
    for _ in range(env.max_steps):
        action = _uniform(env.action, noise(env.action.shape))
        state, step = env.step(state, action, noise(env.step_shape))
        total += step.reward * running
        running &= ~(step.terminated | step.truncated)
        if not running.any():
            break
    return total.numpy()


def _uniform(space: ActionSpace, noise: torch.Tensor) -> torch.Tensor:
    """A discrete action or a box's from uniform noise."""
    if space.kind == "discrete":
        return (noise * space.counts[0]).long()
    low, high = noise.new_tensor(space.low), noise.new_tensor(space.high)
    return low + noise * (high - low)


def _foreign(env_id: str, episodes: int) -> np.ndarray:
    for package in ("ale_py", "minigrid"):  # they register their environments when imported
        with suppress(ImportError):
            importlib.import_module(package)
    env = gymnasium.make(env_id)
    env.action_space.seed(SEED)
    totals = []
    for episode in range(episodes):
        env.reset(seed=SEED + episode)
        total, ended = 0.0, False
        while not ended:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total, ended = total + float(reward), terminated or truncated
        totals.append(total)
    env.close()
    return np.array(totals)


def main() -> None:
    """Measures and prints one line an environment."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.random_scores", description=__doc__)
    parser.add_argument("envs", nargs="*", help="environments; none: all but Atari")
    parser.add_argument("--episodes", type=int, default=1000)
    options = parser.parse_args()
    print(f"{'environment':>30} {'mean':>10} {'error':>8} {'episodes':>8} {'table':>10}")
    for env_id in options.envs or [name for name in SCORES if not name.startswith("ALE/")]:
        totals = random_returns(env_id, options.episodes)
        error = totals.std(ddof=1) / len(totals) ** 0.5
        row = f"{totals.mean():10.4f} {error:8.4f} {len(totals):8d} {SCORES[env_id].random:10.4f}"
        print(f"{env_id:>30} {row}", flush=True)


if __name__ == "__main__":
    main()
