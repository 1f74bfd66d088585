"""PPO on CartPole in one plain file, as a trial: `plain.py` with the lines that tracking and resuming take."""

import gymnasium as gym
import numpy as np
import torch
from torch import nn


class Agent(nn.Module):
    def __init__(self, observations, actions):
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(observations, 64), nn.Tanh(), nn.Linear(64, actions))
        self.critic = nn.Sequential(nn.Linear(observations, 64), nn.Tanh(), nn.Linear(64, 1))

    def act(self, obs):
        policy = torch.distributions.Categorical(logits=self.actor(obs))
        action = policy.sample()
        return action, policy.log_prob(action), self.critic(obs).squeeze(-1)


def advantages(rewards, values, dones, last, gamma, lam):
    out, carry = torch.zeros_like(rewards), 0.0
    for t in reversed(range(len(rewards))):
        going_on = 1.0 - dones[t]
        delta = rewards[t] + gamma * last * going_on - values[t]
        carry = delta + gamma * lam * going_on * carry
        out[t], last = carry, values[t]
    return out


def update(agent, optimiser, batch, config):
    obs, actions, old, advantage, target = batch
    for _ in range(config["epochs"]):
        for index in torch.randperm(len(obs)).split(256):
            policy = torch.distributions.Categorical(logits=agent.actor(obs[index]))
            ratio = (policy.log_prob(actions[index]) - old[index]).exp()
            a = advantage[index]
            a = (a - a.mean()) / (a.std() + 1e-8)
            clipped = ratio.clamp(1 - config["clip"], 1 + config["clip"])
            policy_loss = -torch.min(ratio * a, clipped * a).mean()
            value_loss = (agent.critic(obs[index]).squeeze(-1) - target[index]).pow(2).mean()
            loss = policy_loss + 0.5 * value_loss
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimiser.step()
    return loss.item()


def train(run):
    config, seed, saved = run.config, run.seed, run.restore()
    torch.manual_seed(seed)
    envs = gym.make_vec("CartPole-v1", num_envs=config["envs"], vectorization_mode="sync")
    agent = Agent(4, 2)
    optimiser = torch.optim.Adam(agent.parameters(), lr=config["lr"])
    step, returns, running = 0, [], np.zeros(config["envs"])
    if saved:
        agent.load_state_dict(saved["agent"])
        optimiser.load_state_dict(saved["optimiser"])
        step, returns = saved["step"], saved["returns"]
    obs = torch.as_tensor(envs.reset(seed=seed)[0])
    while step < config["steps"]:
        rows = []
        for _ in range(config["length"]):
            with torch.no_grad():
                action, log_prob, value = agent.act(obs)
            after, reward, terminated, truncated, _ = envs.step(action.numpy())
            done = terminated | truncated
            running += reward
            returns += running[done].tolist()
            running[done] = 0.0
            done = torch.as_tensor(done, dtype=torch.float32)
            rows.append((obs, action, log_prob, value, torch.as_tensor(reward, dtype=torch.float32), done))
            obs = torch.as_tensor(after)
        step += config["envs"] * config["length"]
        o, a, p, v, r, d = (torch.stack(column) for column in zip(*rows, strict=True))
        with torch.no_grad():
            last = agent.critic(obs).squeeze(-1)
        advantage = advantages(r, v, d, last, config["gamma"], config["lam"])
        batch = [x.flatten(0, 1) for x in (o, a, p, advantage, advantage + v)]
        loss = update(agent, optimiser, batch, config)
        recent = float(np.mean(returns[-20:])) if returns else 0.0
        run.log(step, **{"return": recent, "loss": loss})
        saved = {"agent": agent.state_dict(), "optimiser": optimiser.state_dict()}
        run.checkpoint({**saved, "step": step, "returns": returns})
    envs.close()
    return agent
