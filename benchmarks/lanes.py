"""Lanes against what they replace: one PPO-shaped update on one core (`benchmarks.update`), and whole trainings.

PPO on CartPole-v1, several seeds, 2 cores: lanes against pools of processes that train one seed each.

Sides, timed from the start of their processes (imports and compiling included) to the end of the last one:
  lanes    2 processes of K/2 lanes, compiled
  single   a pool of 2 processes, each training K/2 of our own single-lane trials one after another, in the
           mode that the harness picks for a single trial
  eager    the same with single trials run eagerly: what a machine without a C++ compiler does
  sb3      a pool of 2 processes, each training K/2 seeds with stable-baselines3 one after another
`lanes` and `single` are timed with an empty compile cache (cold) and with the one that this left (warm);
each side has its own cache, and cold is divided by cold, warm by warm. `lanes_over_pool` is warm, against the
faster of `single` and `sb3`.

All have CleanRL's and PureJaxRL's hyper-parameters (4 environments x 128 steps, 4 epochs x 4 minibatches, two
64-64 tanh networks) and one thread a process. `--quick` trains fewer steps in the pools: their seconds are
then computed from their rate in steps a second ("computed": true) plus start-up and compiling as measured.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

from benchmarks import update
from benchmarks.common import finish, note, parser

CONFIG: dict[str, Any] = {
    "n_envs": 4,
    "n_steps": 128,
    "epochs": 4,
    "batch": 128,
    "lr": 2.5e-4,
    "lr_schedule": "linear",
}
SHARED: dict[str, Any] = {
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "ent_coef": 0.01,
    "vf_coef": 0.5,
    "max_grad_norm": 0.5,
}


def main() -> None:
    """Measures all sides in turn and prints the ratios."""
    options = parser("lanes", __doc__)
    options.add_argument("--part", choices=("all", "update", "pool"), default="all", help="measure this alone")
    options.add_argument("--seeds", type=int, default=8)
    options.add_argument("--steps", type=int, default=500_000)
    options.add_argument("--repeat", type=int, default=1, help="repetitions, interleaved; medians are reported")
    options.add_argument("--side", help="internal: one process of one side, as JSON")
    args = options.parse_args()
    if args.side:
        print(json.dumps(run_side(**json.loads(args.side))))
        return
    ratios, details = {}, {}
    if args.part in ("all", "update"):
        updates = update.measure((8, 32), rounds=10 if args.quick else 20, processes=1 if args.quick else 5)
        ratios |= update.ratios_of(updates)
        details["update"] = updates
    if args.part in ("all", "pool"):
        sides = measure(args)
        ratios |= ratios_of(sides)
        details |= {"seeds": args.seeds, "steps": args.steps, **sides}
    finish("lanes", ratios, details, args)


def measure(args: Any) -> dict[str, dict[str, Any]]:
    """Seconds of every side: medians of interleaved repetitions."""
    short = {"sb3": args.steps // 50, "single": args.steps // 10, "eager": args.steps // 50} if args.quick else {}
    sides = ("lanes_cold", "lanes_warm", "single_cold", "single_warm", "eager", "sb3")
    rounds: list[dict[str, dict[str, Any]]] = []
    for _ in range(args.repeat):
        cache = tempfile.mkdtemp(prefix="seedbed-bench-")
        row = {}
        try:
            for side in sides:
                kind = side.partition("_")[0]
                folder = f"{cache}/{kind}"
                row[side] = pool(kind, args.seeds, args.steps, short.get(kind, args.steps), folder)
                note(f"{side}: {json.dumps(row[side])}")
        finally:
            shutil.rmtree(cache, ignore_errors=True)
        rounds.append(row)
    middle = {}
    for side in rounds[0]:
        ordered = sorted((r[side] for r in rounds), key=lambda one: one["seconds"])
        middle[side] = {**ordered[len(ordered) // 2]}
        middle[side]["seconds"] = statistics.median(one["seconds"] for one in ordered)
        middle[side]["all_seconds"] = [r[side]["seconds"] for r in rounds]
    return middle


def pool(side: str, seeds: int, steps: int, run_steps: int, cache: str) -> dict[str, Any]:
    """Runs one side in 2 processes; `run_steps` of the `steps` of a full training are really trained."""
    halves = [list(range(seeds))[i::2] for i in range(2)]
    env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    began = time.perf_counter()
    workers = []
    for half in halves:
        task = json.dumps({"side": side, "seeds": half, "steps": steps, "run_steps": run_steps})
        command = [sys.executable, "-m", "benchmarks.lanes", "--json", "--side", task]
        workers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, cwd=_root()))
    reports = []
    for worker in workers:
        output, _ = worker.communicate()
        if worker.returncode:
            raise SystemExit(f"a process of side {side} failed with status {worker.returncode}")
        reports.append(json.loads(output.splitlines()[-1]))
    wall = time.perf_counter() - began
    rate = sum(len(half) * run_steps / r["train_seconds"] for half, r in zip(halves, reports, strict=True))
    full = run_steps == steps
    trained = max(r["train_seconds"] for r in reports)
    computed = wall - trained + seeds * steps / rate  # start-up and compiling as measured
    return {
        "seconds": wall if full else computed,
        "computed": not full,
        "trained_steps": run_steps,
        "wall_seconds": wall,
        "steps_per_second": seeds * steps / (wall if full else computed),
        "steps_per_second_training_only": rate,
        "mode": reports[0]["mode"],
        "compile_seconds": [r["compile_seconds"] for r in reports],
        "mean_return": statistics.mean(v for r in reports for v in r["returns"]),
    }


def ratios_of(sides: dict[str, dict[str, Any]]) -> dict[str, float]:
    """How many times longer the faster pool takes."""
    seconds = {side: row["seconds"] for side, row in sides.items()}
    out = {}
    for heat in ("cold", "warm"):
        pools = {"single": seconds[f"single_{heat}"], "eager": seconds["eager"], "sb3": seconds["sb3"]}
        lanes = seconds[f"lanes_{heat}"]
        out[f"lanes_over_pool_{heat}"] = min(pools["single"], pools["sb3"]) / lanes
        out |= {f"lanes_over_{name}_{heat}": value / lanes for name, value in pools.items()}
    return {"lanes_over_pool": out["lanes_over_pool_warm"], **out}


def run_side(side: str, seeds: list[int], steps: int, run_steps: int) -> dict[str, Any]:
    """One process of one side."""
    import torch

    torch.set_num_threads(1)
    if side == "sb3":
        return run_sb3(seeds, run_steps)
    cohorts = [seeds] if side == "lanes" else [[seed] for seed in seeds]
    reports = [run_ours(cohort, steps, run_steps, side) for cohort in cohorts]
    return {
        "train_seconds": sum(r["train_seconds"] for r in reports),
        "compile_seconds": sum(r["compile_seconds"] for r in reports),
        "returns": [v for r in reports for v in r["returns"]],
        "mode": reports[0]["mode"],
    }


def run_ours(seeds: list[int], steps: int, run_steps: int, side: str) -> dict[str, Any]:
    """One cohort of our PPO; the first chunk counts as compiling, less the time of a usual chunk."""
    from agents.ppo import PPO, PPOConfig
    from harness.learner import Lanes
    from nets.lanes import Execution, choose_mode

    config = PPOConfig(steps=steps, **CONFIG, **SHARED)
    modes: dict[str, Literal["auto", "eager", "compiled"]]
    modes = {"lanes": "compiled", "single": "auto", "eager": "eager"}
    mode, _ = choose_mode(modes[side], PPO.work(config, len(seeds)))
    began = time.perf_counter()
    learner = PPO()
    state = learner.start(Lanes((config,) * len(seeds), tuple(seeds), Execution(mode)))
    metrics = learner.advance(state)
    first = time.perf_counter()
    chunks = -(-run_steps // learner.chunk)
    for _ in range(chunks - 1):
        metrics = learner.advance(state)
    rest = time.perf_counter() - first
    usual = rest / (chunks - 1)
    return {
        "train_seconds": rest + usual,
        "compile_seconds": max(first - began - usual, 0.0),
        "returns": metrics["return"].tolist(),
        "mode": mode,
    }


def run_sb3(seeds: list[int], steps: int) -> dict[str, Any]:
    """stable-baselines3's PPO with the same hyper-parameters, one seed after another."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    returns, seconds = [], 0.0
    for seed in seeds:
        began = time.perf_counter()
        model = PPO(
            "MlpPolicy",
            make_vec_env("CartPole-v1", n_envs=CONFIG["n_envs"], seed=seed),
            n_steps=CONFIG["n_steps"],
            batch_size=CONFIG["batch"],
            n_epochs=CONFIG["epochs"],
            learning_rate=lambda left: CONFIG["lr"] * left,
            clip_range=0.2,
            policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}},
            device="cpu",
            seed=seed,
            **SHARED,
        )
        model.learn(steps)
        seconds += time.perf_counter() - began
        recent = [episode["r"] for episode in model.ep_info_buffer or ()]
        returns.append(statistics.mean(recent))
    return {"train_seconds": seconds, "compile_seconds": 0.0, "returns": returns, "mode": "stable-baselines3"}


def _root() -> Path:
    return Path(__file__).parents[1]


if __name__ == "__main__":
    main()
