"""Environments: tensor ones of our own and an adapter for Gymnasium's.

Names are imported when they are asked for: worker processes of environments need nothing of torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents.envs.config import EnvConfig
    from agents.envs.rollout import evaluated, make_environments

__all__ = ["EnvConfig", "evaluated", "make_environments"]

_FOUND_IN = {
    "EnvConfig": "agents.envs.config",
    "evaluated": "agents.envs.rollout",
    "make_environments": "agents.envs.rollout",
}


def __getattr__(name: str) -> Any:
    if name not in _FOUND_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_FOUND_IN[name]), name)
