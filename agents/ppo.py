"""PPO with clipped objective (Schulman et al. 2017, arXiv:1707.06347) and generalised advantages (Schulman et al. 2016,
arXiv:1506.02438).

In the order collect, targets, update, log. What stands below "Functions of one trial" knows no lanes.

Legend: T steps, N environments, R = T * N rows of a rollout, B rows of a minibatch, K lanes (outermost, seen in `PPO`
only).

Deliberate differences from CleanRL's ppo.py: time limits bootstrap the value of the observation they cut off (CleanRL
treats them as ends); the value loss is the mean squared error, not half of it, as in stable-baselines3; it is clipped
only on request (Andrychowicz et al. 2021 find that harmful); actions are drawn by inverting distribution functions
from noise that is passed in. From stable-baselines3: the learning rate of the first update is the one at progress 0.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from agents.actor_critic import ActorCriticConfig
from agents.agent import Agent
from agents.envs import make_environments
from agents.envs.spaces import see
from agents.envs.transition import Rollout
from harness.learner import Lanes, Metrics, State
from harness.spec import PerLaneFloat
from nets.lanes import Work, call, grad_and_value, keep
from nets.looking import activation_statistics, layer_statistics
from nets.optim import adam, adam_init, clip_by_global_norm, linear
from nets.registry import build
from nets.returns import gae, mean_return
from nets.transfer import encoder_parameters, held

__all__ = ["PPO", "PPOConfig", "ppo_loss"]

HYPER = ("lr", "gamma", "gae_lambda", "clip", "clip_value", "target_kl", "ent_coef", "vf_coef", "max_grad_norm")
LOGGED = ("policy_loss", "value_loss", "entropy", "kl", "clip_fraction", "grad_norm", "steps_taken")
RATES = {"mlp": 3e-3, "nature-cnn": 2.5e-4}  # chosen on 50 seeds of CartPole-v1; the paper's for Atari
OTHER_RATE = 1e-3


class PPOConfig(ActorCriticConfig):
    """Configuration of `ppo`; the defaults solve CartPole-v1 in 100,000 steps."""

    n_envs: int = Field(4, ge=1, description="environments of one trial")
    n_steps: int = Field(128, ge=1, description="steps of every environment between two updates")
    epochs: int = Field(4, ge=1, description="passes over a rollout")
    batch: int = Field(128, ge=2, description="rows of a minibatch; the last one of a pass may have fewer")
    lr: PerLaneFloat = Field(
        RATES["mlp"],
        ge=0,
        description="Adam's learning rate at the start; without it 3e-3 for an mlp, 2.5e-4 for a nature-cnn, 1e-3 for "
        "other networks",
    )
    lr_schedule: Literal["linear", "constant"] = Field("linear", description="linear: falls to 0 at the last step")
    gamma: PerLaneFloat = Field(0.98, ge=0, le=1, description="discount of future rewards")
    gae_lambda: PerLaneFloat = Field(0.95, ge=0, le=1, description="mixes advantages of 1 step (0) to all steps (1)")
    normalise_advantage: bool = Field(
        True, description="whether the advantages of a minibatch get mean 0 and deviation 1"
    )
    clip: PerLaneFloat = Field(0.2, gt=0, description="largest useful change of an action's probability ratio")
    clip_schedule: Literal["linear", "constant"] = Field("constant", description="linear: falls to 0 at the last step")
    clip_value: PerLaneFloat = Field(0.0, ge=0, description="largest useful change of a value; 0 does not clip")
    target_kl: PerLaneFloat = Field(
        0.0, ge=0, description="a trial whose policy has moved 1.5 times so far learns no more from a rollout; 0: never"
    )
    ent_coef: PerLaneFloat = Field(0.0, ge=0, description="weight of the entropy bonus")
    vf_coef: PerLaneFloat = Field(0.5, ge=0, description="weight of the value's mean squared error")
    max_grad_norm: PerLaneFloat = Field(0.5, gt=0, description="largest global norm of a gradient")
    layers_every: int = Field(
        0, ge=0, description="minibatches between two looks at every layer's gradients and activations; 0 never looks"
    )

    @model_validator(mode="after")
    def _as_fast_as_the_network_bears(self) -> PPOConfig:
        if "lr" not in self.model_fields_set:
            object.__setattr__(self, "lr", RATES.get(self.net.kind, OTHER_RATE))
        return self

    @model_validator(mode="after")
    def _can_learn(self) -> PPOConfig:
        if self.normalise_advantage and self.chunk % self.batch == 1:
            rows = f"n_envs * n_steps = {self.chunk} rows leave one"
            raise ValueError(f"batch: {rows} alone in the last minibatch, and one advantage has no spread")
        return self

    @property
    def chunk(self) -> int:
        """Rows of one rollout of one trial, R."""
        return self.n_envs * self.n_steps

    @property
    def minibatches(self) -> list[int]:
        """Rows of every minibatch of one pass."""
        return [min(self.batch, self.chunk - first) for first in range(0, self.chunk, self.batch)]

    @property
    def seconds_per_progress(self) -> float:
        """Eager cost of one step of one lane among 8."""
        return self.eager_seconds(8) / (8 * self.budget)

    def eager_seconds(self, lanes: int) -> float:
        """Expected cost of a cohort run eagerly on one core.

        Measured for small networks: 0.7 ms a step and 5 ms a minibatch, however many lanes, plus 2 microseconds for
        every row of every pass.
        """
        fixed = 7e-4 * self.n_steps + 5e-3 * self.epochs * len(self.minibatches)
        return self.budget / self.chunk * (fixed + 2e-6 * self.epochs * self.chunk * lanes)


class Batch(NamedTuple):
    """Rows of a rollout with their targets: every tensor [R, ...], or [B, ...] of a minibatch (one trial)."""

    obs: Tensor
    mask: Tensor
    action: Tensor
    log_prob: Tensor
    value: Tensor
    advantage: Tensor
    target: Tensor


class PPO(Agent):
    """Proximal policy optimisation."""

    Config = PPOConfig
    version = 4  # Gymnasium's environments are seeded with 31 bits

    def start(self, lanes: Lanes) -> State:
        """Networks, Adam, environments."""
        config, each = lanes.config, lanes.execution.each
        self.lanes, self.chunk, self.spec = lanes, config.chunk, config.env_spec
        outputs = self.spec.action.head["out_features"]
        self.build = lambda: build(config.network, self.spec.obs_shape, outputs)
        self.net, params, _ = lanes.stack(self.build, "ppo/init")
        self.held = encoder_parameters(params) if config.freeze_encoder else frozenset()
        self.hyper = {name: lanes.per_lane(name) for name in HYPER}
        self.envs = make_environments(self._act, lanes, config.n_steps, gamma=self.hyper["gamma"])
        self._targets = each(self._targets_of_one)
        self._update = lanes.execution.scan(self._update_of_one, in_dims=(0, 0, 0, 0, None))
        self._look = each(self._look_of_one)
        k = len(lanes)
        return {
            "progress": lanes.execution.tensor(np.zeros(k, dtype=np.int64)),
            "alive": lanes.execution.tensor(np.ones(k, dtype=bool)),
            "params": params,
            "adam": adam_init(params, lanes=k),
            "envs": self.envs.start(),
            "return": lanes.execution.tensor(np.zeros(k)),
        }

    def advance(self, state: State) -> Metrics:
        """One rollout of N * T steps in every lane, and the update from it."""
        progress, config = int(state["progress"][0]), self.lanes.config
        # collect
        state["envs"], rollout = self.envs.collect(state["params"], state["envs"], progress)
        # targets
        batch = self._targets(state["params"], self.hyper, rollout)
        # update
        left = self.lanes.execution.tensor(np.float64(1 - progress / config.budget))
        logs, seen, learning = [], {}, state["alive"]
        for looked_at, minibatches in self._minibatches(progress):
            before = state["params"]
            (state["params"], state["adam"], learning), found = self._update(
                (before, state["adam"], learning), minibatches, self.hyper, batch, left
            )
            logs += found
            if looked_at:
                seen = self._look(before, state["params"], self.hyper, batch, minibatches[0])
        # log
        state["progress"] = state["progress"] + self.chunk
        state["return"] = mean_return(rollout, state["return"])
        means = torch.stack(logs).mean(0)
        return {"return": state["return"], **{name: means[:, i] for i, name in enumerate(LOGGED)}, **seen}

    @classmethod
    def work(cls, config: PPOConfig, lanes: int) -> Work:
        """What a cohort costs, for choosing how it is executed."""
        images = len(config.env_spec.obs_shape) == 3 and config.net.kind != "mlp"
        return Work(config.eager_seconds(lanes), compile_seconds=50.0, speedup=5.0, loop_on_cpu=images)

    def _minibatches(self, progress: int) -> list[tuple[bool, list[Tensor]]]:
        """Indices [K, B] of every minibatch of every epoch: one permutation a lane and epoch.

        They come as a list; one whose layers are to be looked at stands alone (True).
        """
        config, every = self.lanes.config, self.lanes.config.layers_every
        generators = self.lanes.generators("ppo/minibatches", progress)
        orders = [[g.permutation(self.chunk) for _ in range(config.epochs)] for g in generators]
        index = self.lanes.execution.tensor(np.array(orders, dtype=np.int64)).flatten(1)  # [K, epochs * R]
        parts = [part.contiguous() for part in index.split(config.minibatches * config.epochs, 1)]
        numbered = enumerate(parts, progress // self.chunk * len(parts))
        looked_at = [(every > 0 and i % every == 0, part) for i, part in numbered]
        found: list[tuple[bool, list[Tensor]]] = []
        for look, part in looked_at:
            if look or not found or found[-1][0]:
                found.append((look, []))
            found[-1][1].append(part)
        return found

    # Functions of one trial

    def _call(self, params: Any, obs: Tensor, side: str = "both") -> Any:
        """What actor and critic, or one of them, say of observations."""
        return call(self.net, params, {}, see(obs, self.lanes.execution.dtype), side)[0]

    def _act(self, params: Any, carry: Any, obs: Tensor, mask: Tensor, noise: Tensor | None) -> tuple[Tensor, Any]:
        """Actions [N, ...]: drawn from noise, or the most probable ones."""
        policy = self.spec.action.distribution(self._call(params, obs, "actor"), mask)
        return policy.mode() if noise is None else policy.sample(noise), carry

    def _targets_of_one(self, params: Any, hyper: dict[str, Tensor], rollout: Rollout) -> Batch:
        """Values, advantages and log-probabilities of a rollout [T, N, ...], flattened to [R, ...]."""
        rows = Rollout(*(t.flatten(0, 1) for t in rollout))
        raw, value = self._call(params, rows.obs)
        log_prob = self.spec.action.distribution(raw, rows.mask).log_prob(rows.action)
        next_value = self._call(params, rows.next_obs, "critic").reshape(rollout.reward.shape)
        advantage = gae(rollout, value.reshape_as(next_value), next_value, hyper["gamma"], hyper["gae_lambda"])
        advantage = advantage.flatten()
        return Batch(rows.obs, rows.mask, rows.action, log_prob, value, advantage, advantage + value)

    def _update_of_one(
        self, learned: tuple[Any, Any, Tensor], index: Tensor, hyper: Any, batch: Batch, left: Tensor
    ) -> tuple[tuple[Any, Any, Tensor], Tensor]:
        """One minibatch [B]: loss, gradient, clipping, Adam; a lane that has ended, or learns no more, stays."""
        config, (params, opt, learning) = self.lanes.config, learned
        lr = linear(0.0, left, hyper["lr"]) if config.lr_schedule == "linear" else hyper["lr"]
        clip = linear(0.0, left, hyper["clip"]) if config.clip_schedule == "linear" else hyper["clip"]
        minibatch = Batch(*(t[index] for t in batch))

        def loss(params: Any) -> tuple[Tensor, dict[str, Tensor]]:
            return self._loss(self._call(params, minibatch.obs), minibatch, clip, hyper)

        grads, (_, log) = grad_and_value(loss, has_aux=True)(params)
        grads, log["grad_norm"] = clip_by_global_norm(held(grads, self.held), hyper["max_grad_norm"])
        learning = learning & ~((hyper["target_kl"] > 0) & (log["kl"] > 1.5 * hyper["target_kl"]))
        after = adam(params, grads, opt, lr, eps=1e-5)
        params, opt = keep(learning, after, (params, opt))
        log["steps_taken"] = learning.to(lr.dtype)
        return (params, opt, learning), torch.stack([log[name] for name in LOGGED])

    def _loss(self, output: Any, minibatch: Batch, clip: Tensor, hyper: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """`ppo_loss` of what actor and critic say of a minibatch."""
        raw, value = output
        policy = self.spec.action.distribution(raw, minibatch.mask)
        if self.lanes.config.normalise_advantage:
            a = minibatch.advantage
            minibatch = minibatch._replace(advantage=(a - a.mean()) / (a.std() + 1e-8))
        log_prob, entropy = policy.log_prob(minibatch.action), policy.entropy().mean()
        coefficients = (hyper["clip_value"], hyper["ent_coef"], hyper["vf_coef"])
        return ppo_loss(log_prob, entropy, value, minibatch, clip, *coefficients)

    def _look_of_one(self, params: Any, after: Any, hyper: Any, batch: Batch, index: Tensor) -> dict[str, Tensor]:
        """Statistics of every layer for one minibatch that was trained on (at the clip range of the start)."""
        minibatch = Batch(*(t[index] for t in batch))

        def loss(params: Any) -> Any:
            obs = see(minibatch.obs, self.lanes.execution.dtype)
            (output, _), seen = activation_statistics(self.net, params, {}, obs)
            return self._loss(output, minibatch, hyper["clip"], hyper)[0], seen

        grads, (_, seen) = grad_and_value(loss, has_aux=True)(params)
        return layer_statistics(params, grads, after, seen)


def ppo_loss(
    log_prob: Tensor,
    entropy: Tensor,
    value: Tensor,
    batch: Batch,
    clip: Tensor,
    clip_value: Any,
    ent_coef: Any,
    vf_coef: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The clipped objective, equation 9 of the paper, as a loss.

    Args:
        log_prob: of the minibatch's actions [B].
        entropy: of the policy, 0-dim.
        value: [B].
        batch: the minibatch [B].
        clip: epsilon of equation 7, 0-dim.
        clip_value: largest useful change of a value (Schulman's code, not in the paper), 0-dim; 0 does not clip.
        ent_coef: c2 of equation 9.
        vf_coef: c1 of equation 9.

    Returns:
        (loss, {"policy_loss", "value_loss", "entropy", "kl", "clip_fraction"}), all 0-dim.
    """
    log_ratio = log_prob - batch.log_prob
    ratio = log_ratio.exp()
    clipped = torch.minimum(torch.maximum(ratio, 1 - clip), 1 + clip)
    policy_loss = -torch.minimum(ratio * batch.advantage, clipped * batch.advantage).mean()  # equation 7
    near = batch.value + torch.minimum(torch.maximum(value - batch.value, -clip_value), clip_value)
    error = (value - batch.target).square()
    worse = torch.maximum(error, (near - batch.target).square())
    value_loss = torch.where(clip_value > 0, worse, error).mean()
    log = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "kl": (ratio - 1 - log_ratio).mean(),  # Schulman 2020, joschu.net/blog/kl-approx.html, k3
        "clip_fraction": ((ratio - 1).abs() > clip).to(ratio.dtype).mean(),
    }
    return policy_loss + vf_coef * value_loss - ent_coef * entropy, log
