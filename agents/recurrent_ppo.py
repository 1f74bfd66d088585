"""PPO (Schulman et al. 2017, arXiv:1707.06347) for agents with a memory: an LSTM (Hochreiter & Schmidhuber 1997) or a
GRU (Cho et al. 2014) that is carried through an episode.

In the order collect, targets, update, log. What stands below "Functions of one trial" knows no lanes.

Legend: T steps, N environments, M environments of a minibatch, K lanes (outermost, seen in `RecurrentPPO` only). Memory
is a dict of tensors [N, depth, H]; "reset" marks the first step of an episode.

A sequence is the whole rollout of one environment: it starts from the memory with which the rollout began and empties
it where an episode begins. Minibatches are sequences of some of the environments. A value beyond a rollout's end or a
time limit is that of the observation before the reset, seen with the memory that led there.

Deliberate differences from sb3-contrib's RecurrentPPO: a sequence is not cut at the end of an episode, nor minibatches
in the middle of one, so nothing is padded; the memory at a rollout's start is that of the policy that collected it, as
there, and within a sequence that of the newest weights; log-probabilities of the rollout are computed after it (of the
same weights). The learning rate and the clip range of an update are those of the rollout's first step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from agents.agent import Agent
from agents.envs import EnvConfig, make_environments
from agents.envs.spaces import see
from agents.envs.transition import Rollout
from agents.ppo import Batch, ppo_loss
from harness.blocks import encoder_config
from harness.learner import Lanes, Metrics, State
from harness.spec import PerLaneFloat, Recipe
from nets.lanes import Work, call, grad_and_value, keep
from nets.optim import adam, adam_init, clip_by_global_norm
from nets.recurrent_actor_critic import memory_shapes
from nets.registry import build
from nets.returns import gae, mean_return
from nets.schedules import SCHEDULES
from nets.transfer import encoder_parameters, held

__all__ = ["RecurrentPPO", "RecurrentPPOConfig", "first_steps"]

HYPER = ("lr", "gamma", "gae_lambda", "clip", "clip_value", "target_kl", "ent_coef", "vf_coef", "max_grad_norm")
LOGGED = ("policy_loss", "value_loss", "entropy", "kl", "clip_fraction", "grad_norm", "steps_taken")

if TYPE_CHECKING:
    Encoder = Any
else:
    Encoder = encoder_config("mlp", {})


class RecurrentPPOConfig(EnvConfig):
    """Configuration of `recurrent-ppo`; the defaults are those of rl-baselines3-zoo for CartPole without velocities."""

    n_envs: int = Field(8, ge=1, description="environments of one trial")
    n_steps: int = Field(32, ge=1, description="steps of every environment between two updates: a sequence")
    epochs: int = Field(20, ge=1, description="passes over a rollout")
    minibatches: int = Field(1, ge=1, description="minibatches of one pass, each of whole environments")
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
        "linear", description="linear: falls to 0 at the last step"
    )
    clip_value: PerLaneFloat = Field(0.0, ge=0, description="largest useful change of a value; 0 does not clip")
    target_kl: PerLaneFloat = Field(
        0.0, ge=0, description="a trial whose policy has moved 1.5 times so far learns no more from a rollout; 0: never"
    )
    ent_coef: PerLaneFloat = Field(0.0, ge=0, description="weight of the entropy bonus")
    vf_coef: PerLaneFloat = Field(0.5, ge=0, description="weight of the value's mean squared error")
    max_grad_norm: PerLaneFloat = Field(0.5, gt=0, description="largest global norm of a gradient")
    encoder: Encoder | None = Field(
        None, description="encoder before the cells, its kind and its fields; none: observations as they are"
    )
    cell: Literal["lstm", "gru"] = Field("lstm", description="recurrent cell")
    memory_features: int = Field(64, ge=1, description="width of the cell's state")
    depth: int = Field(1, ge=1, description="layers of cells")
    shared: bool = Field(False, description="whether policy and value share encoder and cells")
    hidden_features: tuple[int, ...] = Field(
        (64,), description="widths of the hidden layers between cells and heads"
    )
    activation: str = Field("relu", description="activation between those layers, a name in nets.activations")
    init: Literal["torch", "orthogonal"] = Field("torch", description="initialisation of those layers and the heads")
    log_std_init: float = Field(
        0.0, description="logarithm of the standard deviation of continuous actions at the start"
    )

    @model_validator(mode="after")
    def _fits(self) -> RecurrentPPOConfig:
        if self.n_envs % self.minibatches:
            raise ValueError(f"n_envs = {self.n_envs} is not a multiple of minibatches = {self.minibatches}")
        if self.chunk // self.minibatches < 2:
            raise ValueError("n_steps: a minibatch of one row has no spread of advantages; raise n_steps or n_envs")
        spec = self.env_spec
        try:
            with torch.device("meta"), torch.random.fork_rng(devices=[]):
                build(self.network, spec.obs_shape, spec.action.head["out_features"])
        except ValueError as error:
            raise ValueError(f"network: {error}") from None
        return self

    @property
    def encoder_recipe(self) -> Recipe:
        """Actor and critic."""
        return Recipe(self.network, self.env_spec.obs_shape, self.env_spec.action.head["out_features"])

    @property
    def network(self) -> dict[str, Any]:
        """The configuration of actor and critic, as `nets.registry.build` takes it."""
        head = self.env_spec.action.head["kind"]
        policy = {"kind": head, "init": self.init, **({"log_std": self.log_std_init} if head == "gaussian" else {})}
        fields = ("cell", "memory_features", "depth", "shared", "hidden_features", "activation", "init")
        return {
            "kind": "recurrent-actor-critic",
            "encoder": None if self.encoder is None else self.encoder.model_dump(),
            "policy": policy,
            **{name: getattr(self, name) for name in fields},
        }

    @property
    def chunk(self) -> int:
        """Samples of one rollout of one trial, N * T."""
        return self.n_envs * self.n_steps

    @property
    def seconds_per_progress(self) -> float:
        """Eager cost of one step of one lane among 8."""
        return self.eager_seconds(8) / (8 * self.budget)

    def eager_seconds(self, lanes: int) -> float:
        """Expected cost of a cohort run eagerly on one core.

        Measured for small networks: 4 ms a step of a rollout and 2 ms a step of a minibatch, however many lanes, plus
        10 microseconds for every sample of every pass.
        """
        fixed = (4e-3 + 2e-3 * self.epochs * self.minibatches) * self.n_steps
        return self.budget / self.chunk * (fixed + 1e-5 * self.epochs * self.chunk * lanes)


class Sequences(NamedTuple):
    """One rollout with its targets as sequences of N environments, or of the M of a minibatch (one trial).

    Attributes:
        rows: tensors [N, T, ...].
        reset: bool [N, T], the first step of an episode.
        memory: before the first step, [N, depth, H] each.
    """

    rows: Batch
    reset: Tensor
    memory: dict[str, Tensor]


class RecurrentPPO(Agent):
    """Proximal policy optimisation with a memory, for every action space."""

    Config = RecurrentPPOConfig
    version = 2  # Gymnasium's environments are seeded with 31 bits

    def start(self, lanes: Lanes) -> State:
        """Networks, Adam, environments."""
        config, each, k = lanes.config, lanes.execution.each, len(lanes)
        self.lanes, self.chunk, self.spec = lanes, config.chunk, config.env_spec
        self.build = lambda: build(config.network, self.spec.obs_shape, self.spec.action.head["out_features"])
        self.net, params, _ = lanes.stack(self.build, "recurrent-ppo/init")
        self.held = encoder_parameters(params) if config.freeze_encoder else frozenset()
        self.hyper = {name: lanes.per_lane(name) for name in HYPER}
        memory = memory_shapes(config.cell, config.depth, config.memory_features, config.shared)
        self.envs = make_environments(self._act, lanes, config.n_steps, carry=memory, gamma=self.hyper["gamma"])
        self._targets = each(self._targets_of_one)
        self._update = each(self._update_of_one, in_dims=(0, 0, 0, 0, 0, 0, None))
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
        progress, config, logs = int(state["progress"][0]), self.lanes.config, []
        # collect
        memory = state["envs"]["carry"]
        state["envs"], rollout = self.envs.collect(state["params"], state["envs"], progress)
        # targets
        batch = self._targets(state["params"], self.hyper, rollout, memory)
        # update
        used = self.lanes.execution.tensor(np.float64(progress / config.budget))
        learning = state["alive"]
        for index in self._minibatches(progress):
            state["params"], state["adam"], learning, log = self._update(
                state["params"], state["adam"], learning, self.hyper, batch, index, used
            )
            logs.append(log)
        # log
        state["progress"] = state["progress"] + self.chunk
        state["return"] = mean_return(rollout, state["return"])
        means = torch.stack(logs).mean(0)
        return {"return": state["return"], **{name: means[:, i] for i, name in enumerate(LOGGED)}}

    @classmethod
    def work(cls, config: RecurrentPPOConfig, lanes: int) -> Work:
        """What a cohort costs, for choosing how; compiling unrolled steps grows with their square (measured)."""
        return Work(config.eager_seconds(lanes), compile_seconds=0.8 * config.n_steps**2, speedup=4.0)

    def _minibatches(self, progress: int) -> list[Tensor]:
        """Environments [K, M] of every minibatch of every epoch: one permutation a lane and epoch."""
        config = self.lanes.config
        generators = self.lanes.generators("recurrent-ppo/minibatches", progress)
        orders = [[g.permutation(config.n_envs) for _ in range(config.epochs)] for g in generators]
        index = self.lanes.execution.tensor(np.array(orders, dtype=np.int64)).flatten(1)  # [K, epochs * N]
        return [part.contiguous() for part in index.split(config.n_envs // config.minibatches, 1)]

    # Functions of one trial

    def _call(self, params: Any, obs: Tensor, *rest: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(raw, value, memory) of one step, obs [N, ...], or of sequences, obs [N, T, ...]."""
        return call(self.net, params, {}, see(obs, self.lanes.execution.dtype), *rest)[0]

    def _act(self, params: Any, carry: Any, obs: Tensor, mask: Tensor, noise: Tensor | None) -> tuple[Tensor, Any]:
        """Actions [N, ...]: from noise, or the most probable ones; and the memory after `obs`."""
        raw, _, carry = self._call(params, obs, carry)
        distribution = self.spec.action.distribution(raw, mask)
        return distribution.mode() if noise is None else distribution.sample(noise), carry

    def _targets_of_one(self, params: Any, hyper: dict[str, Tensor], rollout: Rollout, before: Any) -> Sequences:
        """Values, advantages and log-probabilities of a rollout [T, N, ...], step by step from the memory before it."""
        reset, rows, memory = first_steps(rollout), [], before
        for obs, begins in zip(rollout.obs.unbind(), reset.unbind(), strict=True):
            memory = {n: torch.where(begins[:, None, None], 0.0, m) for n, m in memory.items()}
            raw, value, memory = self._call(params, obs, memory)
            rows.append((raw, value, memory))
        raw, value = (torch.stack(parts) for parts in list(zip(*rows, strict=True))[:2])
        # a time limit counts the value of what came last: seen with the memory of that episode, all T * N at once
        after = {n: torch.cat([row[2][n] for row in rows]) for n in before}
        next_value = self._call(params, rollout.next_obs.flatten(0, 1), after)[1].view_as(value)
        advantage = gae(rollout, value, next_value, hyper["gamma"], hyper["gae_lambda"])
        log_prob = self.spec.action.distribution(raw, rollout.mask).log_prob(rollout.action)
        known = (rollout.obs, rollout.mask, rollout.action, log_prob, value, advantage, advantage + value)
        return Sequences(Batch(*(t.transpose(0, 1) for t in known)), reset.t(), before)

    def _update_of_one(
        self, params: Any, opt: Any, learning: Tensor, hyper: Any, batch: Sequences, index: Tensor, used: Tensor
    ) -> tuple[Any, Any, Tensor, Tensor]:
        """One minibatch of sequences: loss, gradient, clipping, Adam; a lane that ended, or learns no more, stays."""
        config = self.lanes.config
        lr = SCHEDULES[config.lr_schedule](hyper["lr"], used)
        clip = SCHEDULES[config.clip_schedule](hyper["clip"], used)
        rows, reset = Batch(*(t[index] for t in batch.rows)), batch.reset[index]
        memory = {name: m[index] for name, m in batch.memory.items()}
        advantage = (rows.advantage - rows.advantage.mean()) / (rows.advantage.std() + 1e-8)

        def loss(params: Any) -> tuple[Tensor, dict[str, Tensor]]:
            raw, value, _ = self._call(params, rows.obs, memory, reset)
            policy = self.spec.action.distribution(raw, rows.mask)
            log_prob, entropy = policy.log_prob(rows.action), policy.entropy().mean()
            coefficients = (hyper["clip_value"], hyper["ent_coef"], hyper["vf_coef"])
            return ppo_loss(log_prob, entropy, value, rows._replace(advantage=advantage), clip, *coefficients)

        grads, (_, log) = grad_and_value(loss, has_aux=True)(params)
        grads, log["grad_norm"] = clip_by_global_norm(held(grads, self.held), hyper["max_grad_norm"])
        learning = learning & ~((hyper["target_kl"] > 0) & (log["kl"] > 1.5 * hyper["target_kl"]))
        params, opt = keep(learning, adam(params, grads, opt, lr, eps=1e-5), (params, opt))
        log["steps_taken"] = learning.to(lr.dtype)
        return params, opt, learning, torch.stack([log[name] for name in LOGGED])


def first_steps(rollout: Rollout) -> Tensor:
    """bool [T, N]: steps right after an episode's last; at the first step the memory has been emptied already."""
    done = rollout.terminated | rollout.truncated
    return torch.cat([torch.zeros_like(done[:1]), done[:-1]])
