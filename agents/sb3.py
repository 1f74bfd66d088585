"""Any algorithm of stable-baselines3 (Raffin et al. 2021, JMLR 22(268)) or sb3-contrib as a learner: `learner: sb3`.

It is driven through `_setup_learn`, `collect_rollouts` and `train` exactly as its own `learn` does: where no
checkpoint falls in between, the weights are those of `learn(steps)` with the trial's seed, bit for bit. Its `learn` in
chunks would not do: every call begins the schedules anew. One difference: a schedule stays at its end (0) where the
last rollout goes beyond `steps`; rl-baselines3-zoo's turn negative there.

What a checkpoint does: the environments, whose state cannot be saved, and the global random generators start anew from
(seed, progress), in uninterrupted and in interrupted runs alike, so that both see the same numbers. On the CPU a
resumed run equals an uninterrupted one bit for bit. Not exact are:

- the episodes that ran at a checkpoint: they are cut (their value is bootstrapped) and missing from "return";
- `t`, the wall time in the statistics of recent episodes, which nothing reads;
- CUDA, where kernels may add in another order.

The replay buffer is written whole into every checkpoint. Progress counts environment steps; where a round has no fixed
length (ARS, `train_freq: [1, episode]`) the first round that reaches a chunk's end belongs to it.

Not offered: buffer classes but HER (Andrychowicz et al. 2017), `optimize_memory_usage`, processes of environments
(`env_workers`) with their watchdog. `exact: false` lets environments and generators run on at a checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from sb3_contrib import ARS
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from agents.envs import EnvConfig
from agents.envs.scores import RETURN, return_score, scored
from agents.sb3_arguments import ALGORITHMS, Algorithm, action_noise, arguments, check_names, policy_arguments
from agents.sb3_envs import check_named, episodes, vectorised
from agents.sb3_network import EncoderExtractor, policy_network
from agents.sb3_state import Streams, restart, state_of, take_state
from harness.blocks import encoder_config
from harness.learner import LaneError, Lanes, Learner, Metrics, State
from harness.randomness import derive_seed, foreign_seed
from harness.spec import Score
from harness.spec_errors import nearest
from nets.transfer import load_encoders

__all__ = ["SB3", "SB3Config", "one_round"]

LEAST_CHUNK = 256  # environment steps; shorter rounds go together
BUILDS_ALIKE = {"steps", "encoder_from", "freeze_encoder", "eval_episodes", "eval_sampled_episodes", "eval_max_steps"}
BUILDS_ALIKE |= {"report_every", "evaluate_every", "checkpoint_every"}
_BUILT: set[str] = set()  # configurations that were found to build, as JSON
if TYPE_CHECKING:
    Encoder = Any
else:
    Encoder = encoder_config("mlp", {})


class SB3Config(EnvConfig):
    """Configuration of `sb3`; what is not said is stable-baselines3's own default."""

    algo: str = Field("PPO", description="algorithm of stable-baselines3 or sb3-contrib, by its class")
    policy: str | None = Field(
        None, description="MlpPolicy, CnnPolicy, MultiInputPolicy, ...; null chooses by the observations"
    )
    hyper: dict[str, Any] = Field(
        default_factory=dict,
        description="arguments of the algorithm's constructor; a schedule that falls to 0 is lin_1e-3,"
        " action_noise is {kind: normal or ou, std: 0.1}, replay_buffer_class is HerReplayBuffer or left out",
    )
    policy_kwargs: dict[str, Any] = Field(
        default_factory=dict,
        description="arguments of the policy's constructor: net_arch, activation_fn and optimizer_class by name, ...",
    )
    encoder: Encoder | None = Field(None, description="one of our encoders as the policy's features extractor")

    @field_validator("algo")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ALGORITHMS:
            raise ValueError(nearest(name, ALGORITHMS, "algorithm"))
        return name

    @field_validator("hyper")
    @classmethod
    def _its_own(cls, hyper: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "algo" in info.data:
            arguments(ALGORITHMS[info.data["algo"]], hyper)
        return hyper

    @model_validator(mode="after")
    def _suits(self) -> SB3Config:
        kind, known = self.env_spec.action.kind, self.algorithm.actions
        if kind not in known:
            raise ValueError(f"env: '{self.env}' has {kind} actions; {self.algo} takes {', '.join(known)}")
        if self.algorithm.masks and not self.env_spec.masked:
            raise ValueError(f"env: '{self.env}' gives no action masks, which {self.algo} needs; take PPO")
        if self.env_spec.mask_observed and not self.algorithm.masks:
            what = f"'{self.env}' says in its observations which actions are allowed, and {self.algo} takes no masks"
            raise ValueError(f"env: {what}; take MaskablePPO, or our ppo, a2c or dqn")
        if self.env_workers:
            raise ValueError("env_workers: stable-baselines3's environments are stepped in the worker itself; give 0")
        if self.encoder_from and self.encoder is None:
            raise ValueError("encoder_from: the policy has no encoder of ours; give it one with `encoder`")
        if self.named and self.encoder:
            raise ValueError("encoder: ours see observations as one array; take it out, or take another policy")
        if self.goals and self.hyper_or_default("n_steps") not in (1, None):
            raise ValueError("hyper.n_steps: HerReplayBuffer has returns of one step; give 1")
        _check_builds(self)
        return self

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm and what it takes."""
        return ALGORITHMS[self.algo]

    @property
    def goals(self) -> bool:
        """Whether goals are replayed, those that were reached for those that were meant (HER)."""
        return self.hyper.get("replay_buffer_class") is not None

    @property
    def named(self) -> bool:
        """Whether the policy sees observations by name; other policies see them side by side."""
        return self.goals or (self.policy or "").startswith("MultiInput")

    def hyper_or_default(self, name: str) -> Any:
        """An argument of the algorithm's constructor."""
        return self.hyper.get(name, self.algorithm.default(name))

    @property
    def chunk(self) -> int:
        """Environment steps of one rollout; of so many short rounds that they are at least 256."""
        if issubclass(self.algorithm.cls, OnPolicyAlgorithm):
            return self.hyper_or_default("n_steps") * self.n_envs
        every = self.hyper_or_default("train_freq")
        count, unit = every if isinstance(every, list | tuple) else (every or 1, "step")
        steps = count * self.n_envs if unit == "step" else 1
        return -(-LEAST_CHUNK // steps) * steps

    @property
    def waits_for_ends(self) -> bool:
        """Whether training itself waits for the end of an episode, and would wait for ever where none comes."""
        every = self.hyper_or_default("train_freq") if issubclass(self.algorithm.cls, OffPolicyAlgorithm) else None
        return issubclass(self.algorithm.cls, ARS) or (isinstance(every, list | tuple) and every[1] == "episode")

    @property
    def seconds_per_progress(self) -> float:
        """Measured for small networks on one core: gradient steps cost most where there is a replay buffer."""
        if not issubclass(self.algorithm.cls, OffPolicyAlgorithm) or "DQN" in self.algo:
            return 5e-4
        return 8e-3


class SB3(Learner):
    """One agent of stable-baselines3; K = 1."""

    Config = SB3Config
    version = 2  # Gymnasium's environments are seeded with 31 bits, schedules stay at 0 beyond `steps`
    unit = "env_steps"
    score = RETURN
    foreign = True

    @classmethod
    def score_of(cls, config: SB3Config) -> Score:
        """The return; what a diverged trial counts as depends on the environment."""
        return return_score(config)

    def start(self, lanes: Lanes) -> State:
        """The agent with the trial's seed, as `learn` would find it after its `_setup_learn`."""
        self.lanes, self.chunk = lanes, lanes.config.chunk
        self.seed = lanes.seeds[0]
        self.logger = _Recorder()
        self.streams = Streams()
        self.stepped = False
        config: SB3Config = lanes.config
        with self.streams.here():
            self.envs = _environments(config)
            self.model = _agent(config, self.envs, lanes.execution.device, foreign_seed(self.seed))
            given = lanes.encoders[0] if lanes.encoders else None
            if given is not None:
                load_encoders(self.model.policy, given)
            if config.freeze_encoder:
                _freeze_encoders(self.model.policy)
            self.model.set_logger(self.logger)
            _, self.callback = self.model._setup_learn(config.steps, _Heed(lanes))
            self.callback.on_training_start({}, {})
        return {"progress": torch.zeros(1, dtype=torch.int64)}

    def advance(self, state: State) -> Metrics:
        """Rounds of collecting and training up to the chunk's end; no further than `steps`, as `learn` ends."""
        self.stepped = True
        goal = min(int(state["progress"][0]) + self.chunk, self.lanes.config.steps)
        with self.streams.here():
            while self.model.num_timesteps < goal:
                one_round(self.model, self.callback)
        if not all(p.isfinite().all() for p in self.model.policy.parameters()):
            raise LaneError((0,), "NaN or infinity in its weights")
        state["progress"] = state["progress"] + self.chunk
        metrics = {**self.logger.means(), "return": safe_mean([e["r"] for e in self.model.ep_info_buffer or ()])}
        return {name: torch.tensor([float(value)], dtype=torch.float64) for name, value in metrics.items()}

    def evaluate(self, state: State) -> Metrics:
        """Returns of deterministic episodes, and of sampled ones where they are asked for, [1, episodes]."""
        config, progress = self.lanes.config, int(state["progress"][0])

        def returns(count: int, sampled: bool) -> torch.Tensor:
            with self.streams.here(keep=False):
                return torch.as_tensor(episodes(self.model, self.lanes, progress, count, sampled)[None])

        found = scored(config, returns(config.eval_episodes, False))
        if config.eval_sampled_episodes:
            found["sampled_return"] = returns(config.eval_sampled_episodes, True)
        return found

    def network(self, state: State, lane: int) -> nn.Module:
        """The policy; it takes observations as the environment gives them."""
        return policy_network(self.model)

    @property
    def restarts(self) -> bool:
        """Whether a checkpoint starts generators and environments anew."""
        return bool(self.lanes.config.exact)

    def checkpointed(self, state: State) -> None:
        """The generators and the environments start anew from (seed, progress); `exact: false` only after restoring."""
        if self.stepped and not self.lanes.config.exact:
            return
        with self.streams.here():
            restart(self.model, derive_seed(self.seed, "sb3", int(state["progress"][0])))

    def save(self, state: State) -> Any:
        """The agent as tensors, arrays and JSON values."""
        return {"progress": int(state["progress"][0]), **state_of(self.model)}

    def load(self, tree: Any) -> State:
        """Takes back what `save` gave."""
        take_state(self.model, tree)
        return {"progress": torch.tensor([tree["progress"]], dtype=torch.int64)}

    def close(self) -> None:
        """Closes the environments."""
        self.envs.close()


def one_round(model: Any, callback: BaseCallback) -> None:
    """What `learn` does between two looks at the number of steps: collect, then train.

    The three bodies are those of `OnPolicyAlgorithm.learn`, `OffPolicyAlgorithm.learn` and `ARS.learn`.
    """
    kind, total = type(model), model._total_timesteps
    if issubclass(kind, OnPolicyAlgorithm):
        model.collect_rollouts(model.env, callback, model.rollout_buffer, n_rollout_steps=model.n_steps)
        model._update_current_progress_remaining(model.num_timesteps, total)
        model.train()
    elif issubclass(kind, OffPolicyAlgorithm):
        rollout = model.collect_rollouts(
            model.env, callback, model.train_freq, model.replay_buffer, model.action_noise, model.learning_starts
        )
        if model.num_timesteps > model.learning_starts:
            steps = model.gradient_steps if model.gradient_steps >= 0 else rollout.episode_timesteps
            if steps > 0:
                model.train(batch_size=model.batch_size, gradient_steps=steps)
    elif issubclass(kind, ARS):
        model._update_current_progress_remaining(model.num_timesteps, total)
        model._do_one_update(callback, None)


class _Heed(BaseCallback):
    """Lets go of a rollout that never ends when the worker must."""

    def __init__(self, lanes: Lanes) -> None:
        super().__init__()
        self._lanes = lanes

    def _on_step(self) -> bool:
        self._lanes.heed()
        return True


class _Recorder(Logger):
    """Keeps what is recorded until it is asked for; writes nothing."""

    def __init__(self) -> None:
        super().__init__(None, [])
        self._seen: dict[str, list[float]] = {}

    def record(self, key: str, value: Any, exclude: Any = None) -> None:
        """One more value of a metric."""
        self._seen.setdefault(key, []).append(float(value))

    def means(self) -> dict[str, float]:
        """The mean of every metric since the last call."""
        seen, self._seen = self._seen, {}
        return {name: float(np.mean(values)) for name, values in seen.items()}


def _environments(config: SB3Config) -> VecEnv:
    most = config.cut_after if config.waits_for_ends else None
    envs = vectorised(config, config.n_envs, config.hyper_or_default("gamma") or 0.99, most, config.named)
    try:
        if config.named:
            check_named(envs.observation_space, config.env, config.goals)
    except ValueError:
        envs.close()
        raise
    return envs


def _agent(config: SB3Config, envs: VecEnv, device: str, seed: int | None, **other: Any) -> BaseAlgorithm:
    """The agent; `other` replaces arguments of its constructor."""
    given = arguments(config.algorithm, config.hyper) | other
    if given.get("action_noise") is not None:
        given["action_noise"] = action_noise(given["action_noise"], envs.action_space.shape or ())
    policy = config.policy or _policy_for(config, envs)
    check_names("policy", {policy: None}, list(config.algorithm.policies), f"policy of {config.algo}")
    network = policy_arguments(config.algorithm.policies[policy], config.policy_kwargs)
    if config.encoder is not None:
        extractor = {"features_extractor_class": EncoderExtractor}
        network |= extractor | {"features_extractor_kwargs": {"encoder": config.encoder.model_dump()}}
    return config.algorithm.cls(policy, envs, policy_kwargs=network, device=device, seed=seed, verbose=0, **given)


def _policy_for(config: SB3Config, envs: VecEnv) -> str:
    """The policy for what is observed: an encoder of ours takes the place of a CNN."""
    seen = envs.observation_space
    kind = "MultiInput" if hasattr(seen, "spaces") else "Cnn" if is_image_space(seen) and not config.encoder else "Mlp"
    return f"{kind}LstmPolicy" if config.algorithm.recurrent else f"{kind}Policy"


def _freeze_encoders(policy: nn.Module) -> None:
    for extractor in policy.modules():
        if isinstance(extractor, EncoderExtractor):
            extractor.requires_grad_(False)


def _check_builds(config: SB3Config) -> None:
    """Builds the agent once, with a tiny replay buffer, and lets go of it: SB3 itself checks what goes together.

    Raises:
        ValueError: it does not go together; says what SB3 says.
    """
    key = config.model_dump_json(exclude=BUILDS_ALIKE)
    if key in _BUILT:
        return
    tiny = {"buffer_size": 1} if config.algorithm.default("buffer_size") else {}
    with Streams().here(keep=False):
        envs = _environments(config)
        try:
            _agent(config, envs, "cpu", None, **tiny)
        except (AssertionError, AttributeError, NotImplementedError, TypeError) as error:
            raise ValueError(f"stable-baselines3's {config.algo} does not take this: {error}") from None
        finally:
            envs.close()
    _BUILT.add(key)
