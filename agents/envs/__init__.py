"""Environments: tensor ones of our own and an adapter for Gymnasium's."""

from agents.envs.rollout import make_environments, space_of

__all__ = ["make_environments", "space_of"]
