"""PPO with clipped objective (Schulman et al. 2017, arXiv:1707.06347) and generalised advantages (Schulman et
al. 2016,
arXiv:1506.02438).

In the order collect, targets, update, log. Everything below `PPO.advance` is a function of ONE trial.

Legend: T steps, N environments, B = T * N samples, M samples of a minibatch, K lanes (outermost, seen in
`PPO` only).

Deliberate differences from CleanRL's ppo.py: time limits bootstrap the value of the observation they cut off
(CleanRL treats them as ends); the value loss is not clipped (Andrychowicz et al. 2021 find clipping harmful);
actions are drawn by inverting the distribution function from noise that is passed in.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from agents.envs import EnvConfig, make_environments
from agents.envs.render import episode_media
from agents.envs.scores import scored
from agents.envs.transition import Rollout
from agents.returns import gae, mean_return
from harness.learner import Lanes, Learner, Media, Metrics, State, progress_of
from harness.spec import PerLaneFloat, Score
from nets.activations import ACTIVATIONS
from nets.lanes import Work, call, grad_and_value, keep, module_of
from nets.looking import activation_statistics, layer_statistics
from nets.optim import adam, adam_init, clip_by_global_norm, linear
from nets.registry import build

__all__ = ["PPO", "PPOConfig", "ppo_loss"]

HYPER = ("gamma", "gae_lambda", "clip", "ent_coef", "vf_coef", "max_grad_norm")
LOGGED = ("policy_loss", "value_loss", "entropy", "kl", "clip_fraction", "grad_norm")


class PPOConfig(EnvConfig):
    """Configuration of `ppo`; the defaults solve CartPole-v1 in 100,000 steps."""

    actions = ("discrete",)

    n_envs: int = Field(4, ge=1, description="environments of one trial")
    n_steps: int = Field(128, ge=1, description="steps of every environment between two updates")
    epochs: int = Field(4, ge=1, description="passes over a rollout")
    minibatches: int = Field(4, ge=1, description="minibatches of one pass")
    lr: PerLaneFloat = Field(1e-3, ge=0, description="Adam's learning rate at the start")
    lr_schedule: Literal["linear", "constant"] = Field(
        "linear", description="linear: falls to 0 at the last step"
    )
    gamma: PerLaneFloat = Field(0.98, ge=0, le=1, description="discount of future rewards")
    gae_lambda: PerLaneFloat = Field(
        0.8, ge=0, le=1, description="mixes advantages of 1 step (0) to all steps (1)"
    )
    clip: PerLaneFloat = Field(
        0.2, gt=0, description="largest useful change of an action's probability ratio"
    )
    clip_schedule: Literal["linear", "constant"] = Field(
        "constant", description="linear: falls to 0 at the last step"
    )
    ent_coef: PerLaneFloat = Field(0.0, ge=0, description="weight of the entropy bonus")
    vf_coef: PerLaneFloat = Field(0.5, ge=0, description="weight of the value loss")
    max_grad_norm: PerLaneFloat = Field(0.5, gt=0, description="largest global norm of a gradient")
    hidden_features: tuple[int, ...] = Field(
        (64, 64), description="widths of the hidden layers of actor and critic"
    )
    activation: str = Field("tanh", description="activation between layers, a name in nets.activations")
    layers_every: int = Field(
        0, ge=0, description="minibatches between two looks at every layer's gradients and activations; 0 never looks"
    )

    @field_validator("activation")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ACTIVATIONS:
            raise ValueError(f"unknown activation; known: {', '.join(sorted(ACTIVATIONS))}")
        return name

    @model_validator(mode="after")
    def _whole_minibatches(self) -> PPOConfig:
        if (self.n_envs * self.n_steps) % self.minibatches:
            raise ValueError(
                f"n_envs * n_steps = {self.n_envs * self.n_steps} is not a multiple of minibatches"
            )
        return self

    @property
    def network(self) -> dict[str, Any]:
        """The configuration of actor and critic, as `nets.registry.build` takes it."""
        shape = {"hidden_features": self.hidden_features, "activation": self.activation}
        return {"kind": "actor-critic", "encoder": {"kind": "mlp", **shape, "init": "orthogonal"}}

    @property
    def chunk(self) -> int:
        """Samples of one rollout of one trial, B."""
        return self.n_envs * self.n_steps

    @property
    def seconds_per_progress(self) -> float:
        """Eager cost of one step of one lane among 8."""
        return self.eager_seconds(8) / (8 * self.budget)

    def eager_seconds(self, lanes: int) -> float:
        """Expected cost of a cohort run eagerly on one core.

        Measured for small networks: 0.7 ms a step and 5 ms a minibatch, however many lanes, plus 2
        microseconds for every sample of every pass.
        """
        fixed = 7e-4 * self.n_steps + 5e-3 * self.epochs * self.minibatches
        return self.budget / self.chunk * (fixed + 2e-6 * self.epochs * self.chunk * lanes)


class Batch(NamedTuple):
    """One rollout with its targets, flat: every tensor [B, ...] (one trial)."""

    obs: Tensor
    action: Tensor
    log_prob: Tensor
    advantage: Tensor
    target: Tensor


class PPO(Learner):
    """Proximal policy optimisation for discrete actions."""

    Config = PPOConfig
    unit = "env_steps"
    score = Score("return", "max", worst=0.0)
    version = 2  # networks of `nets.registry`

    def start(self, lanes: Lanes) -> State:
        """Networks, Adam, environments."""
        config = lanes.config
        self.lanes, self.chunk = lanes, config.chunk
        each = lanes.execution.each
        spec = config.env_spec
        self.obs_rank = len(spec.obs_shape)
        self.build = lambda: build(config.network, spec.obs_shape, spec.action.counts[0])
        self.net, params, _ = lanes.stack(self.build, "ppo/init")
        self.envs = make_environments(self._act, lanes, config.n_steps)
        self._targets = each(self._targets_of_one)
        self._update = each(self._update_of_one, in_dims=(0, 0, 0, 0, 0, 0, None))
        self._look = each(self._look_of_one)
        self.hyper = {name: lanes.per_lane(name) for name in (*HYPER, "lr")}
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
        logs, seen = [], {}
        minibatches = self._minibatches(progress)
        for i, index in enumerate(minibatches, progress // self.chunk * len(minibatches)):
            before = state["params"]
            state["params"], state["adam"], log = self._update(
                before, state["adam"], state["alive"], self.hyper, batch, index, left
            )
            logs.append(log)
            if config.layers_every and i % config.layers_every == 0:
                seen = self._look(before, state["params"], self.hyper, batch, index)
        # log
        state["progress"] = state["progress"] + self.chunk
        state["return"] = mean_return(rollout, state["return"])
        means = torch.stack(logs).mean(0)
        return {"return": state["return"], **{name: means[:, i] for i, name in enumerate(LOGGED)}, **seen}

    def evaluate(self, state: State) -> Metrics:
        """Returns of deterministic episodes, [K, episodes]."""
        progress, episodes = int(state["progress"][0]), self.lanes.config.eval_episodes
        return scored(self.lanes.config, self.envs.evaluate(state["params"], state["envs"], progress, episodes))

    def network(self, state: State, lane: int) -> nn.Module:
        """The lane's actor and critic."""
        return module_of(self.build, state["params"], {}, lane)

    def media(self, state: State, lane: int) -> dict[str, Media]:
        """An episode."""
        return episode_media(self.envs, self.lanes, state["params"], state["envs"], lane, progress_of(state))

    def checkpointed(self, state: State) -> None:
        """Environments whose state cannot be saved start anew (the worker calls this at every checkpoint)."""
        self.envs.checkpointed(state["envs"], int(state["progress"][0]))

    def close(self) -> None:
        """Ends the environments."""
        self.envs.close()

    @classmethod
    def work(cls, config: PPOConfig, lanes: int) -> Work:
        """What a cohort costs, for choosing how it is executed."""
        return Work(config.eager_seconds(lanes), compile_seconds=50.0, speedup=5.0)

    def _minibatches(self, progress: int) -> list[Tensor]:
        """Indices [K, M] of every minibatch of every epoch: one permutation a lane and epoch."""
        config, size = self.lanes.config, self.chunk // self.lanes.config.minibatches
        generators = self.lanes.generators("ppo/minibatches", progress)
        orders = [[g.permutation(self.chunk) for _ in range(config.epochs)] for g in generators]
        index = self.lanes.execution.tensor(np.array(orders, dtype=np.int64)).flatten(1)  # [K, epochs * B]
        return [part.contiguous() for part in index.split(size, 1)]

    # Functions of one trial

    def _act(self, params: Any, carry: Any, obs: Tensor, mask: Tensor, u: Tensor | None) -> tuple[Tensor, Any]:
        """Actions [N]: from uniform noise u [N], or the most probable ones."""
        logits = self._head("actor", params, obs)
        return logits.argmax(-1) if u is None else invert_categorical(logits, u), carry

    def _head(self, name: str, params: Any, obs: Tensor) -> Tensor:
        """The output of "actor" or "critic" alone."""
        part = {n.removeprefix(f"{name}."): p for n, p in params.items() if n.startswith(f"{name}.")}
        return call(getattr(self.net, name), part, {}, obs.flatten(obs.dim() - self.obs_rank))[0]

    def _targets_of_one(self, params: Any, hyper: dict[str, Tensor], rollout: Rollout) -> Batch:
        """Values, advantages and log-probabilities of a rollout [T, N, ...], flattened to [B, ...]."""
        (logits, value), _ = call(self.net, params, {}, rollout.obs)
        next_value = self._head("critic", params, rollout.next_obs).squeeze(-1)
        advantage = gae(rollout, value, next_value, hyper["gamma"], hyper["gae_lambda"])
        log_prob = log_prob_of(logits, rollout.action)
        full = Batch(rollout.obs, rollout.action, log_prob, advantage, advantage + value)
        return Batch(*(t.flatten(0, 1) for t in full))

    def _update_of_one(
        self, params: Any, opt: Any, alive: Tensor, hyper: Any, batch: Batch, index: Tensor, left: Tensor
    ) -> tuple[Any, Any, Tensor]:
        """One minibatch [M]: loss, gradient, clipping, Adam; a lane that has ended stays as it is."""
        config = self.lanes.config
        lr = linear(0.0, left, hyper["lr"]) if config.lr_schedule == "linear" else hyper["lr"]
        clip = linear(0.0, left, hyper["clip"]) if config.clip_schedule == "linear" else hyper["clip"]
        minibatch = Batch(*(t[index] for t in batch))

        def loss(params: Any) -> tuple[Tensor, dict[str, Tensor]]:
            (logits, value), _ = call(self.net, params, {}, minibatch.obs)
            return ppo_loss(logits, value, minibatch, clip, hyper["ent_coef"], hyper["vf_coef"])

        grads, (_, log) = grad_and_value(loss, has_aux=True)(params)
        grads, log["grad_norm"] = clip_by_global_norm(grads, hyper["max_grad_norm"])
        after = adam(params, grads, opt, lr, eps=1e-5)
        params, opt = keep(alive, after, (params, opt))
        return params, opt, torch.stack([log[name] for name in LOGGED])


    def _look_of_one(
        self, params: Any, after: Any, hyper: Any, batch: Batch, index: Tensor
    ) -> dict[str, Tensor]:
        """Statistics of every layer for one minibatch that was trained on (at the clip range of the start)."""
        minibatch = Batch(*(t[index] for t in batch))

        def loss(params: Any) -> Any:
            ((logits, value), _), seen = activation_statistics(self.net, params, {}, minibatch.obs)
            coefs = (hyper["ent_coef"], hyper["vf_coef"])
            return ppo_loss(logits, value, minibatch, hyper["clip"], *coefs)[0], seen

        grads, (_, seen) = grad_and_value(loss, has_aux=True)(params)
        return layer_statistics(params, grads, after, seen)


