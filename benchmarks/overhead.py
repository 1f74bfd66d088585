"""What orchestration costs: 20 trials that do nothing, beside Ray Tune, in one run.

Both sides find Ray up and their workers warm; both keep their actors. Ours writes the ledger, run folders, metrics and
results as always (tracker: files alone); Tune runs with `reuse_actors=True` and its loggers off. Repetitions are
interleaved, figures are medians.

`--part own` measures our side alone, in CPU time, which a loaded machine does not change: the same 20 trials in the
driver's own process, and the share of a whole run of eight lanes (a ring GAN, 640,000 images, eager, as few seconds
of training are) that is spent outside the learner.

    python -m benchmarks.overhead [--quick] [--part own] --json
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TRIALS = 20


def nothing(run: Any) -> None:
    """A training function that does nothing but report its score."""
    run.log(1, score=float(run.seed))


def seedbed_seconds(executor: Any, folder: Path, turn: int) -> float:
    """Seconds for an experiment of 20 trials that are new to the ledger."""
    from harness.driver import Driver
    from harness.experiment import load_experiment

    file = folder / f"turn{turn}.yaml"
    first = TRIALS * turn
    seeds = list(range(first, first + TRIALS))
    call = "{learner: function, call: 'benchmarks.overhead:nothing'}"
    file.write_text(f"name: turn{turn}\nseeds: {seeds}\ntrials: [{call}]\n")
    began = time.perf_counter()
    outcome = Driver(load_experiment(file), folder / "runs", executor=executor, workers=2).train()
    seconds = time.perf_counter() - began
    assert [t["state"] for t in outcome.trials] == ["done"] * TRIALS, outcome
    assert [t["score"] for t in outcome.trials] == [float(s) for s in seeds]
    return seconds


def own_seconds(folder: Path, turn: int) -> float:
    """CPU seconds for 20 trials in this process."""
    began = time.process_time()
    seedbed_seconds("inline", folder, turn)
    return time.process_time() - began


def measure_own(options: Any) -> None:
    """Measures our side alone."""
    from benchmarks.common import finish, note, share_outside
    from generative.gan import GAN

    with tempfile.TemporaryDirectory() as name:
        own_seconds(Path(name), 0)  # imports
        trials = [own_seconds(Path(name), turn) for turn in range(1, 4 if options.quick else 8)]
    note(f"CPU seconds of {TRIALS} trials: {[round(seconds, 3) for seconds in trials]}")
    images = 160_000 if options.quick else 640_000
    text = f"name: ring\nseeds: 8\ntrials: [{{learner: gan, images: {images}, resources: {{mode: eager}}}}]\n"
    shares = [share_outside(GAN, text) for _ in range(1 if options.quick else 3)]
    milliseconds = 1e3 * statistics.median(trials) / TRIALS
    ratios = {"cpu_milliseconds_per_trial": milliseconds, "harness_share": statistics.median(shares)}
    finish("overhead", ratios, {"cpu_seconds": trials, "shares": shares, "images": images}, options)


def tune_seconds(folder: Path) -> float:
    """Seconds for Ray Tune's 20 trials."""
    from ray import tune

    class Nothing(tune.Trainable):
        def step(self) -> dict[str, Any]:
            return {"score": self.config["seed"], "done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.config = new_config
            return True

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            return None

        def load_checkpoint(self, checkpoint: Any) -> None:
            return None

    tuner = tune.Tuner(
        tune.with_resources(Nothing, {"cpu": 1}),
        param_space={"seed": tune.grid_search(list(range(TRIALS)))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    began = time.perf_counter()
    results = tuner.fit()
    seconds = time.perf_counter() - began
    assert len(results) == TRIALS
    assert not results.errors
    return seconds


def main() -> None:
    """Measures both sides in turn."""
    from benchmarks.common import finish, note, parser

    arguments = parser("overhead", __doc__)
    arguments.add_argument("--part", choices=("both", "own"), default="both", help="own: our side alone, in CPU time")
    options = arguments.parse_args()
    if options.part == "own":
        measure_own(options)
        return
    import ray

    from harness.executors.ray import RayExecutor

    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    ours: list[float] = []
    tune: list[float] = []
    # four logical CPUs on both sides' two real ones: our two actors keep theirs while Tune uses the other two
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    executor = RayExecutor()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            seedbed_seconds(executor, folder, 0)  # starts Ray, workers import torch
            tune_seconds(folder / "tune")
            for turn in range(1, 3 if options.quick else 6):
                ours.append(seedbed_seconds(executor, folder, turn))
                tune.append(tune_seconds(folder / f"tune{turn}"))
                note(f"turn {turn}: seedbed {ours[-1]:.3f} s, tune {tune[-1]:.3f} s")
        finally:
            executor.stop()
            ray.shutdown()
    seconds, peer = statistics.median(ours), statistics.median(tune)
    finish(
        "overhead",
        {"tune_over_seedbed": peer / seconds},
        {
            "trials": TRIALS,
            "seedbed_seconds": ours,
            "tune_seconds": tune,
            "seedbed_milliseconds_per_trial": 1e3 * seconds / TRIALS,
            "tune_milliseconds_per_trial": 1e3 * peer / TRIALS,
        },
        options,
    )


if __name__ == "__main__":
    sys.exit(main())
