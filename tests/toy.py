"""A learner for tests: a line is fitted by noisy gradient steps; it fails, diverges or dies where it is told to."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch
from pydantic import Field
from torch import nn

from harness.learner import LaneError, Lanes, Learner, State
from harness.spec import LearnerConfig, PerLaneFloat, Score
from tests.faults.points import install_from_environment

install_from_environment()


class ToyConfig(LearnerConfig):
    """Configuration of the toy."""

    steps: int = Field(100, ge=1, description="updates")
    lr: PerLaneFloat = Field(0.1, ge=0, description="learning rate")
    width: int = Field(3, ge=1, description="number of weights")
    patience: int = Field(0, ge=0, description="evaluations without a better score before the lane ends")
    nan_at: PerLaneFloat = Field(-1.0, description="update at which the weights become NaN")
    lane_error_at: PerLaneFloat = Field(-1.0, description="update at which the lane says that it cannot go on")
    error_at: PerLaneFloat = Field(-1.0, description="update at which the whole cohort raises")
    die_at: int = Field(-1, description="update at which the process is killed, once for each file of `die_once`")
    die_once: str = Field("", description="file that marks that the process has died already")
    sleep: float = Field(0.0, ge=0, description="seconds an update takes")

    @property
    def budget(self) -> int:
        return self.steps


class Toy(Learner):
    """w moves towards 1 with noise of its own."""

    Config = ToyConfig
    unit = "steps"
    score = Score("closeness", "max", worst=-1e9)

    def start(self, lanes: Lanes) -> State:
        self.lanes, self.chunk = lanes, 1
        self.lr = lanes.per_lane("lr")[:, None]

        def step(w: torch.Tensor, lr: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
            return w - lr * (w - 1.0 + noise)

        self.step = lanes.execution.each(step)
        count, width = len(lanes), lanes.config.width
        return {
            "w": lanes.noise("toy/init", 0, (width,)),
            "progress": torch.zeros(count, dtype=torch.int64),
            "alive": torch.ones(count, dtype=torch.bool),
        }

    def advance(self, state: State) -> dict[str, torch.Tensor]:
        config = self.lanes.config
        at = int(state["progress"][0]) + 1
        time.sleep(config.sleep)
        if at == config.die_at and not Path(config.die_once).exists():
            Path(config.die_once).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        bad = [k for k, c in enumerate(self.lanes.configs) if c.lane_error_at == at]
        if bad:
            raise LaneError(bad, "told to")
        if any(c.error_at == at for c in self.lanes.configs):
            raise RuntimeError("told to raise")
        noise = self.lanes.noise("toy/step", at, (config.width,))
        new = self.step(state["w"], self.lr, noise)
        new[self.lanes.per_lane("nan_at") == at] = float("nan")
        state["w"] = torch.where(state["alive"][:, None], new, state["w"])
        state["progress"] += 1
        return {"distance": (state["w"] - 1).abs().mean(1)}

    def evaluate(self, state: State) -> dict[str, torch.Tensor]:
        return {"closeness": -(state["w"] - 1).abs().mean(1)}

    def network(self, state: State, lane: int) -> nn.Module:
        net = nn.Linear(self.lanes.config.width, 1, bias=False)
        net.load_state_dict({"weight": state["w"][lane][None].clone()})
        return net
