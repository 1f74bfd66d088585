#!/usr/bin/env bash
# stable-baselines3 2.9.2: with a linear learning-rate schedule, on-policy training whose total_timesteps is no multiple of a
# rollout makes its last update with a negative learning rate.
#
# Seen: PPO with n_steps * n_envs = 512 and total_timesteps = 1,280 collects three rollouts, 1,536 steps. The progress that
# schedules are given is 1 - 1,536 / 1,280 = -0.2, so `lambda progress: progress * 1e-3`, the documentation's linear schedule,
# returns -2e-4, and Adam climbs the loss in all minibatches of the last update. Nothing warns.
# Output seen on 2026-12-01: "learning rates of the updates: 0.0006, 0.0002, -0.0002".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "torch==2.13.0" "stable-baselines3==2.9.2" "gymnasium==1.4.0" "numpy==2.4.6" 2>/dev/null
"$work/venv/bin/python" - <<'PY'
import stable_baselines3
from stable_baselines3 import PPO

used = []


class Seen(PPO):
    def train(self):
        super().train()
        used.append(self.policy.optimizer.param_groups[0]["lr"])


model = Seen("MlpPolicy", "CartPole-v1", learning_rate=lambda progress: progress * 1e-3, n_steps=512, batch_size=128, seed=0)
model.learn(total_timesteps=1_280)
print(f"stable-baselines3 {stable_baselines3.__version__}")
print("learning rates of the updates:", ", ".join(f"{rate:.4f}" for rate in used))
assert [round(rate, 6) for rate in used] == [6e-4, 2e-4, -2e-4], "the behaviour has changed"
PY
