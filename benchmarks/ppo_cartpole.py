"""PPO on CartPole-v1 as lanes on one core, beside stable-baselines3 in the same process.

CleanRL's and PureJaxRL's own settings on both sides: 4 environments of 128 steps, 4 epochs of 4 minibatches, two 64-64
networks with tanh, clipped value loss. In one process with one thread and an empty compile cache:
  lanes_8, lanes_32   our PPO, compiled; training steps of all lanes together in a second of CPU
  sb3                 stable-baselines3's PPO, one agent
  bmm                 `torch.bmm` of [8, 128, 64] by [8, 64, 64]: what the core can multiply
  purejaxrl_8, _32    only with --purejaxrl: PureJaxRL's own code in a process of its own on one core
Rounds of all are interleaved; the medians of their rates count. What a rollout needs of products is 229 kFLOP an
environment step, from which the share of the arithmetic limit follows. Compiling is measured by the wall clock, as it
runs in processes of its own: the first chunk less a usual one. The ratio with compiling in is computed: 32 lanes of
500,000 steps each at the measured rate, plus compiling, against stable-baselines3 at its rate.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import finish, note, parser

LANES, STEPS, PUREJAXRL_STEPS = (8, 32), 500_000, 16_384
FLOP = 229e3  # of one environment step: rollout, targets, 4 epochs forward and backward
HYPER: dict[str, Any] = {"gamma": 0.99, "gae_lambda": 0.95, "ent_coef": 0.01, "vf_coef": 0.5, "max_grad_norm": 0.5}
PUBLISHED = {"purejaxrl_8": 125_900, "purejaxrl_32": 142_900, "sb3": 4_975}  # steps/s on an idle core of an AMD EPYC


def main() -> None:
    """Measures in a process of its own, whose compile cache is empty, and prints the ratios."""
    options = parser("ppo_cartpole", __doc__)
    told = "an interpreter with jax and a clone of PureJaxRL: see purejaxrl.py"
    options.add_argument("--purejaxrl", nargs=2, metavar=("PYTHON", "CHECKOUT"), help=told)
    options.add_argument("--child", action="store_true", help="internal: the measuring process")
    args = options.parse_args()
    if args.child:
        finish("ppo_cartpole", *measured(5 if args.quick else 15, args.purejaxrl), args)
        return
    with tempfile.TemporaryDirectory(prefix="seedbed-bench-") as cache:
        env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "benchmarks.ppo_cartpole", "--child", *sys.argv[1:]]
        sys.exit(subprocess.run(command, env=env, check=False).returncode)


def measured(rounds: int, purejaxrl: list[str] | None) -> tuple[dict[str, float], dict[str, Any]]:
    """(ratios, details)."""
    import torch

    torch.set_num_threads(1)
    # what one round does (it may say how many seconds of CPU it took), and its environment steps
    sides: dict[str, tuple[Callable[[], float | None], float]] = {}
    compiling: dict[int, float] = {}
    for lanes in LANES:
        action, steps, compiling[lanes] = our_side(lanes)
        sides[f"lanes_{lanes}"] = action, steps
        note(f"{lanes} lanes compiled in {compiling[lanes]:.1f} s")
    sides["sb3"] = sb3_side()
    sides["bmm"] = bmm_side()
    for lanes in LANES if purejaxrl else ():
        sides[f"purejaxrl_{lanes}"] = purejaxrl_side(*purejaxrl, lanes)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(rounds + 1):
        for name, (action, amount) in sides.items():
            began = time.process_time()
            seconds = action()
            rates[name].append(amount / (seconds or time.process_time() - began))
        note(f"round {i}: " + ", ".join(f"{name} {found[-1]:,.0f}" for name, found in rates.items()))
    middle = {name: statistics.median(found[1:]) for name, found in rates.items()}  # the first round warms up
    best = max(middle[f"lanes_{lanes}"] for lanes in LANES)
    whole = LANES[-1] * STEPS
    ours = compiling[LANES[-1]] + whole / middle[f"lanes_{LANES[-1]}"]
    ratios = {
        "over_sb3": best / middle["sb3"],
        "over_sb3_with_compile": whole / middle["sb3"] / ours,
        **{f"over_sb3_{lanes}": middle[f"lanes_{lanes}"] / middle["sb3"] for lanes in LANES},
        "over_published_purejaxrl": best / max(PUBLISHED["purejaxrl_8"], PUBLISHED["purejaxrl_32"]),
        "share_of_arithmetic_limit": best * FLOP / middle["bmm"],
    }
    if purejaxrl:
        ratios["over_purejaxrl"] = best / max(middle[f"purejaxrl_{lanes}"] for lanes in LANES)
    details = {"rates": middle, "compile_seconds": compiling, "rounds": rounds, "published": PUBLISHED}
    return ratios, details


def our_side(lanes: int) -> tuple[Callable[[], None], int, float]:
    """(what one round does, its environment steps, seconds of compiling)."""
    from agents.ppo import PPO, PPOConfig
    from harness.learner import Lanes
    from nets.lanes import Execution

    shape = {"n_envs": 4, "n_steps": 128, "epochs": 4, "batch": 128, "steps": STEPS}
    config = PPOConfig(lr=2.5e-4, lr_schedule="linear", clip=0.2, clip_value=0.2, **shape, **HYPER)
    learner = PPO()
    state = learner.start(Lanes((config,) * lanes, tuple(range(lanes)), Execution("compiled")))
    clocks = [time.perf_counter()]
    for _ in range(2):
        learner.advance(state)
        clocks.append(time.perf_counter())
    compiling = (clocks[1] - clocks[0]) - (clocks[2] - clocks[1])
    chunks = 256 // lanes

    def train() -> None:
        for _ in range(chunks):
            learner.advance(state)

    return train, chunks * lanes * learner.chunk, compiling


def sb3_side() -> tuple[Callable[[], None], int]:
    """stable-baselines3's PPO (its value loss is twice CleanRL's, as ours)."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    shape: dict[str, Any] = {"n_steps": 128, "batch_size": 128, "n_epochs": 4}
    model = PPO(
        "MlpPolicy", make_vec_env("CartPole-v1", n_envs=4, seed=0), learning_rate=lambda left: 2.5e-4 * left,
        clip_range=0.2, clip_range_vf=0.2, seed=0, device="cpu", **shape, **HYPER,
    )  # fmt: skip
    steps = 4 * 512
    return lambda: model.learn(steps, reset_num_timesteps=False) and None, steps


def purejaxrl_side(python: str, checkout: str, lanes: int) -> tuple[Callable[[], float], int]:
    """PureJaxRL's PPO, its CPU seconds measured in its own process."""
    command = [python, str(Path(__file__).with_name("purejaxrl.py")), checkout, str(lanes)]
    child: Any = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    note(f"PureJaxRL, {lanes} agents: compiled in {float(child.stdout.readline()):.1f} s")

    def train() -> float:
        print(file=child.stdin, flush=True)
        return float(child.stdout.readline())

    return train, lanes * PUREJAXRL_STEPS


def bmm_side() -> tuple[Callable[[], None], float]:
    """Products of the update's largest layer, forward."""
    import torch

    x, w, times = torch.randn(8, 128, 64), torch.randn(8, 64, 64), 1000

    def multiply() -> None:
        for _ in range(times):
            torch.bmm(x, w)

    return multiply, times * 2.0 * 8 * 128 * 64 * 64


if __name__ == "__main__":
    main()
