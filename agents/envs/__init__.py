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

_MODULES = {"EnvConfig": "config", "evaluated": "rollout", "make_environments": "rollout"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
