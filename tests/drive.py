"""Drives an experiment with the toy learner from a process of its own: `python -m tests.drive FILE ROOT EXECUTOR`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from harness.driver import Driver
from harness.experiment import load_experiment
from harness.learner import BUILTIN

BUILTIN["toy"] = "tests.toy:Toy"


def main(file: str, root: str, executor: str) -> int:
    """Runs the experiment and prints every event as a line of JSON."""
    events = Driver(
        load_experiment(Path(file)), Path(root), executor=executor, on_event=lambda e: print(json.dumps(e), flush=True)
    )
    return events.train().exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
