"""The command, run as a process of its own on a small experiment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TRAIN = """
import time

def train(run):
    n = run.config["n"]
    saved = run.restore() or {"step": 0}
    for step in range(saved["step"] + 1, n + 1):
        time.sleep(run.config["sleep"])
        run.log(step, score=step / n + run.seed)
        if step % 5 == 0:
            run.checkpoint({"step": step})
"""
FILE = """
name: small
seeds: {seeds}
trials:
  - {{learner: function, call: "flows_test_train:train", steps: {n}, config: {{n: {n}, sleep: {sleep}}}}}
"""


@pytest.fixture
def write_experiment(tmp_path: Path) -> Callable[..., Path]:
    """Writes an experiment of the user's function: `n` steps of `sleep` seconds, `seeds` trials."""

    def write(n: int = 5, sleep: float = 0.02, seeds: int = 2) -> Path:
        folder = tmp_path / "project"
        folder.mkdir(exist_ok=True)
        (folder / "flows_test_train.py").write_text(TRAIN)
        file = folder / "small.yaml"
        file.write_text(FILE.format(n=n, sleep=sleep, seeds=seeds))
        return file

    return write


def command(*arguments: str | Path) -> list[str]:
    """The command line of `seedbed`."""
    return [sys.executable, "-m", "flows.cli", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """The test's environment, with our packages importable from anywhere."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "200", **more}


def seedbed(*arguments: str | Path, timeout: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=timeout, cwd=ROOT, env=environment(**env)
    )


def last_json(text: str) -> dict[str, Any]:
    """The JSON object of the last line."""
    return json.loads(text.strip().splitlines()[-1])


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command and leaves it running; killed at the end of the test if it still does."""
    running: list[subprocess.Popen[str]] = []

    def begin(*arguments: str | Path, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=environment(**env),
            start_new_session=True,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def read_until(process: subprocess.Popen[str], part: str) -> list[str]:
    """Lines of a running command up to the first that holds `part`; fails if it never comes."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if part in line:
            return lines
    raise AssertionError(f"{part!r} never came:\n" + "".join(lines))
