"""A training function for tests: counts, saves every ten steps, and is killed once where it is told to."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
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


class Tied(torch.nn.Module):
    """An embedding and an output layer that share a weight, and a buffer that is a view."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(5, 3)
        self.out = torch.nn.Linear(3, 5, bias=False)
        self.out.weight = self.embed.weight
        whole = torch.arange(4.0)
        self.register_buffer("whole", whole)
        self.register_buffer("part", whole[1:3])


def tied(run: Any) -> torch.nn.Module:
    """Saves one state under two names and returns a network with tied weights."""
    net = Tied()
    run.log(1, score=1.0)
    state = net.state_dict()
    run.checkpoint({"model": state, "best": state})
    return net


def unstorable(run: Any) -> torch.nn.Module:
    """Returns a network that no safetensors file can hold."""
    net = torch.nn.Linear(2, 1)
    net.register_buffer("wide", torch.zeros(2, dtype=torch.complex128))
    run.log(1, score=2.0)
    return net


def named(run: Any) -> None:
    """Logs one metric of any name and value."""
    run.log(1, **{"score": 1.0, run.config["metric"]: run.config.get("value", 1.0)})


def infinite(run: Any) -> None:
    """Keeps infinity and NaN in its state and logs them."""
    run.log(1, score=float("inf"))
    run.checkpoint({"best": float("inf"), "worst": float("nan"), "step": 1})
    run.log(2, score=float(run.config["last"]), other=float("-inf"))


def weights_alone(run: Any) -> dict[str, torch.Tensor]:
    """Returns a state dictionary instead of a module."""
    run.log(1, score=1.0)
    return torch.nn.Linear(2, 1).state_dict()


def logs(run: Any) -> None:
    """Logs a power of ten at one step."""
    kinds = {"int": int, "numpy": np.int64, "tensor": torch.tensor, "float": float}
    run.log(kinds[run.config["kind"]](run.config["step"]), score=10 ** run.config["power"])