def ppo_loss(
    logits: Tensor, value: Tensor, batch: Batch, clip: Tensor, ent_coef: Any, vf_coef: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """The clipped objective, equation 9 of the paper, as a loss; advantages are normalised over the
    minibatch.

    Args:
        logits: [M, actions].
        value: [M].
        batch: the minibatch [M].
        clip: epsilon of equation 7, 0-dim.
        ent_coef: c2 of equation 9.
        vf_coef: c1 of equation 9, over the mean of half the squared error.

    Returns:
        (loss, {"policy_loss", "value_loss", "entropy", "kl", "clip_fraction"}), all 0-dim.
    """
    log_probs = torch.log_softmax(logits, -1)
    log_prob = torch.gather(log_probs, -1, batch.action.unsqueeze(-1)).squeeze(-1)
    advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
    log_ratio = log_prob - batch.log_prob
    ratio = log_ratio.exp()
    clipped = torch.minimum(torch.maximum(ratio, 1 - clip), 1 + clip)
    policy_loss = -torch.minimum(ratio * advantage, clipped * advantage).mean()  # equation 7
    value_loss = 0.5 * (value - batch.target).square().mean()
    entropy = -(log_probs.exp() * log_probs).sum(-1).mean()
    log = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "kl": (ratio - 1 - log_ratio).mean(),  # Schulman 2020, joschu.net/blog/kl-approx.html, k3
        "clip_fraction": ((ratio - 1).abs() > clip).to(ratio.dtype).mean(),
    }
    return policy_loss + vf_coef * value_loss - ent_coef * entropy, log


def invert_categorical(logits: Tensor, u: Tensor) -> Tensor:
    """Actions [...] distributed as softmax(logits [..., A]), from uniform noise u [...] in [0, 1)."""
    bounds = torch.softmax(logits, -1).cumsum(-1)[..., :-1]  # the last one is 1 but for rounding
    return (u.unsqueeze(-1) >= bounds).sum(-1)


def log_prob_of(logits: Tensor, action: Tensor) -> Tensor:
    """Log-probabilities [...] of actions [...] under softmax(logits [..., A])."""
    return torch.gather(torch.log_softmax(logits, -1), -1, action.unsqueeze(-1)).squeeze(-1)
