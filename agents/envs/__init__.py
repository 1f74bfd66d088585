"""Environments: tensor ones of our own and an adapter for Gymnasium's."""

from agents.envs.config import EnvConfig
from agents.envs.rollout import evaluated, make_environments

__all__ = ["EnvConfig", "evaluated", "make_environments"]
