"""Stable-baselines3's SAC and TD3 beside ours: the same weights, the same rows."""

import gymnasium
import stable_baselines3
import torch
from stable_baselines3.common.buffers import ReplayBufferSamples
from stable_baselines3.common.logger import Logger

from agents.off_policy import Batch

__all__ = ["copy_weights", "equal_weights", "give", "rows", "sb3_model"]


def sb3_model(patch, name, tiny, config, **rest):
    """Their model for Pendulum in float64, with those of our fields that both have."""
    patch.setattr("stable_baselines3.common.policies.preprocess_obs", lambda obs, *_, **__: obs)  # it makes float32
    model = getattr(stable_baselines3, name)(
        "MlpPolicy",
        gymnasium.make("Pendulum-v1"),
        learning_rate=config["lr"],
        tau=config["tau"],
        gamma=config["gamma"],
        buffer_size=8,
        policy_kwargs={"net_arch": list(tiny["net"]["hidden_features"])},
        device="cpu",
        **({"ent_coef": config["ent_coef"]} if "ent_coef" in config else {}),
        **rest,
    )
    model.policy.double()
    model.set_logger(Logger(None, []))
    return model


def copy_weights(params, lane, module):
    """A lane's weights into their module; both name them in the order of the layers."""
    ours = list(params.values())
    theirs = list(module.parameters())
    assert [p[lane].shape for p in ours] == [p.shape for p in theirs]
    with torch.no_grad():
        for a, b in zip(ours, theirs, strict=True):
            b.copy_(a[lane])


def equal_weights(params, lane, module):
    """A lane's weights are their module's."""
    for (name, ours), theirs in zip(params.items(), module.parameters(), strict=True):
        torch.testing.assert_close(ours[lane], theirs.detach(), rtol=0, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def rows(seed, lanes, size):
    """A batch [K, B] of random rows, some of them ends."""
    generator = torch.Generator().manual_seed(seed)
    obs, next_obs = torch.randn(2, lanes, size, 3, generator=generator, dtype=torch.float64)
    action = 2 * torch.rand(lanes, size, 1, generator=generator, dtype=torch.float64) - 1
    reward = torch.randn(lanes, size, generator=generator, dtype=torch.float64)
    ended = (torch.rand(lanes, size, generator=generator) < 0.3).double()
    return Batch(obs, action, reward, next_obs, ended)


def give(model, batch, lane):
    """Their replay gives a lane's rows."""
    obs, action, reward, next_obs, ended = (t[lane] for t in batch)
    samples = ReplayBufferSamples(obs, action, next_obs, ended.unsqueeze(-1), reward.unsqueeze(-1))
    model.replay_buffer.sample = lambda batch_size, env=None: samples
