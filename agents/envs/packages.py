"""Which package brings an environment, by its id, and how a missing one is said. Gymnasium only."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

import gymnasium

__all__ = ["Package", "installed", "missing", "package_of", "register"]

_log = logging.getLogger(__name__)


class Package(NamedTuple):
    """A package whose import registers environments.

    Attributes:
        ids: what its ids look like, a regular expression.
        module: to import.
        install: what pip takes.
    """

    ids: str
    module: str
    install: str


# ALE's ids of before ALE/...-v5 can be told from others by two words; the rest of them is looked up (`register`)
PACKAGES = (
    Package(r"ALE/.*|.*(NoFrameskip|Deterministic)-v[04]", "ale_py", "'seedbed[atari]'"),
    Package(r"(MiniGrid|BabyAI)-.*", "minigrid", "'seedbed[minigrid]'"),
    Package(r".*Bullet(Duck)?Env-v\d+", "pybullet_envs_gymnasium", "pybullet_envs_gymnasium"),
    Package(r"Panda(Reach|Slide|Push|PickAndPlace|Stack|Flip).*-v\d+", "panda_gym", "panda-gym"),
    Package(
        r"(Fetch(Reach|Slide|Push|PickAndPlace)|Hand(Reach|Manipulate)|Adroit|AntMaze|PointMaze|FrankaKitchen).*-v\d+",
        "gymnasium_robotics",
        "gymnasium-robotics",
    ),
    Package(
        r"(parking|highway|merge|roundabout|intersection|racetrack|exit|lane-keeping|two-way|u-turn).*-v\d+",
        "highway_env",
        "highway-env",
    ),
    Package(r"donkey-.*", "gym_donkeycar", "gym-donkeycar"),
    Package(r"RocketLander-v\d+", "rocket_lander_gym", "rocket-lander-gym"),
    Package(r"dm_control/.*", "shimmy", "'shimmy[dm-control]'"),
)
# module that an environment or a wrapper imports -> (package, extra of ours)
_EXTRAS = {
    "ale_py": ("ale-py", "atari"),
    "cv2": ("opencv-python-headless", "atari"),
    "minigrid": ("minigrid", "minigrid"),
    "mujoco": ("mujoco", "mujoco"),
    "Box2D": ("box2d", "box2d"),
    "box2d": ("box2d", "box2d"),
}


def package_of(env_id: str) -> Package | None:
    """The package that registers an id when it is imported; None for Gymnasium's own and unknown ones."""
    if ":" in env_id:
        return None
    return next((package for package in PACKAGES if re.fullmatch(package.ids, env_id)), None)


def installed(module: str) -> bool:
    """Whether a module can be found, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def register(env_id: str) -> None:
    """Imports the package that brings an id.

    An id that nothing tells ("Pong-v4") may be one of ALE's older ones.

    Raises:
        ImportError: the package is not installed.
    """
    package = package_of(env_id)
    if _simulated_by_mujoco(env_id):
        _quiet_mujoco()
    if package is not None:
        _import(package.module)
    elif ":" not in env_id and env_id not in gymnasium.registry and installed("ale_py"):
        with suppress(ImportError):
            _import("ale_py")


def _import(name: str) -> None:
    module: Any = importlib.import_module(name)
    if name == "ale_py":
        module.ALEInterface.setLoggerMode(module.LoggerMode.Error)  # no banner


def _simulated_by_mujoco(env_id: str) -> bool:
    found, package = gymnasium.registry.get(env_id), package_of(env_id)
    if package is not None:
        return package.module in ("gymnasium_robotics", "shimmy")
    return found is not None and str(found.entry_point).startswith("gymnasium.envs.mujoco")


def _quiet_mujoco() -> None:
    """Sends MuJoCo's warnings to the log; by itself it prints them and leaves a file MUJOCO_LOG.TXT behind."""
    if not installed("mujoco"):
        return
    mujoco: Any = importlib.import_module("mujoco")
    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(_mujoco_warns)


@lru_cache(maxsize=64)  # each sentence once; those about an unstable simulation end with its time
def _mujoco_warns(text: str) -> None:
    old_model = "deprecated" in text  # the environment's own file, which whoever trains in it cannot change
    _log.log(logging.DEBUG if old_model else logging.WARNING, "MuJoCo: %s", text)


def missing(env_id: str, error: Exception) -> ValueError:
    """The sentence for a package that is not installed."""
    package = package_of(env_id)
    if package is not None and not installed(package.module):
        name = package.install if not package.install.startswith("'") else package.module.replace("_", "-")
        return ValueError(f"environment '{env_id}' needs the package {name}: pip install {package.install}")
    found = gymnasium.registry.get(env_id)
    known = f"{error} {found.entry_point if found else ''}"
    for module, (name, extra) in _EXTRAS.items():
        if module in known and not installed(module):
            return ValueError(f"environment '{env_id}' needs the package {name}: pip install 'seedbed[{extra}]'")
    return ValueError(f"environment '{env_id}': {error}")
