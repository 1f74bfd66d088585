"""A2C, DQN and SAC beside stable-baselines3's: environment steps of training per CPU second, one thread a process.

`python -m benchmarks.agents [--quick] [--algos a2c,dqn,sac] [--json]`. Both sides have the tuned settings of
rl-baselines3-zoo (below, without gSDE), the same networks and the same number of gradient steps per environment step.
Every side runs in a process of its own, rounds are interleaved, medians are reported. The rate leaves out start-up and
the first pieces of training, in which our functions are compiled; `compile_seconds` is what that took with an empty
cache, and `*_with_compile` the ratio over a whole training of `steps` environment steps a lane with it.
`--lanes 1,8,64,512 --device cuda` measures how the wall time grows with lanes on a GPU.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import finish, note, parser

# algorithm -> our configuration, SB3's, lanes, environment steps (of one lane; of SB3) measured, and a whole training
SIDES: dict[str, dict[str, Any]] = {
    "a2c": {
        "ours": {"env": "CartPole-v1", "n_envs": 8, "steps": 500_000},
        "env": "CartPole-v1",
        "n_envs": 8,
        "sb3": {"ent_coef": 0.0},
        "lanes": 32,
        "measured": (16_000, 24_000),
        "training": 500_000,
    },
    "dqn": {
        "ours": {
            "env": "CartPole-v1",
            "steps": 50_000,
            "lr": 2.3e-3,
            "batch": 64,
            "buffer_size": 100_000,
            "learning_starts": 1000,
            "gamma": 0.99,
            "target_update_interval": 10,
            "train_freq": 256,
            "gradient_steps": 128,
            "exploration_fraction": 0.16,
            "exploration_final_eps": 0.04,
            "net": {"kind": "mlp", "hidden_features": [256, 256]},
        },
        "env": "CartPole-v1",
        "n_envs": 1,
        "sb3": {
            "learning_rate": 2.3e-3,
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1000,
            "gamma": 0.99,
            "target_update_interval": 10,
            "train_freq": 256,
            "gradient_steps": 128,
            "exploration_fraction": 0.16,
            "exploration_final_eps": 0.04,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
        "lanes": 8,
        "measured": (4_096, 4_096),
        "training": 50_000,
    },
    "sac": {
        "ours": {"env": "Pendulum-v1", "steps": 20_000, "lr": 1e-3},
        "env": "Pendulum-v1",
        "n_envs": 1,
        "sb3": {"learning_rate": 1e-3},
        "lanes": 8,
        "measured": (256, 512),
        "training": 20_000,
    },
}
WARM = {"a2c": 4_000, "dqn": 2_048, "sac": 320}  # environment steps before the clock starts


def main() -> None:
    """Measures all sides in turn and prints the ratios."""
    options = parser("agents", __doc__)
    options.add_argument("--algos", default="a2c,dqn,sac")
    options.add_argument("--lanes", default="", help="numbers of lanes to measure ours with, instead of the usual one")
    options.add_argument("--device", default="cpu")
    options.add_argument("--side", help="internal: one process of one side, as JSON")
    args = options.parse_args()
    if args.side:
        print(json.dumps(run_side(**json.loads(args.side))))
        return
    ratios: dict[str, float] = {}
    details: dict[str, Any] = {}
    for algo in args.algos.split(","):
        counts = [int(n) for n in args.lanes.split(",") if n] or [SIDES[algo]["lanes"]]
        found = measure(algo, counts, args.device, rounds=1 if args.quick else 3)
        details[algo] = found
        best = max(side["rate"] for name, side in found.items() if name != "sb3")
        ratios[f"{algo}_over_sb3"] = best / found["sb3"]["rate"]
        steps = SIDES[algo]["training"]
        whole = max(
            side["lanes"] * steps / (side["compile_seconds"] + side["lanes"] * steps / side["rate"])
            for name, side in found.items()
            if name != "sb3"
        )
        ratios[f"{algo}_over_sb3_with_compile"] = whole / found["sb3"]["rate"]
    finish("agents", ratios, details, args)


def measure(algo: str, counts: list[int], device: str, rounds: int) -> dict[str, dict[str, Any]]:
    """Side -> {"rate": environment steps of all lanes per second, ...}, medians of interleaved rounds."""
    rows: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="seedbed-bench-") as cache:
        for _ in range(rounds):
            for lanes in counts:
                task = {"algo": algo, "lanes": lanes, "device": device}
                rows.setdefault(f"{lanes} lanes", []).append(start_side(task, cache))
            rows.setdefault("sb3", []).append(start_side({"algo": algo, "lanes": 0, "device": device}, cache))
            note(f"{algo}: " + json.dumps({name: found[-1] for name, found in rows.items()}))
    middle = {}
    for name, found in rows.items():
        middle[name] = {**found[0], "rate": statistics.median(row["rate"] for row in found)}
        middle[name]["rates"] = [row["rate"] for row in found]
    return middle  # compile_seconds are those of the first round, whose cache was empty


def start_side(task: dict[str, Any], cache: str) -> dict[str, Any]:
    """Runs one side in a process of its own."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    env = {**os.environ, **threads, "TORCHINDUCTOR_CACHE_DIR": cache}
    command = [sys.executable, "-m", "benchmarks.agents", "--json", "--side", json.dumps(task)]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, cwd=_root(), check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_side(algo: str, lanes: int, device: str) -> dict[str, Any]:
    """One side in this process; `lanes` 0 is stable-baselines3."""
    import torch

    torch.set_num_threads(1)
    return run_ours(algo, lanes, device) if lanes else run_sb3(algo, device)


