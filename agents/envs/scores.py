"""Scores that can be compared between environments: 0 is the random policy's mean return, 1 a published reference.

`random` was measured by `python -m benchmarks.random_scores` (benchmarks/README.md has the standard errors), except for
Atari, whose random and human scores are those that everybody uses. `reference` is the best that can be reached where
that is known, else the best agent of any algorithm that the source publishes (one trained run each); an environment of
which only an earlier version was scored has that version's.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from agents.envs.config import EnvConfig
from harness.spec import Score

__all__ = ["RETURN", "SCORES", "Range", "normalised", "return_score", "scored"]

RETURN = Score("return", "max", worst=-3300.0)  # below the lowest return of Pendulum-v1


class Range(NamedTuple):
    """What 0 and 1 stand for.

    Attributes:
        random: mean return of uniformly drawn actions.
        reference: mean return that counts as 1.
        source: of the reference.
    """

    random: float
    reference: float
    source: str


ZOO = "rl-baselines3-zoo benchmark.md @22e3ff2"
MINATAR = "gymnax README @086ad95 (PPO)"
ATARI = "Mnih et al. 2015, human tester; as in dqn_zoo atari_data.py @359945d"

SCORES: dict[str, Range] = {
    # classic control
    "CartPole-v1": Range(22.19, 500.0, "its time limit"),
    "CartPoleNoVel-v1": Range(22.31, 500.0, "its time limit"),
    "Acrobot-v1": Range(-499.09, -69.135, f"{ZOO} (QR-DQN)"),
    "MountainCar-v0": Range(-200.0, -100.849, f"{ZOO} (DQN)"),
    "MountainCarContinuous-v0": Range(-33.33, 96.672, f"{ZOO} (ARS)"),
    "Pendulum-v1": Range(-1230.65, -151.340, f"{ZOO} (TQC)"),
    # small grids
    "Catch-v0": Range(-0.5974, 1.0, "every ball caught"),
    "DeepSea-v0": Range(-0.0041, 0.99, "the treasure, less 0.01 for the way"),
    "Digits-v0": Range(1.59, 16.0, "every image named"),
    "Recall-v0": Range(0.2406, 1.0, "every cue remembered"),
    "MinAtar/Breakout-v1": Range(0.3844, 28.0, MINATAR),
    "MinAtar/SpaceInvaders-v1": Range(4.07, 131.0, MINATAR),
    # Box2D
    "LunarLander-v3": Range(-181.71, 242.119, f"{ZOO} (PPO, LunarLander-v2)"),
    "LunarLanderContinuous-v3": Range(-209.82, 277.956, f"{ZOO} (TQC, LunarLanderContinuous-v2)"),
    "BipedalWalker-v3": Range(-102.04, 329.808, f"{ZOO} (TQC)"),
    # MuJoCo
    "Hopper-v5": Range(17.63, 3754.199, f"{ZOO} (TQC, Hopper-v3)"),
    "Walker2d-v5": Range(1.78, 4933.148, f"{ZOO} (TRPO, Walker2d-v3)"),
    "HalfCheetah-v5": Range(-281.1, 12089.939, f"{ZOO} (TQC, HalfCheetah-v3)"),
    "Ant-v5": Range(-58.16, 5813.274, f"{ZOO} (TD3, Ant-v3)"),
    "Swimmer-v5": Range(0.5838, 365.663, f"{ZOO} (TRPO, Swimmer-v3)"),
    "Humanoid-v5": Range(115.49, 7239.320, f"{ZOO} (TQC, Humanoid-v3)"),
    # MiniGrid
    "MiniGrid-Empty-Random-5x5-v0": Range(0.3282, 0.968, f"{ZOO} (PPO)"),
    "MiniGrid-DoorKey-5x5-v0": Range(0.0223, 0.964, f"{ZOO} (PPO)"),
    "MiniGrid-Unlock-v0": Range(0.0234, 0.963, f"{ZOO} (PPO)"),
    "MiniGrid-FourRooms-v0": Range(0.0231, 0.573, f"{ZOO} (PPO)"),
    # Atari
    "ALE/Asteroids-v5": Range(719.1, 47388.7, ATARI),
    "ALE/BeamRider-v5": Range(363.9, 16926.5, ATARI),
    "ALE/Breakout-v5": Range(1.7, 30.5, ATARI),
    "ALE/Enduro-v5": Range(0.0, 860.5, ATARI),
    "ALE/MsPacman-v5": Range(307.3, 6951.6, ATARI),
    "ALE/Pong-v5": Range(-20.7, 14.6, ATARI),
    "ALE/Qbert-v5": Range(163.9, 13455.0, ATARI),
    "ALE/RoadRunner-v5": Range(11.5, 7845.0, ATARI),
    "ALE/Seaquest-v5": Range(68.4, 42054.7, ATARI),
    "ALE/SpaceInvaders-v5": Range(148.0, 1668.7, ATARI),
}


def normalised(env_id: str, returns: Tensor) -> Tensor | None:
    """(return - random) / (reference - random); None for an environment that is not in the table.

    Args:
        env_id: as experiment files name it.
        returns: [...].
    """
    found = SCORES.get(env_id)
    return None if found is None else (returns - found.random) / (found.reference - found.random)


def return_score(config: EnvConfig) -> Score:
    """An agent's headline metric; a diverged one counts as far below the random policy as the reference is above it."""
    found = SCORES.get(config.env)
    return RETURN if found is None else Score("return", "max", worst=2 * found.random - found.reference)


def scored(config: EnvConfig, returns: Tensor) -> dict[str, Tensor]:
    """What `evaluate` gives of deterministic episodes: "return" and, where the table has the environment, "normalised".

    Args:
        config: the cohort's; an environment with options is not the one that was scored.
        returns: [K, episodes].
    """
    share = None if config.env_options else normalised(config.env, returns)
    return {"return": returns} if share is None else {"return": returns, "normalised": share}
