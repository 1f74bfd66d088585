"""A training function for tests: counts, saves every ten steps, and is killed once where it is told to."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch


def train(run: Any) -> torch.nn.Module:
    """Counts to `steps`; writes every start to `starts`."""
    net = torch.nn.Linear(2, 1)
    begin = 0
    saved = run.restore()
    if saved:
        begin = saved["step"]
        net.load_state_dict(saved["net"])
    with open(run.config["starts"], "a") as file:
        file.write(f"{run.seed} {begin}\n")
    marker = Path(run.config["starts"] + ".killed")
    for step in range(begin + 1, run.config["steps"] + 1):
        with torch.no_grad():
            net.weight += step * 0.01
        if step == run.config.get("die_at") and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if step == run.config.get("raise_at"):
            raise RuntimeError("told to raise")
        run.log(step, score=float(step), loss=1.0 / step)
        if step % 10 == 0:
            run.checkpoint({"step": step, "net": net.state_dict()})
    return net


def silent(run: Any) -> None:
    """Never logs its score."""
    run.log(1, loss=0.5)
