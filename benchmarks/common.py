"""What every benchmark shares.

`python -m benchmarks.NAME [--quick] --json`: progress on standard error, one JSON line last.

options = parse("lanes", __doc__)
note("measuring ...")
finish("lanes", {"ratio": 4.2}, {"seconds": 1.0}, options)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.results import Results

__all__ = ["cell", "commit", "finish", "machine", "note", "parse", "parser", "share_outside", "trained"]


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks have; a benchmark may add its own."""
    options = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    options.add_argument("--quick", action="store_true", help="less work: ends within 5 minutes on 2 cores")
    options.add_argument("--json", action="store_true", help="print only the one JSON line on standard output")
    return options


def parse(name: str, description: str | None) -> argparse.Namespace:
    """Parses the command line of a benchmark without options of its own."""
    return parser(name, description).parse_args()


def trained(name: str, root: str) -> Results:
    """The results of an experiment, for benchmarks that only read; ends with one sentence where there are none.

    Args:
        name: the experiment's.
        root: the run root.
    """
    import harness

    try:
        return harness.load(name, root)
    except (FileNotFoundError, KeyError):
        sys.exit(f"{root}: no experiment {name} was run there; first `seedbed run` its file in experiments")


def share_outside(learner: Any, text: str) -> float:
    """Of a run through the driver, one process, the share of CPU time outside the learner's methods.

    Args:
        learner: the class that trains.
        text: of the experiment file.
    """
    from harness.driver import Driver
    from harness.executors.inline import InlineExecutor
    from harness.experiment import load_experiment

    inside = [0.0]

    def timed(method: Callable) -> Callable:
        def call(*args: Any, **options: Any) -> Any:
            began = time.process_time()
            try:
                return method(*args, **options)
            finally:
                inside[0] += time.process_time() - began

        return call

    methods = {name: getattr(learner, name) for name in ("start", "advance", "evaluate", "media", "network")}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "one.yaml"
        file.write_text(text)
        experiment = load_experiment(file)  # reads the data: not timed
        try:
            for name, function in methods.items():
                setattr(learner, name, timed(function))
            began = time.process_time()
            outcome = Driver(experiment, Path(folder) / "runs", executor=InlineExecutor(), workers=1).train()
            total = time.process_time() - began
        finally:
            for name, function in methods.items():
                setattr(learner, name, function)
    assert {t["state"] for t in outcome.trials} == {"done"}, outcome
    return 1 - inside[0] / total


def note(text: str) -> None:
    """A line of progress on standard error."""
    print(text, file=sys.stderr, flush=True)


def finish(name: str, ratios: Mapping[str, float], details: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Prints the result; its last line is one JSON object."""
    if not options.json:
        for key, value in ratios.items():
            print(f"{key:>40} {value:8.2f}")
    result = {
        "benchmark": name,
        "ratios": {key: round(float(value), 3) for key, value in ratios.items()},
        "details": {"quick": bool(options.quick), **details},
        "machine": machine(),
        "commit": commit(),
    }
    print(json.dumps(result, allow_nan=False), flush=True)


def cell(values: Sequence[float]) -> str:
    """A cell of a table: the mean over seeds +- half its 95 % interval; empty without a value."""
    from harness.statistics import summarise

    if not values:
        return ""
    found = summarise(values)
    half = "" if found.low is None or found.high is None else f" +- {(found.high - found.low) / 2:.3f}"
    return f"{found.mean:.3f}{half}"


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores, load before anything else ran here, versions."""
    versions: dict[str, str | None] = {}
    for package in ("torch", "numpy", "gymnasium", "stable-baselines3", "ray", "prefect", "wandb"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def commit() -> str | None:
    """The commit of the working tree, with "+" where files differ from it; None outside git."""
    try:
        return _git("rev-parse", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*args: str) -> str:
    here = Path(__file__).parent
    done = subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the platform's own word below
    return platform.processor() or platform.machine()
