"""Nodes of somebody's Ray cluster die: the run goes on elsewhere, or ends with the reason, within 90 seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.flows.conftest import ROOT, command, environment

TRAIN = """
import time
def train(run):
    step = (run.restore() or {"step": 0})["step"]
    while step < 300:
        time.sleep(0.1)
        step += 1
        run.log(step, score=float(step))
        if step % 5 == 0:
            run.checkpoint({"step": step})
"""
TEXT = "name: e\ntrials: [{learner: function, call: 'lost_train:train', steps: 300, seeds: 2}]\n"


@contextmanager
def cluster(nodes: int, env: dict[str, str]) -> Iterator[dict[str, Any]]:
    """A cluster of a head that takes no work, and of nodes with one CPU each."""
    line = [sys.executable, "-m", "tests.faults.cluster", str(nodes)]
    process = subprocess.Popen(
        line, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    family = [psutil.Process(process.pid)]
    try:
        found = json.loads(process.stdout.readline())
        family += family[0].children(recursive=True)
        yield found
    finally:
        for one in family:
            with suppress(psutil.Error):
                one.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["one of two nodes", "the last node", "the head"])
def test_a_lost_node(tmp_path: Path, case: str):
    env = environment(HOME=str(tmp_path), RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="a" * 64)
    (tmp_path / "lost_train.py").write_text(TRAIN)
    (tmp_path / "e.yaml").write_text(TEXT)
    root = tmp_path / "runs"
    with cluster(1 if case == "the last node" else 2, env) as ray:
        options = ["--root", root, "--no-prefect", "--tracker", "files", "--executor", "ray"]
        line = command("run", tmp_path / "e.yaml", *options, "--ray-address", ray["address"])
        with (tmp_path / "out").open("w") as out:
            run = subprocess.Popen(line, cwd=tmp_path, env=env, stdout=out, stderr=subprocess.STDOUT)
        end = time.monotonic() + 120
        while not list(root.glob("cohorts/*/ckpt-*")) and time.monotonic() < end:
            time.sleep(0.1)
        for pid in ray["head"] if case == "the head" else ray["nodes"][0]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        code = run.wait(90 + (90 if case == "one of two nodes" else 0))
    text = (tmp_path / "out").read_text()
    assert "Traceback" not in text
    if case == "one of two nodes":
        assert code == 0, text
    else:
        assert code == 130, text
        again = subprocess.run(
            command("run", tmp_path / "e.yaml", *options[:5], "--executor", "inline"),
            cwd=tmp_path,
            env=env,
            capture_output=True,
            timeout=200,
            check=False,
        )
        assert again.returncode == 0, again.stderr
    for file in root.glob("trials/*/metrics.jsonl"):
        assert [json.loads(row)["progress"] for row in file.read_text().splitlines()] == list(range(1, 301))