def run_ours(algo: str, lanes: int, device: str) -> dict[str, Any]:
    """Our lanes, compiled."""
    from harness.learner import Lanes, learner_class, progress_of
    from nets.lanes import Execution

    side = SIDES[algo]
    learner = learner_class(algo)()
    execution = Execution("compiled", device)
    config = learner.Config(**side["ours"])
    began = time.perf_counter()
    state = learner.start(Lanes((config,) * lanes, tuple(range(lanes)), execution))
    while progress_of(state) < WARM[algo] + getattr(config, "learning_starts", 0):
        learner.advance(state)
    warm, first = time.perf_counter() - began, progress_of(state)
    goal = first + side["measured"][0]

    def train() -> None:
        while progress_of(state) < goal:
            learner.advance(state)

    seconds = execution.seconds(train)
    rate = (progress_of(state) - first) * lanes / seconds
    return {"lanes": lanes, "rate": rate, "seconds": seconds, "compile_seconds": max(0.0, warm - first * lanes / rate)}


def run_sb3(algo: str, device: str) -> dict[str, Any]:
    """stable-baselines3, driven by its own `learn`."""
    import stable_baselines3
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    side = SIDES[algo]
    first = WARM[algo] + side["sb3"].get("learning_starts", 100)
    clock: dict[str, tuple[int, float]] = {}

    class Clock(BaseCallback):
        """Notes the time of the first and of the last step that counts."""

        def _on_step(self) -> bool:
            if self.num_timesteps >= first:
                clock.setdefault("began", (self.num_timesteps, time.process_time()))
            clock["now"] = (self.num_timesteps, time.process_time())
            return True

    env = make_vec_env(side["env"], side["n_envs"], seed=0)
    model = getattr(stable_baselines3, algo.upper())("MlpPolicy", env, seed=0, device=device, **side["sb3"])
    model.learn(first + side["measured"][1], callback=Clock())
    steps, seconds = (clock["now"][k] - clock["began"][k] for k in (0, 1))
    return {"lanes": 0, "rate": steps / seconds, "seconds": seconds, "compile_seconds": 0.0}


def _root() -> Path:
    return Path(__file__).parents[1]


if __name__ == "__main__":
    main()
