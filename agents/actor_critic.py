"""The networks of actor-critic learners as configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from agents.envs import EnvConfig
from harness.blocks import check_builds, encoder_config
from harness.spec import Recipe

__all__ = ["ActorCriticConfig"]

if TYPE_CHECKING:
    Net = Any
else:
    SMALL = {"hidden_features": (64, 64), "activation": "tanh", "init": "orthogonal"}
    # with torch's own initialisation its critic hardly learns Pong in 80,000 steps (benchmarks/README.md)
    Net = encoder_config("mlp", {"mlp": SMALL, "nature-cnn": {"init": "orthogonal"}})


class ActorCriticConfig(EnvConfig):
    """A policy and a value function for any action space."""

    net: Net = Field(
        default_factory=dict, validate_default=True, description="the encoder of actor and critic: its kind and fields"
    )
    shared: bool = Field(False, description="whether actor and critic share the encoder")
    log_std_init: float = Field(
        0.0, description="logarithm of the standard deviation of continuous actions at the start"
    )

    @model_validator(mode="after")
    def _sees(self) -> ActorCriticConfig:
        try:
            check_builds(self.net, self.env_spec.obs_shape, 1)
        except ValueError as error:
            raise ValueError(f"net: {error}") from None
        return self

    @property
    def encoder_recipe(self) -> Recipe:
        """Actor and critic."""
        return Recipe(self.network, self.env_spec.obs_shape, self.env_spec.action.head["out_features"])

    @property
    def network(self) -> dict[str, Any]:
        """The configuration of actor and critic, as `nets.registry.build` takes it.

        Their heads start as PyTorch's layers do where the encoder does, and orthogonal elsewhere.
        """
        init = "torch" if getattr(self.net, "init", "") == "torch" else "orthogonal"
        policy = {"kind": self.env_spec.action.head["kind"], "init": init}
        if policy["kind"] == "gaussian":
            policy["log_std"] = self.log_std_init
        sides = {"policy": policy, "value_init": init, "shared": self.shared}
        return {"kind": "actor-critic", "encoder": self.net.model_dump(), **sides}
