"""A2C, the synchronous form of A3C (Mnih et al. 2016, arXiv:1602.01783), with generalised advantages (Schulman et al.
2016, arXiv:1506.02438).

In the order collect, targets, update, log. What stands below "Functions of one trial" knows no lanes. The defaults are
those of stable-baselines3's A2C.

Legend: T steps, N environments, B = T * N samples, A entries of a mask, K lanes (outermost, seen in `A2C` only).

Deliberate differences from the paper: all environments step together and make one update (OpenAI baselines' A2C);
advantages are generalised, and those of the paper at a lambda of 1; the gradient's norm is clipped; actor and critic
share nothing unless they are told to. From stable-baselines3: the learning rate of an update is that of the rollout's
first step, not of its last; actions are drawn by inverting distribution functions from noise that is passed in.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from agents.actor_critic import ActorCriticConfig
from agents.agent import Agent
from agents.envs import make_environments
from agents.envs.spaces import see
from agents.envs.transition import Rollout
from harness.learner import Lanes, Metrics, State
from harness.spec import PerLaneFloat
from nets.lanes import Work, call, grad_and_value, keep
from nets.optim import OPTIMISERS, clip_by_global_norm
from nets.registry import build
from nets.returns import gae, mean_return
from nets.schedules import SCHEDULES
from nets.transfer import encoder_parameters, held

__all__ = ["A2C", "A2CConfig", "a2c_loss"]

HYPER = ("lr", "gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm")
LOGGED = ("policy_loss", "value_loss", "entropy", "grad_norm")


class A2CConfig(ActorCriticConfig):
    """Configuration of `a2c`; the defaults solve CartPole-v1 in 500,000 steps."""

    n_envs: int = Field(8, ge=1, description="environments of one trial")
    n_steps: int = Field(5, ge=1, description="steps of every environment between two updates")
    updates: int = Field(20, ge=1, description="updates of one chunk: boundaries are so many apart, numbers the same")
    steps: int = Field(500_000, ge=1, description="environment steps to train for, rounded up to whole chunks")
    optimiser: Literal["rmsprop", "rmsprop-tf", "adam"] = Field(
        "rmsprop", description="rmsprop is torch's, rmsprop-tf TensorFlow's: squares start at 1, eps under the root"
    )
    eps: PerLaneFloat = Field(1e-5, gt=0, description="what the optimiser adds to the root of the squared gradients")
    lr: PerLaneFloat = Field(7e-4, ge=0, description="learning rate at the start")
    lr_schedule: Literal["linear", "constant"] = Field(
        "constant", description="linear: falls to 0 at the last step"
    )
    gamma: PerLaneFloat = Field(0.99, ge=0, le=1, description="discount of future rewards")
    gae_lambda: PerLaneFloat = Field(
        1.0, ge=0, le=1, description="mixes advantages of 1 step (0) to all steps (1)"
    )
    normalise_advantage: bool = Field(
        False, description="whether a rollout's advantages are shifted and scaled to mean 0 and deviation 1"
    )
    ent_coef: PerLaneFloat = Field(0.0, ge=0, description="weight of the entropy bonus")
    vf_coef: PerLaneFloat = Field(0.5, ge=0, description="weight of the value loss")
    max_grad_norm: PerLaneFloat = Field(0.5, gt=0, description="largest global norm of a gradient")

    @property
    def batch(self) -> int:
        """Samples of one update, B."""
        return self.n_envs * self.n_steps

    @property
    def chunk(self) -> int:
        """Environment steps of one `advance`."""
        return self.batch * self.updates

    @property
    def seconds_per_progress(self) -> float:
        """Eager cost of one step of one lane among 8."""
        return self.eager_seconds(8) / (8 * self.budget)

    def eager_seconds(self, lanes: int) -> float:
        """Expected cost of a cohort run eagerly on one core.

        Measured for small networks: 0.7 ms a step and 5 ms an update, however many lanes, plus 5 microseconds for
        every sample.
        """
        return self.budget / self.batch * (7e-4 * self.n_steps + 5e-3 + 5e-6 * self.batch * lanes)


class A2C(Agent):
    """Advantage actor-critic for every action space."""

    Config = A2CConfig
    version = 2  # Gymnasium's environments are seeded with 31 bits

    def start(self, lanes: Lanes) -> State:
        """Networks, optimiser, environments."""
        config, each, k = lanes.config, lanes.execution.each, len(lanes)
        self.lanes, self.chunk, self.spec = lanes, config.chunk, config.env_spec
        self.build = lambda: build(config.network, self.spec.obs_shape, self.spec.action.head["out_features"])
        self.net, params, _ = lanes.stack(self.build, "a2c/init")
        self.held = encoder_parameters(params) if config.freeze_encoder else frozenset()
        self.hyper = {name: lanes.per_lane(name) for name in (*HYPER, "eps")}
        self.envs = make_environments(self._act, lanes, config.n_steps, gamma=self.hyper["gamma"])
        self.optimiser = OPTIMISERS[config.optimiser]
        self._update = each(self._update_of_one, in_dims=(0, 0, 0, 0, 0, None))
        return {
            "progress": lanes.execution.tensor(np.zeros(k, dtype=np.int64)),
            "alive": lanes.execution.tensor(np.ones(k, dtype=bool)),
            "params": params,
            "optimiser": self.optimiser.init(params, lanes=k),
            "envs": self.envs.start(),
            "return": lanes.execution.tensor(np.zeros(k)),
        }

    def advance(self, state: State) -> Metrics:
        """`updates` times a rollout of N * T steps in every lane, and one update from it."""
        config, logs = self.lanes.config, []
        begin = int(state["progress"][0])
        for progress in range(begin, begin + self.chunk, config.batch):
            # collect
            state["envs"], rollout = self.envs.collect(state["params"], state["envs"], progress)
            # targets and update
            used = self.lanes.execution.tensor(np.float64(progress / config.budget))
            state["params"], state["optimiser"], log = self._update(
                state["params"], state["optimiser"], state["alive"], self.hyper, rollout, used
            )
            # log
            state["return"] = mean_return(rollout, state["return"])
            logs.append(log)
        state["progress"] = state["progress"] + self.chunk
        means = torch.stack(logs).mean(0)
        return {"return": state["return"], **{name: means[:, i] for i, name in enumerate(LOGGED)}}

    @classmethod
    def work(cls, config: A2CConfig, lanes: int) -> Work:
        """What a cohort costs, for choosing how it is executed."""
        return Work(config.eager_seconds(lanes), compile_seconds=40.0, speedup=6.0)

    # Functions of one trial

    def _act(self, params: Any, carry: Any, obs: Tensor, mask: Tensor, noise: Tensor | None) -> tuple[Tensor, Any]:
        """Actions [N, ...]: from noise, or the most probable ones."""
        distribution = self.spec.action.distribution(self._call(params, obs, "actor"), mask)
        return distribution.mode() if noise is None else distribution.sample(noise), carry

    def _call(self, params: Any, obs: Tensor, side: str = "both") -> Any:
        """What actor and critic, or one of them, say of observations [B, ...]."""
        return call(self.net, params, {}, see(obs, self.lanes.execution.dtype), side)[0]

    def _update_of_one(
        self, params: Any, opt: Any, alive: Tensor, hyper: dict[str, Tensor], rollout: Rollout, used: Tensor
    ) -> tuple[Any, Any, Tensor]:
        """Advantages of a rollout [T, N, ...], gradient, clipping, step; a lane that has ended stays as it is."""
        config, lead = self.lanes.config, rollout.reward.shape
        flat = Rollout(*(t.flatten(0, 1) for t in rollout))
        next_value = self._call(params, flat.next_obs, "critic").view(lead)

        def loss(params: Any) -> tuple[Tensor, dict[str, Tensor]]:
            raw, value = self._call(params, flat.obs)
            old = value.detach()
            advantage = gae(rollout, old.view(lead), next_value, hyper["gamma"], hyper["gae_lambda"]).flatten()
            target = advantage + old
            if config.normalise_advantage:
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            distribution = self.spec.action.distribution(raw, flat.mask)
            return a2c_loss(distribution, flat.action, advantage, value, target, hyper["ent_coef"], hyper["vf_coef"])

        grads, (_, log) = grad_and_value(loss, has_aux=True)(params)
        grads, log["grad_norm"] = clip_by_global_norm(held(grads, self.held), hyper["max_grad_norm"])
        lr = SCHEDULES[config.lr_schedule](hyper["lr"], used)
        after = self.optimiser.step(params, grads, opt, lr, eps=hyper["eps"])
        params, opt = keep(alive, after, (params, opt))
        return params, opt, torch.stack([log[name] for name in LOGGED])


def a2c_loss(
    distribution: Any, action: Tensor, advantage: Tensor, value: Tensor, target: Tensor, ent_coef: Any, vf_coef: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """The gradients of the paper's algorithm S3 with the entropy bonus of its section 4, as one loss.

    Args:
        distribution: of actions [B, ...].
        action: what was done [B, ...].
        advantage: [B], without gradient.
        value: [B].
        target: [B], without gradient.
        ent_coef: beta of section 4.
        vf_coef: weight of the mean squared error.

    Returns:
        (loss, {"policy_loss", "value_loss", "entropy"}), all 0-dim.
    """
    policy_loss = -(distribution.log_prob(action) * advantage).mean()
    value_loss = (target - value).square().mean()  # stable-baselines3 takes no half
    entropy = distribution.entropy().mean()
    log = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
    return policy_loss + vf_coef * value_loss - ent_coef * entropy, log
