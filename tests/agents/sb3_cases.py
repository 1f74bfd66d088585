"""Tiny configurations of `sb3`, one an algorithm; after a plus, what else is tried with it."""

__all__ = ["CASES", "QUICK"]

REPLAY = {"learning_starts": 64, "buffer_size": 500, "batch_size": 8, "train_freq": 8}
SMALL = {"net_arch": [8]}
QUICK = ("PPO", "A2C", "DQN", "SAC", "TD3", "TD3+HER")
PPO = {"n_steps": 64, "batch_size": 32, "n_epochs": 2}
PENDULUM, CARTPOLE = "Pendulum-v1", "CartPole-v1"
OBSERVATIONS = ["normalise-observations"]
HER = {"replay_buffer_class": "HerReplayBuffer", "replay_buffer_kwargs": {"n_sampled_goal": 4}}
CASES = {
    "PPO": {"env": CARTPOLE, "n_envs": 2, "hyper": {**PPO, "learning_rate": "lin_1e-3", "clip_range": "lin_0.2"}},
    "A2C": {
        "env": PENDULUM,
        "n_envs": 2,
        "wrappers": [*OBSERVATIONS, "normalise-rewards"],
        "hyper": {"n_steps": 32, "use_sde": True, "learning_rate": "lin_7e-4"},
        "policy_kwargs": {**SMALL, "optimizer_class": "RMSpropTFLike", "optimizer_kwargs": {"eps": 1e-5}},
    },
    "DQN": {
        "env": CARTPOLE,
        "hyper": {**REPLAY, "n_steps": 3, "target_update_interval": 50, "exploration_fraction": 0.5},
    },
    "SAC": {"env": PENDULUM, "wrappers": OBSERVATIONS, "hyper": {**REPLAY, "ent_coef": "auto_0.1"}},
    "TD3": {"env": PENDULUM, "n_envs": 2, "hyper": {**REPLAY, "action_noise": {"kind": "ou", "std": 0.1}}},
    "ARS": {
        "env": PENDULUM,
        "policy": "LinearPolicy",
        "policy_kwargs": {},
        "wrappers": OBSERVATIONS,
        "hyper": {"n_delta": 1},
    },
    "CrossQ": {"env": PENDULUM, "hyper": REPLAY},
    "DDPG": {"env": PENDULUM, "hyper": {**REPLAY, "train_freq": [1, "episode"]}},
    "MaskablePPO": {"env": "MaskedIdentity-v0", "n_envs": 2, "hyper": PPO},
    "QRDQN": {"env": CARTPOLE, "hyper": REPLAY},
    "RecurrentPPO": {"env": CARTPOLE, "n_envs": 2, "hyper": PPO, "policy_kwargs": {"lstm_hidden_size": 8}},
    "TQC": {"env": PENDULUM, "hyper": {**REPLAY, "use_sde": True}},
    "TD3+HER": {
        "env": "tests.agents.goal_env:Reaching-v0",
        "n_envs": 2,
        "wrappers": OBSERVATIONS,
        "policy": "MultiInputPolicy",
        "hyper": {**REPLAY, **HER, "buffer_size": 120},
    },
    "TRPO": {"env": CARTPOLE, "hyper": {"n_steps": 128}},
}
for _name, _case in CASES.items():
    _case |= {"algo": _name.partition("+")[0], "policy_kwargs": _case.get("policy_kwargs", SMALL)}
