"""DQN (Mnih et al. 2015, doi:10.1038/nature14236), by choice double (van Hasselt et al. 2016, arXiv:1509.06461),
dueling (Wang et al. 2016, arXiv:1511.06581), with n-step returns (Sutton 1988) and prioritised replay (Schaul et al.
2016, arXiv:1511.05952).

In the order collect, targets, update, log. What stands below "Functions of one trial" knows no lanes.

Legend: T steps of a round, N environments, A actions, B rows of a batch, K lanes (outermost, seen in `DQN` only).

As in stable-baselines3 the target network follows in environment steps (so it stands still while a round is learned
from), actions are uniform until `learning_starts`, truncated episodes bootstrap, the loss is Huber's.

Deliberate differences from stable-baselines3: epsilon is the mean of its schedule over a round, in which the network
does not change; every environment explores by itself; normalised observations and rewards are stored as they were
seen; forbidden actions, where an environment names them, are neither explored nor counted in targets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from agents.agent import Agent
from agents.envs import make_environments
from agents.envs.spaces import see
from agents.priorities import Prioritised, Uniform
from agents.replay import replay_add, replay_cut, replay_init, replay_n_step
from agents.replay_config import ReplayConfig
from harness.blocks import check_builds, encoder_config
from harness.learner import Lanes, Metrics, State, progress_of
from harness.spec import PerLaneFloat, Recipe
from nets.ema import ema_update
from nets.lanes import Work, call, grad_and_value, keep
from nets.looking import activation_statistics, layer_statistics
from nets.optim import adam, adam_init, clip_by_global_norm
from nets.registry import build
from nets.returns import mean_return
from nets.schedules import linear
from nets.transfer import encoder_parameters, held

__all__ = ["DQN", "DQNConfig", "epsilon_greedy", "permitted", "q_target", "taken"]

LOGGED = ("loss", "q", "grad_norm")
HYPER = ("gamma", "tau", "lr", "max_grad_norm")

if TYPE_CHECKING:
    Net = Any
else:
    Net = encoder_config("mlp", {"mlp": {"hidden_features": (64, 64)}})


class DQNConfig(ReplayConfig):
    """Configuration of `dqn`; the defaults are those of stable-baselines3."""

    actions = ("discrete",)

    net: Net = Field(
        default_factory=dict,
        validate_default=True,
        description="the network below the action values: an encoder's kind and its fields",
    )
    dueling: bool = Field(False, description="action values as a state's value and advantages")
    double: bool = Field(False, description="targets take the online network's best action, not the target network's")
    n_step: int = Field(1, ge=1, description="steps of a return before the target network's value")
    prioritised: bool = Field(False, description="rows with larger errors are learned from more often")
    priority_alpha: PerLaneFloat = Field(0.6, ge=0, le=1, description="power of the error in a row's priority")
    priority_beta: PerLaneFloat = Field(
        0.4, ge=0, le=1, description="share of the priorities' bias that is undone at the start; 1 at the end"
    )
    train_freq: int = Field(4, ge=1, description="steps of every environment in one round")
    batch: int = Field(32, ge=1, description="rows of a gradient step")
    target_update_interval: int = Field(
        10_000, ge=1, description="environment steps between two updates of the target network"
    )
    tau: PerLaneFloat = Field(1.0, ge=0, le=1, description="share of the network in its target at such an update")
    lr: PerLaneFloat = Field(1e-4, ge=0, description="Adam's learning rate at the start")
    max_grad_norm: PerLaneFloat = Field(10.0, gt=0, description="largest global norm of a gradient")
    exploration_fraction: PerLaneFloat = Field(
        0.1, gt=0, le=1, description="share of the training over which epsilon falls to its final value"
    )
    exploration_initial_eps: PerLaneFloat = Field(1.0, ge=0, le=1, description="share of random actions at the start")
    exploration_final_eps: PerLaneFloat = Field(
        0.05, ge=0, le=1, description="share of random actions at the end, and in sampled evaluations"
    )
    layers_every: int = Field(
        0, ge=0, description="gradient steps between looks at every layer's gradients and activations; 0 never looks"
    )

    @model_validator(mode="after")
    def _builds(self) -> DQNConfig:
        try:
            check_builds(self.net, self.env_spec.obs_shape, self.head)
        except ValueError as error:
            raise ValueError(f"net: {error}") from None
        return self

    @property
    def encoder_recipe(self) -> Recipe:
        """The network of values."""
        return Recipe(self.net.model_dump(), self.env_spec.obs_shape, self.head)

    @property
    def head(self) -> dict[str, Any]:
        """The configuration of the last layer, as `nets.registry.build` takes it."""
        return {"kind": "dueling" if self.dueling else "linear", "out_features": self.env_spec.action.counts[0]}

    @property
    def chunk(self) -> int:
        """Environment steps of one `advance`: a round, T * N."""
        return self.round

    def eager_seconds(self, lanes: int) -> float:
        """Expected cost of a cohort run eagerly on one core; measured with two hidden layers of 256 units."""
        round_ = 2e-3 * self.train_freq + (4e-3 + 1.5e-5 * lanes * self.batch) * self.updates
        return self.budget / self.chunk * round_


class DQN(Agent):
    """Deep Q-learning for discrete actions."""

    Config = DQNConfig
    version = 2  # Gymnasium's environments are seeded with 31 bits
    rings = {"replay": "added"}

    def start(self, lanes: Lanes) -> State:
        """Networks, Adam, environments, an empty replay."""
        config, each, spec = lanes.config, lanes.execution.each, lanes.config.env_spec
        self.lanes, self.chunk = lanes, config.chunk
        self.build = lambda: build(config.net.model_dump(), spec.obs_shape, config.head)
        self.net, params, _ = lanes.stack(self.build, "dqn/init")
        self.held = encoder_parameters(params) if config.freeze_encoder else frozenset()
        self.hyper = {name: lanes.per_lane(name) for name in HYPER}
        self.envs = make_environments(self._act, lanes, config.train_freq, gamma=self.hyper["gamma"])
        self.sampler = (Prioritised if config.prioritised else Uniform)(lanes, self._rows, config.batch)
        self._choosing = self._online if config.double else self._itself
        self._update = each(self._update_of_one)
        self._follow = each(self._follow_of_one)
        self._look = each(self._look_of_one)
        k = len(lanes)
        return {
            "progress": lanes.execution.tensor(np.zeros(k, dtype=np.int64)),
            "alive": lanes.execution.tensor(np.ones(k, dtype=bool)),
            "params": params,
            "target": {name: p.clone() for name, p in params.items()},
            "adam": adam_init(params, lanes=k),
            "envs": self.envs.start(),
            "replay": replay_init(spec, lanes, config.ring, config.n_envs),
            "priority": self.sampler.start(config.ring * config.n_envs),
            "return": lanes.execution.tensor(np.zeros(k)),
        }

    def advance(self, state: State) -> Metrics:
        """T steps of N environments in every lane, and the gradient steps that follow them."""
        config, progress = self.lanes.config, progress_of(state)
        # collect
        acting = {"net": state["params"], "epsilon": self._epsilon(progress)}
        state["envs"], rollout = self.envs.collect(acting, state["envs"], progress)
        replay_add(state["replay"], rollout)
        self.sampler.added(state["priority"], state["replay"], config.train_freq)
        # targets
        interval = max(config.target_update_interval // config.n_envs, 1)
        steps = progress // config.n_envs
        times = (steps + config.train_freq) // interval - steps // interval
        if times:
            decay = (1 - self.hyper["tau"]) ** times
            state["target"] = self._follow(state["target"], state["params"], state["alive"], decay)
        # update
        progress += self.chunk
        lr = self.hyper["lr"] * (max(1 - progress / config.steps, 0.0) if config.lr_schedule == "linear" else 1.0)
        logs = [torch.full((len(self.lanes), len(LOGGED)), torch.nan, dtype=lr.dtype, device=lr.device)]
        seen: dict[str, Tensor] = {}
        updates = config.updates if progress > config.learning_starts else 0
        batches = self.sampler.batches(state, progress, updates)
        for i, (index, rows, weight) in enumerate(batches, progress // self.chunk * updates):
            before = state["params"]
            learned, fixed = (state["params"], state["adam"]), (state["target"], state["alive"], self.hyper, lr)
            (state["params"], state["adam"]), error, log = self._update(learned, *fixed, rows, weight)
            self.sampler.learned(state["priority"], index, error)
            logs.append(log)
            if config.layers_every and i % config.layers_every == 0:
                seen = self._look(before, state["params"], state["target"], rows, weight)
        # log
        state["progress"] = state["progress"] + self.chunk
        state["return"] = mean_return(rollout, state["return"])
        means = torch.stack(logs).nanmean(0)  # NaN, which is left out, where nothing was learned yet
        named = {name: means[:, i] for i, name in enumerate(LOGGED)}
        return {"return": state["return"], "epsilon": acting["epsilon"], **named, **seen}

    def acting(self, state: State) -> Any:
        """Network and final epsilon; episodes without noise are greedy."""
        return {"net": state["params"], "epsilon": self.lanes.per_lane("exploration_final_eps")}

    def checkpointed(self, state: State) -> None:
        """Environments whose state cannot be saved start anew: no return reaches across that."""
        super().checkpointed(state)
        if not self.lanes.config.env_spec.tensor:
            replay_cut(state["replay"])

    @classmethod
    def work(cls, config: DQNConfig, lanes: int) -> Work:
        """What a cohort costs, for choosing how it is executed."""
        return Work(config.eager_seconds(lanes), compile_seconds=30.0, speedup=1.5)

    def _epsilon(self, progress: int) -> Tensor:
        """Shares of random actions [K] in the round from `progress` on: the schedule's mean over its steps."""
        config = self.lanes.config
        steps = np.arange(progress, progress + self.chunk, config.n_envs)
        names = ("initial_eps", "final_eps", "fraction")
        first, last, share = (self.lanes.per_lane(f"exploration_{name}")[:, None] for name in names)
        used = self.lanes.execution.tensor(steps / config.steps)
        epsilon = linear(first, used / share, last)
        warm = self.lanes.execution.tensor(steps < config.learning_starts)
        return torch.where(warm, 1.0, epsilon).mean(1)

    def _rows(self, replay: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
        """Rows of every lane with their n-step returns."""
        return replay_n_step(replay, index, self.lanes.config.n_step, self.hyper["gamma"])

    # Functions of one trial

    def _q(self, params: Any, obs: Tensor) -> Tensor:
        """Action values [B, A]."""
        return call(self.net, params, {}, see(obs, self.lanes.execution.dtype))[0]

    def _act(self, acting: Any, carry: Any, obs: Tensor, mask: Tensor, u: Tensor | None) -> tuple[Tensor, Any]:
        """Actions [N]: epsilon-greedy from uniform noise u [N], or greedy ones."""
        q = permitted(self._q(acting["net"], obs), mask)
        return q.argmax(-1) if u is None else epsilon_greedy(q, u, acting["epsilon"]), carry

    def _online(self, params: Any, next_q: Tensor, next_obs: Tensor) -> Tensor:
        """Values [B, A] whose best action is taken in double Q-learning: the online network's."""
        return self._q(params, next_obs)

    def _itself(self, params: Any, next_q: Tensor, next_obs: Tensor) -> Tensor:
        """The same in plain Q-learning: the target network's own."""
        return next_q

    def _target(self, params: Any, target: Any, rows: dict[str, Tensor]) -> Tensor:
        """What the values of the actions that were taken should be, [B]."""
        next_q = self._q(target, rows["next_obs"])
        best = permitted(self._choosing(params, next_q, rows["next_obs"]), rows["next_mask"]).argmax(-1)
        return q_target(rows["reward"], rows["discount"], rows["terminated"], next_q, best)

    def _follow_of_one(self, target: Any, params: Any, alive: Tensor, decay: Tensor) -> Any:
        """The target network after some updates, between which the network stood still."""
        return keep(alive, ema_update(target, params, decay), target)

    def _update_of_one(
        self, learned: Any, target: Any, alive: Tensor, hyper: Any, lr: Tensor, rows: dict[str, Tensor], weight: Tensor
    ) -> tuple[Any, Tensor, Tensor]:
        """One batch [B]: targets, loss, gradient, clipping, Adam; a lane that has ended stays as it is."""
        params, opt = learned
        y = self._target(params, target, rows)

        def loss(params: Any) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            q = taken(self._q(params, rows["obs"]), rows["action"])
            return huber(q, y, weight), (q - y, q.mean())

        grads, (value, (error, q)) = grad_and_value(loss, has_aux=True)(params)
        grads, norm = clip_by_global_norm(held(grads, self.held), hyper["max_grad_norm"])
        learned = keep(alive, adam(params, grads, opt, lr), learned)
        return learned, error, torch.stack([value, q, norm])

    def _look_of_one(
        self, params: Any, after: Any, target: Any, rows: dict[str, Tensor], weight: Tensor
    ) -> dict[str, Tensor]:
        """Statistics of every layer for one batch that was learned from."""
        y = self._target(params, target, rows)

        def loss(params: Any) -> tuple[Tensor, Any]:
            obs = see(rows["obs"], self.lanes.execution.dtype)
            (q, _), seen = activation_statistics(self.net, params, {}, obs)
            return huber(taken(q, rows["action"]), y, weight), seen

        grads, (_, seen) = grad_and_value(loss, has_aux=True)(params)
        return layer_statistics(params, grads, after, seen)


def permitted(q: Tensor, mask: Tensor) -> Tensor:
    """Action values [..., A], minus infinity where an action is forbidden.

    Args:
        q: [..., A].
        mask: bool [..., A], or [..., 0] where all are allowed.
    """
    return torch.where(mask, q, -torch.inf) if mask.shape[-1] else q


def epsilon_greedy(q: Tensor, u: Tensor, epsilon: Tensor) -> Tensor:
    """The best action, or with probability epsilon one of all that are allowed, uniformly: int64 [...].

    One number decides both: given that u < epsilon, u / epsilon is uniform.

    Args:
        q: action values [..., A], minus infinity for forbidden ones.
        u: uniform noise in [0, 1), [...].
        epsilon: [...] or 0-dim.
    """
    allowed = ~q.isneginf()  # NaN is allowed: a diverged lane goes on
    count = allowed.sum(-1)
    place = (u / epsilon * count).minimum(count - 1.0).floor().unsqueeze(-1)
    random = (allowed.cumsum(-1) <= place).sum(-1)
    return torch.where(u < epsilon, random, q.argmax(-1))


def taken(q: Tensor, action: Tensor) -> Tensor:
    """Values [...] of actions [...] among [..., A]."""
    return q.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def huber(q: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """The mean of Huber's loss, weighted; all [B]: half the squared error up to 1, linear beyond (Mnih et al. 2015,
    methods: "error clipping")."""
    return (weight * smooth_l1_loss(q, y, reduction="none")).mean()


def q_target(reward: Tensor, discount: Tensor, terminated: Tensor, next_q: Tensor, best: Tensor) -> Tensor:
    """r + gamma^n Q'(s', a*): equation 1 of van Hasselt et al. 2016 where a* is the target network's own best action,
    equation 4 where it is the online network's.

    Args:
        reward: n-step returns [B].
        discount: gamma^n, [B].
        terminated: bool [B], no value is left behind these.
        next_q: the target network's values of s', [B, A].
        best: a*, int64 [B].
    """
    return reward + torch.where(terminated, 0.0, discount * taken(next_q, best))
