"""Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018, arXiv:1802.09477), by choice with one critic:
then it is DDPG (Lillicrap et al. 2016, arXiv:1509.02971).

In the order collect, update, log. What stands below "Functions of one trial" knows no lanes.

Legend: T steps of a round, N environments, B rows of a batch, D components of an action, K lanes (outermost, seen in
`TD3` only).

As in stable-baselines3 delayed updates are counted by gradient steps, noise is in units of actions in [-1, 1],
truncated episodes bootstrap, Ornstein-Uhlenbeck noise starts at 0 with every episode.

Deliberate differences from stable-baselines3: exploration noise is not added to the uniformly random actions of the
start; whether actions are random is decided once a round, not once a step; normalised observations and rewards are
stored as they were seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from agents.agent import Agent
from agents.envs import make_environments
from agents.envs.spaces import see
from agents.off_policy import Batch, OffPolicyConfig, batch_of, critic_inputs, uniform_of
from agents.replay import replay_add, replay_draw, replay_init
from harness.blocks import encoder_config
from harness.learner import Lanes, Metrics, State
from harness.spec import PerLaneFloat
from nets.ema import ema_update
from nets.lanes import Work, call, grad_and_value, keep
from nets.optim import adam, adam_init
from nets.registry import build
from nets.returns import mean_return
from nets.transfer import encoder_parameters, held

__all__ = ["TD3", "TD3Config", "clipped_target", "smoothed"]

HYPER = ("gamma", "tau", "lr", "noise_std", "target_noise", "target_noise_clip")
LOGGED = ("critic_loss", "actor_loss")
# What is left of the noise of one step before and how much is added, in standard deviations. Ornstein-Uhlenbeck:
# theta = 0.15 and dt = 0.01, as in stable-baselines3: 1 - theta dt, sqrt(dt).
NOISE = {"normal": (0.0, 1.0), "ou": (1 - 0.15 * 0.01, 0.1)}

if TYPE_CHECKING:
    Net = Any
else:
    Net = encoder_config("mlp", {"mlp": {"hidden_features": (400, 300)}})


class TD3Config(OffPolicyConfig):
    """Configuration of `td3`; the defaults solve Pendulum-v1 in 20,000 steps."""

    net: Net = Field(
        default_factory=dict,
        validate_default=True,
        description="the hidden layers of the actor, and of both critics for flat observations beside actions; where "
        "it takes pictures only, actions join its features before a last hidden layer of 256 units",
    )
    policy_delay: int = Field(
        2, ge=1, description="gradient steps of the critics for one of the actor and of all target networks"
    )
    n_critics: Literal[1, 2] = Field(
        2, description="networks for the value; 1, with policy_delay 1 and target_noise 0, is DDPG"
    )
    noise: Literal["normal", "ou"] = Field(
        "normal", description="exploration noise: independent, or Ornstein-Uhlenbeck, which wanders"
    )
    noise_std: PerLaneFloat = Field(0.1, ge=0, description="standard deviation of the exploration noise")
    target_noise: PerLaneFloat = Field(
        0.2, ge=0, description="standard deviation of the noise that smooths the target policy"
    )
    target_noise_clip: PerLaneFloat = Field(0.5, ge=0, description="largest size of that noise")


class TD3(Agent):
    """Twin delayed DDPG for box actions with finite bounds."""

    Config = TD3Config
    version = 2  # Gymnasium's environments are seeded with 31 bits
    rings = {"replay": "added"}

    def start(self, lanes: Lanes) -> State:
        """Networks, their Adams, environments, an empty replay."""
        config, each, spec = lanes.config, lanes.execution.each, lanes.config.env_spec
        self.lanes, self.chunk = lanes, config.chunk
        net = config.net.model_dump()
        head = {"kind": "tanh", "out_features": config.action_features}
        self.build = lambda: build(net, spec.obs_shape, head)
        self.actor, actor, _ = lanes.stack(self.build, "td3/actor")
        self.critic, critic, _ = lanes.execution.stack(
            lambda: build(config.critics, config.critic_shape, config.n_critics), lanes.init_seeds("td3/critic")
        )
        self.apart = config.pictures_apart
        self.held = encoder_parameters(actor) if config.freeze_encoder else frozenset()
        self.envs = make_environments(
            self._act, lanes, config.train_freq, "scale", {"noise": (config.action_features,)}, lanes.per_lane("gamma")
        )
        self.first = self.critic.get_submodule("members.0")
        self._update_critic = each(self._update_critic_of_one)
        self._update_actor = each(self._update_actor_of_one)
        self.hyper = {name: lanes.per_lane(name) for name in HYPER}
        k = len(lanes)
        params = {"actor": actor, "critic": critic}
        return {
            "progress": lanes.execution.tensor(np.zeros(k, dtype=np.int64)),
            "alive": lanes.execution.tensor(np.ones(k, dtype=bool)),
            "updates": lanes.execution.tensor(np.zeros(k, dtype=np.int64)),
            "params": params,
            "target": {name: {n: p.clone() for n, p in net.items()} for name, net in params.items()},
            "adam": {name: adam_init(p, lanes=k) for name, p in params.items()},
            "envs": self.envs.start(),
            "replay": replay_init(spec, lanes, config.ring, config.n_envs),
        }

    def advance(self, state: State) -> Metrics:
        """Rounds of T steps in N environments, each followed by gradient steps, in every lane."""
        config, lanes, progress = self.lanes.config, self.lanes, int(state["progress"][0])
        shape = (config.rounds, config.updates, config.batch, config.action_features)
        noise = lanes.noise("td3/smoothing", progress, shape)
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
                index = replay_draw(lanes, state["replay"], "td3/batch", progress, (config.updates, config.batch))
                for g in range(config.updates):
                    batch = batch_of(state["replay"], index[:, g])
                    logs.append(self._train(state, lr, batch, noise[:, r, g]))
        # log
        state["progress"] = state["progress"] + self.chunk
        means = torch.stack(logs).nanmean(0)
        return {"return": returns, **{name: means[:, i] for i, name in enumerate(LOGGED)}}

    def weights(self, state: State) -> Any:
        """The actors'."""
        return state["params"]["actor"]

    @classmethod
    def work(cls, config: TD3Config, lanes: int) -> Work:
        """What a cohort costs, for choosing how it is executed."""
        return Work(config.eager_seconds(lanes), compile_seconds=20.0, speedup=1.6)

    def acting(self, state: State, warm: bool = False) -> dict[str, Any]:
        """What `_act` takes as parameters; `warm`: actions are uniformly random."""
        actor, std = state["params"]["actor"], self.hyper["noise_std"]
        return {"actor": actor, "std": std, "warm": torch.full_like(state["alive"], warm)}

    def _train(self, state: State, lr: Tensor, batch: Batch, noise: Tensor) -> Tensor:
        """One gradient step of the critics and, when it is due, one of actor and targets: losses [K, 2]."""
        params, opt, alive = state["params"], state["adam"], state["alive"]
        learned = (params["critic"], opt["critic"])
        learned, of_critic = self._update_critic(learned, state["target"], alive, self.hyper, lr, batch, noise)
        params["critic"], opt["critic"] = learned
        state["updates"] = state["updates"] + 1
        of_actor = torch.full_like(of_critic, torch.nan)
        if int(state["updates"][0]) % self.lanes.config.policy_delay == 0:
            late = (params["actor"], opt["actor"], state["target"])
            late, of_actor = self._update_actor(late, params["critic"], alive, self.hyper, lr, batch.obs)
            params["actor"], opt["actor"], state["target"] = late
        return torch.stack([of_critic, of_actor], -1)

    # Functions of one trial

    def _act(self, params: Any, carry: Any, obs: Tensor, mask: Tensor, noise: Tensor | None) -> tuple[Tensor, Any]:
        """Actions [N, D] in [-1, 1] from normal noise [N, D], or the deterministic ones."""
        action = call(self.actor, params["actor"], {}, see(obs, self.lanes.execution.dtype))[0]
        if noise is None:
            return action, carry
        kept, added = NOISE[self.lanes.config.noise]
        wander = kept * carry["noise"] + added * params["std"] * noise
        explored = (action + wander).clamp(-1, 1)
        return torch.where(params["warm"], uniform_of(noise), explored), {"noise": wander}

    def _values(self, critic: Any, obs: Tensor, action: Tensor) -> Tensor:
        """Of all critics, [B, 2] or [B, 1]."""
        return call(self.critic, critic, {}, *critic_inputs(obs, action, self.apart))[0]

    def _update_critic_of_one(
        self, learned: tuple[Any, Any], target: Any, alive: Tensor, hyper: dict[str, Tensor], lr: Tensor, batch: Batch,
        noise: Tensor,
    ) -> tuple[tuple[Any, Any], Tensor]:  # fmt: skip
        """One gradient step of both critics.

        Args:
            learned: (critic, its Adam).
            target: {"actor", "critic"}.
            alive: whether the lane still learns; one that has ended stays as it is.
            hyper: coefficients.
            lr: learning rate.
            batch: rows [B].
            noise: normal, [B, D].
        """
        critic, opt = learned
        next_action = call(self.actor, target["actor"], {}, batch.next_obs)[0]
        next_action = smoothed(next_action, noise, hyper["target_noise"], hyper["target_noise_clip"])
        aim = clipped_target(batch, self._values(target["critic"], batch.next_obs, next_action), hyper["gamma"])

        def loss(critic: Any) -> Tensor:
            values = self._values(critic, batch.obs, batch.action)
            return (values - aim.unsqueeze(-1)).square().mean(0).sum()  # algorithm 1, for both

        grads, value = grad_and_value(loss)(critic)
        return keep(alive, adam(critic, grads, opt, lr), learned), value

    def _update_actor_of_one(
        self, learned: tuple[Any, Any, Any], critic: Any, alive: Tensor, hyper: dict[str, Tensor], lr: Tensor,
        obs: Tensor,
    ) -> tuple[tuple[Any, Any, Any], Tensor]:  # fmt: skip
        """One gradient step of the actor along the first critic, then the targets follow both networks.

        Args:
            learned: (actor, its Adam, target).
            critic: both critics.
            alive: whether the lane still learns; one that has ended stays as it is.
            hyper: coefficients.
            lr: learning rate.
            obs: [B, obs features].
        """
        actor, opt, target = learned
        first = {n.removeprefix("members.0."): p for n, p in critic.items() if n.startswith("members.0.")}

        def loss(actor: Any) -> Tensor:
            action = call(self.actor, actor, {}, obs)[0]
            value, _ = call(self.first, first, {}, *critic_inputs(obs, action, self.apart))
            return -value.mean()  # the gradient of equation 2, as a loss

        grads, value = grad_and_value(loss)(actor)
        actor, opt = adam(actor, held(grads, self.held), opt, lr)
        decay = 1 - hyper["tau"]
        target = {
            "actor": ema_update(target["actor"], actor, decay),
            "critic": ema_update(target["critic"], critic, decay),
        }
        return keep(alive, (actor, opt, target), learned), value


def smoothed(action: Tensor, noise: Tensor, std: Any, limit: Any) -> Tensor:
    """Target policy smoothing, equation 14: the action and clipped noise, within [-1, 1].

    Args:
        action: [B, D].
        noise: normal, [B, D].
        std: its standard deviation.
        limit: c, the largest size of the noise.
    """
    size = torch.as_tensor(limit, dtype=action.dtype, device=action.device)
    return (action + torch.minimum(torch.maximum(std * noise, -size), size)).clamp(-1, 1)


def clipped_target(batch: Batch, next_values: Tensor, gamma: Any) -> Tensor:
    """r + gamma min(Q1, Q2), equation 10 (clipped double Q-learning); the value counts unless terminated.

    Args:
        batch: rows [B].
        next_values: of the target critics at the smoothed target action, [B, 2] or [B, 1].
        gamma: discount.

    Returns:
        [B].
    """
    return batch.reward + gamma * (1 - batch.terminated) * next_values.amin(-1)
