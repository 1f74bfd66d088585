"""Soft actor-critic with a learned temperature (Haarnoja et al. 2018, arXiv:1812.05905).

In the order collect, update, log. What stands below "Functions of one trial" knows no lanes.

Legend: T steps of a round, N environments, B rows of a batch, D components of an action, K lanes (outermost, seen in
`SAC` only), alpha the temperature.

As in stable-baselines3 the logarithm of alpha is learned (the paper's equation 18 is in alpha), one step uses the
alpha from before it everywhere, the actor follows the critics of after it, truncated episodes bootstrap, actions are
in [-1, 1] until they reach the environment.

Deliberate differences from stable-baselines3: the log-probability of a squashed action is exact (no 1e-6 within the
logarithm); the actor's biases of the standard deviation start at 0; whether actions are random is decided once a
round, not once a step; normalised observations and rewards are stored as they were seen. No gSDE.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from agents.agent import Agent
from agents.envs import make_environments
from agents.envs.spaces import see
from agents.off_policy import Batch, OffPolicyConfig, batch_of, critic_inputs, uniform_of
from agents.replay import replay_add, replay_draw, replay_init
from harness.learner import Lanes, Metrics, State
from harness.spec import PerLane
from nets.distributions import SquashedGaussian
from nets.ema import ema_update
from nets.lanes import Work, call, grad_and_value, keep
from nets.optim import adam, adam_init
from nets.registry import build
from nets.returns import mean_return
from nets.transfer import encoder_parameters, held

__all__ = ["SAC", "SACConfig", "soft_target", "temperature_gradient"]

LOGGED = ("critic_loss", "actor_loss", "entropy", "temperature")


class SACConfig(OffPolicyConfig):
    """Configuration of `sac`; the defaults solve Pendulum-v1 in 20,000 steps."""

    ent_coef: Annotated[Literal["auto"] | Annotated[float, Field(ge=0)], PerLane()] = Field(
        "auto", description="temperature, the weight of the entropy; auto learns it, from 1"
    )
    target_entropy: Annotated[Literal["auto"] | float, PerLane()] = Field(
        "auto", description="entropy to which a learned temperature steers, in nats; auto: minus the number of actions"
    )


class SAC(Agent):
    """Soft actor-critic for box actions with finite bounds."""

    Config = SACConfig
    version = 2  # Gymnasium's environments are seeded with 31 bits
    rings = {"replay": "added"}

    def start(self, lanes: Lanes) -> State:
        """Networks, their Adams, environments, an empty replay."""
        config, each, spec = lanes.config, lanes.execution.each, lanes.config.env_spec
        self.lanes, self.chunk = lanes, config.chunk
        net = config.net.model_dump()
        head = {"kind": "squashed-gaussian", "out_features": config.action_features, "init": "torch"}
        self.build = lambda: build(net, spec.obs_shape, head)
        self.actor, actor, _ = lanes.stack(self.build, "sac/actor")
        self.critic, critic, _ = lanes.execution.stack(
            lambda: build(config.critics, config.critic_shape, 2), lanes.init_seeds("sac/critic")
        )
        self.apart = config.pictures_apart
        self.held = encoder_parameters(actor) if config.freeze_encoder else frozenset()
        self.envs = make_environments(self._act, lanes, config.train_freq, fit="scale", gamma=lanes.per_lane("gamma"))
        self._update = each(self._update_of_one)
        self.hyper = {name: lanes.per_lane(name) for name in ("gamma", "tau", "lr")}
        self.hyper["fixed"] = lanes.execution.tensor([c.ent_coef != "auto" for c in lanes.configs])
        self.hyper["ent_coef"] = _numbers(lanes, "ent_coef", 1.0)
        self.hyper["target_entropy"] = _numbers(lanes, "target_entropy", -float(config.action_features))
        k = len(lanes)
        params = {"actor": actor, "critic": critic, "temperature": {"log": torch.zeros_like(self.hyper["lr"])}}
        return {
            "progress": lanes.execution.tensor(np.zeros(k, dtype=np.int64)),
            "alive": lanes.execution.tensor(np.ones(k, dtype=bool)),
            "params": params,
            "target": {name: p.clone() for name, p in critic.items()},
            "adam": {name: adam_init(p, lanes=k) for name, p in params.items()},
            "envs": self.envs.start(),
            "replay": replay_init(spec, lanes, config.ring, config.n_envs),
        }

    def advance(self, state: State) -> Metrics:
        """Rounds of T steps in N environments, each followed by gradient steps, in every lane."""
        config, lanes, progress = self.lanes.config, self.lanes, int(state["progress"][0])
        shape = (config.rounds, config.updates, 2, config.batch, config.action_features)
        noise = lanes.noise("sac/actions", progress, shape)
        nothing = torch.full_like(self.hyper["lr"], torch.nan)  # left out of means
        returns, logs = nothing, [nothing.unsqueeze(-1).expand(-1, len(LOGGED))]
        for r in range(config.rounds):
            # collect
            acting = self.acting(state, progress < config.learning_starts)
            state["envs"], rollout = self.envs.collect(acting, state["envs"], progress)
            replay_add(state["replay"], rollout)
            returns = mean_return(rollout, returns)
            progress += config.round
            # update
            if progress > config.learning_starts:
                left = 1 - progress / config.budget if config.lr_schedule == "linear" else 1.0
                lr = self.hyper["lr"] * left
                index = replay_draw(lanes, state["replay"], "sac/batch", progress, (config.updates, config.batch))
                for g in range(config.updates):
                    batch = batch_of(state["replay"], index[:, g])
                    learned = (state["params"], state["target"], state["adam"])
                    learned, log = self._update(learned, state["alive"], self.hyper, lr, batch, noise[:, r, g])
                    state["params"], state["target"], state["adam"] = learned
                    logs.append(log)
        # log
        state["progress"] = state["progress"] + self.chunk
        means = torch.stack(logs).nanmean(0)
        return {"return": returns, **{name: means[:, i] for i, name in enumerate(LOGGED)}}

    def weights(self, state: State) -> Any:
        """The actors'."""
        return state["params"]["actor"]

    @classmethod
    def work(cls, config: SACConfig, lanes: int) -> Work:
        """What a cohort costs, for choosing how it is executed."""
        return Work(config.eager_seconds(lanes), compile_seconds=25.0, speedup=1.6)

    def acting(self, state: State, warm: bool = False) -> dict[str, Any]:
        """What `_act` takes as parameters; `warm`: actions are uniformly random."""
        return {"actor": state["params"]["actor"], "warm": torch.full_like(state["alive"], warm)}

    # Functions of one trial

    def _act(self, params: Any, carry: Any, obs: Tensor, mask: Tensor, noise: Tensor | None) -> tuple[Tensor, Any]:
        """Actions [N, D] in [-1, 1] from normal noise [N, D], or the deterministic ones."""
        policy = self._policy(params["actor"], see(obs, self.lanes.execution.dtype))
        if noise is None:
            return policy.mode(), carry
        return torch.where(params["warm"], uniform_of(noise), policy.sample(noise)), carry

    def _policy(self, actor: Any, obs: Tensor) -> SquashedGaussian:
        return SquashedGaussian(call(self.actor, actor, {}, obs)[0])

    def _values(self, critic: Any, obs: Tensor, action: Tensor) -> Tensor:
        """Of both critics, [B, 2]."""
        return call(self.critic, critic, {}, *critic_inputs(obs, action, self.apart))[0]

    def _update_of_one(
        self, learned: tuple[Any, Any, Any], alive: Tensor, hyper: dict[str, Tensor], lr: Tensor, batch: Batch,
        noise: Tensor,
    ) -> tuple[tuple[Any, Any, Any], Tensor]:  # fmt: skip
        """One gradient step of critics, actor and temperature; a lane that has ended stays as it is.

        Args:
            learned: (params, target, adam).
            alive: whether the lane still learns.
            hyper: coefficients.
            lr: learning rate.
            batch: rows [B].
            noise: normal, [2, B, D]: for actions at next_obs and at obs.
        """
        params, target, opt = learned
        alpha = torch.where(hyper["fixed"], hyper["ent_coef"], params["temperature"]["log"].exp())
        next_action, next_log_prob = self._policy(params["actor"], batch.next_obs).sample_with_log_prob(noise[0])
        next_values = self._values(target, batch.next_obs, next_action)
        aim = soft_target(batch, next_values, next_log_prob, alpha, hyper["gamma"])

        def critic_loss(critic: Any) -> Tensor:
            values = self._values(critic, batch.obs, batch.action)
            return 0.5 * (values - aim.unsqueeze(-1)).square().mean(0).sum()  # equation 5, for both

        def actor_loss(actor: Any, critic: Any) -> tuple[Tensor, Tensor]:
            action, log_prob = self._policy(actor, batch.obs).sample_with_log_prob(noise[1])
            value = self._values(critic, batch.obs, action).amin(-1)
            return (alpha * log_prob - value).mean(), log_prob.mean()  # equation 9

        grads, of_critic = grad_and_value(critic_loss)(params["critic"])
        critic, critic_opt = adam(params["critic"], grads, opt["critic"], lr)
        grads, (of_actor, log_prob) = grad_and_value(actor_loss, has_aux=True)(params["actor"], critic)
        actor, actor_opt = adam(params["actor"], held(grads, self.held), opt["actor"], lr)
        grad = temperature_gradient(log_prob, hyper["target_entropy"])
        grads = {"log": torch.where(hyper["fixed"], 0.0, grad)}
        temperature, temperature_opt = adam(params["temperature"], grads, opt["temperature"], lr)
        after = (
            {"actor": actor, "critic": critic, "temperature": temperature},
            ema_update(target, critic, 1 - hyper["tau"]),
            {"actor": actor_opt, "critic": critic_opt, "temperature": temperature_opt},
        )
        return keep(alive, after, learned), torch.stack([of_critic, of_actor, -log_prob, alpha])


def soft_target(batch: Batch, next_values: Tensor, next_log_prob: Tensor, alpha: Any, gamma: Any) -> Tensor:
    """r + gamma V(s'), equations 2 and 3, with the smaller of the target critics' values; V counts unless terminated.

    Args:
        batch: rows [B].
        next_values: of the target critics at s' and an action drawn there, [B, 2].
        next_log_prob: of that action, [B].
        alpha: temperature.
        gamma: discount.

    Returns:
        [B].
    """
    value = next_values.amin(-1) - alpha * next_log_prob
    return batch.reward + gamma * (1 - batch.terminated) * value


def temperature_gradient(log_prob: Tensor, target_entropy: Any) -> Tensor:
    """Of -log(alpha) (log_prob + target entropy) in log(alpha): equation 18 with alpha's logarithm in its place.

    Args:
        log_prob: mean over the batch, 0-dim.
        target_entropy: in nats.
    """
    return -(log_prob + target_entropy)


def _numbers(lanes: Lanes, name: str, auto: float) -> Tensor:
    """A PerLane field as a tensor [K], `auto` where it says so."""
    values = [getattr(c, name) for c in lanes.configs]
    return lanes.execution.tensor(np.array([auto if v == "auto" else v for v in values], dtype=np.float64))
