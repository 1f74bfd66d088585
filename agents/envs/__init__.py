"""Environments: tensor ones of our own and an adapter for Gymnasium's."""

from agents.envs.config import EnvConfig
from agents.envs.rollout import make_environments

__all__ = ["EnvConfig", "make_environments"]
