"""What every agent of ours does beside its algorithm: it is evaluated, filmed, exported and closed in the same way.

An algorithm's file holds `start`, `advance` and the functions of one trial; nothing here touches how it learns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from agents.envs import evaluated
from agents.envs.render import episode_media
from agents.envs.rollout import Environments
from agents.envs.scores import RETURN, return_score
from agents.networks import deployed
from harness.learner import Learner, Media, Metrics, State, progress_of
from harness.spec import Score
from nets.lanes import module_of

__all__ = ["Agent"]


class Agent(Learner):
    """A learner in environments; `start` sets `envs` and `build`.

    Attributes:
        envs: the environments of all lanes.
        build: makes one network, the one that `weights` are of.
    """

    unit = "env_steps"
    score = RETURN
    envs: Environments
    build: Callable[[], nn.Module]

    @classmethod
    def score_of(cls, config: Any) -> Score:
        """The return; what a diverged trial counts as depends on the environment."""
        return return_score(config)

    def acting(self, state: State) -> Any:
        """What the policy takes in evaluations, of all lanes; the weights, where it takes nothing else."""
        return self.weights(state)

    def weights(self, state: State) -> Any:
        """The weights [K, ...] of the network that acts."""
        return state["params"]

    def evaluate(self, state: State) -> Metrics:
        """Returns of deterministic episodes, and of sampled ones where they are asked for, [K, episodes]."""
        return evaluated(self.envs, self.lanes.config, self.acting(state), state["envs"], progress_of(state))

    def network(self, state: State, lane: int) -> nn.Module:
        """The lane's network that acts, for raw observations."""
        net = module_of(self.build, self.weights(state), {}, lane)
        return deployed(net, self.lanes.config.env_spec, state["envs"]["norm"], lane)

    def media(self, state: State, lane: int) -> dict[str, Media]:
        """A deterministic episode."""
        return episode_media(self.envs, self.lanes, self.acting(state), state["envs"], lane, progress_of(state))

    @property
    def restarts(self) -> bool:
        """Whether a checkpoint cuts episodes off."""
        return self.lanes.config.exact and not self.lanes.config.env_spec.tensor

    def checkpointed(self, state: State) -> None:
        """Environments whose state cannot be saved start anew (the worker calls this at every checkpoint)."""
        self.envs.checkpointed(state["envs"], progress_of(state))

    def close(self) -> None:
        """Ends the environments."""
        self.envs.close()
