"""`learner: function`: a user's own training function as a trial, with ledger, retries, W&B and statistics for free.

The function gets a small handle and keeps its own loop. It runs in a thread of the worker and hands over at its
checkpoints, so that what it logged and what it saved are committed together.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import nn

from harness.function_target import load_target
from harness.learner import Lanes, Learner, State
from harness.metric_names import check_metric_names
from harness.spec import LearnerConfig, Score

__all__ = ["FunctionConfig", "FunctionLearner", "Run", "Stopped"]

HAND_OVER_SECONDS = 1.0


class Stopped(BaseException):
    """Unwinds the user's function when its trial lets go."""


class FunctionConfig(LearnerConfig):
    """Configuration of a user's own training function."""

    call: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="the function, as package.module:name")
    config: dict[str, Any] = Field(default_factory=dict, description="the function's own settings, `run.config`")
    steps: int = Field(1, ge=1, description="how far it trains, in its own steps; for progress and time left")
    score: str = Field("score", description="logged metric that is the headline")
    direction: Literal["max", "min"] = Field("max", description="whether more or less of it is better")

    @field_validator("score")
    @classmethod
    def _nameable(cls, score: str) -> str:
        check_metric_names([score], score)
        return score

    @property
    def budget(self) -> int:
        """The function's own steps."""
        return self.steps


class Run:
    """The handle that a training function gets.

    Attributes:
        config: the trial's settings.
        seed: the trial's seed.
    """

    def __init__(self, config: Mapping[str, Any], seed: int, saved: Any, exchange: _Exchange) -> None:
        self.config = dict(config)
        self.seed = seed
        self._saved = saved
        self._exchange = exchange

    def log(self, step: int, **metrics: float) -> None:
        """Logs numbers at a step; steps must rise.

        Raises:
            ValueError: the step is not a whole number or does not rise, or a name is the harness's own (`progress`,
                `seconds`, `_step`, ...).
            TypeError: a value is not one number.
        """
        check_metric_names(metrics, self._exchange.headline)
        self._exchange.log(_whole(step), {name: _number(name, value) for name, value in metrics.items()})

    def checkpoint(self, tree: Any) -> None:
        """Saves a tree (nested dicts and lists of tensors, arrays, numbers, strings): a retried trial gets it back."""
        self._exchange.checkpoint(tree)

    def restore(self) -> Any:
        """What the last checkpoint held, or None at the start."""
        return self._saved

    @property
    def should_stop(self) -> bool:
        """Whether the trial should save and return."""
        return self._exchange.letting_go


def _whole(step: Any) -> int:
    try:
        number = int(step)
        if number == step:
            return number
    except (TypeError, ValueError, OverflowError, RuntimeError):
        pass
    raise ValueError(f"run.log: a step is a whole number; got {step!r}")


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"run.log: `{name}` is a whole number beyond 1.8e308; log its logarithm, or less") from None
    except (TypeError, ValueError, RuntimeError):
        kind = type(value).__name__
        raise TypeError(f"run.log: `{name}` is a {kind} that is not one number; log {name}=float(...)") from None


class _Exchange:
    """Hands control back and forth between the worker and the user's thread: only one of them runs at a time."""

    def __init__(self, headline: str) -> None:
        self.headline = headline
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.scores: dict[str, float] = {}
        self.saved: Any = None
        self.save_due = False
        self.step = 0
        self.finished = False
        self.letting_go = False
        self.error: BaseException | None = None
        self.result: Any = None
        self._user = threading.Semaphore(0)
        self._worker = threading.Semaphore(0)
        self._handed_over = time.monotonic()

    def run(self, function: Callable[[Run], Any], run: Run) -> None:
        """The user's thread."""
        self._user.acquire()
        try:
            if not self.letting_go:
                self.result = function(run)
        except Stopped:
            pass
        except BaseException as error:  # carried to the worker, which reports it
            self.error = error
        self.finished = True
        self._worker.release()

    def resume(self) -> None:
        """The worker's side: lets the user's thread run until it hands over."""
        self._handed_over = time.monotonic()
        self._user.release()
        self._worker.acquire()

    def _hand_over(self) -> None:
        self._worker.release()
        self._user.acquire()
        if self.letting_go:
            raise Stopped

    def log(self, step: int, metrics: dict[str, float]) -> None:
        if step <= self.step:
            raise ValueError(f"run.log: steps must rise; got {step} after {self.step}")
        self.step = step
        self.lines.append((step, metrics))
        self.scores.update(metrics)
        if time.monotonic() - self._handed_over > HAND_OVER_SECONDS:
            self._hand_over()

    def checkpoint(self, tree: Any) -> None:
        self.saved, self.save_due = tree, True
        self._hand_over()


class FunctionLearner(Learner):
    """Trains one trial with a user's function; K = 1."""

    Config = FunctionConfig
    unit = "steps"
    score = Score("score", "max", worst=-1e30)
    foreign = True
    paced = True

    @classmethod
    def score_of(cls, config: FunctionConfig) -> Score:
        """The metric that the configuration names."""
        return Score(config.score, config.direction, worst=-1e30 if config.direction == "max" else 1e30)

    @classmethod
    def check(cls, config: FunctionConfig) -> None:
        """Imports the function.

        Raises:
            ValueError: it cannot be imported or called; names the file and line.
        """
        try:
            load_target(config.call)
        except ValueError as error:
            raise ValueError(f"call: {error}") from None

    def start(self, lanes: Lanes) -> State:
        """Imports the function; it begins to run at the first `advance`."""
        self.lanes = lanes
        config: FunctionConfig = lanes.config
        self._function = load_target(config.call)
        self._thread: threading.Thread | None = None
        self._exchange = _Exchange(config.score)
        self._saved: Any = None
        return {"progress": torch.zeros(1, dtype=torch.int64)}

    def advance(self, state: State) -> dict[str, torch.Tensor]:
        """Lets the function run until it checkpoints, a second has passed at a log call, or it returns."""
        exchange = self._exchange
        if self._thread is None:
            torch.manual_seed(self.lanes.seeds[0])
            run = Run(self.lanes.config.config, self.lanes.seeds[0], self._saved, exchange)
            self._thread = threading.Thread(target=exchange.run, args=(self._function, run), daemon=True)
            self._thread.start()
        exchange.resume()
        if isinstance(exchange.error, Exception):
            raise exchange.error
        if exchange.error is not None:  # SystemExit and the like must not end the worker
            raise RuntimeError(f"the function ended with {type(exchange.error).__name__}") from exchange.error
        state["progress"][0] = exchange.step
        return {}

    @property
    def finished(self) -> bool:
        """Whether the function returned."""
        return self._exchange.finished

    def due(self, what: str) -> bool:
        """A checkpoint is due when the function asked for one, the evaluation when it returned."""
        return self._exchange.save_due if what == "checkpoint" else self.finished

    def drain(self) -> list[tuple[int, dict[str, float]]]:
        """The lines logged since the last call."""
        lines, self._exchange.lines = self._exchange.lines, []
        return lines

    def evaluate(self, state: State) -> dict[str, torch.Tensor]:
        """The newest value of every logged metric.

        Raises:
            ValueError: the function returned without logging its score.
        """
        scores, name = self._exchange.scores, self.lanes.config.score
        if name not in scores:
            mend = f"call run.log(step, {name}=...)"
            raise ValueError(f"the function returned without logging its score `{name}`; {mend}")
        result = self._exchange.result
        if not (result is None or isinstance(result, nn.Module)):
            mend = "return an nn.Module to have its weights in final.safetensors, or None"
            self.notes.append(f"the function returned a {type(result).__name__}, which is not kept; {mend}")
        return {n: torch.tensor([v], dtype=torch.float64) for n, v in scores.items()}

    def network(self, state: State, lane: int) -> nn.Module:
        """The module that the function returned, or an empty one."""
        result = self._exchange.result
        return result if isinstance(result, nn.Module) else nn.Module()

    def checkpointed(self, state: State) -> None:
        """The hand-over is complete."""
        self._exchange.save_due = False

    def save(self, state: State) -> Any:
        """What the function handed over last."""
        return {"step": self._exchange.step, "saved": self._exchange.saved, "scores": self._exchange.scores}

    def load(self, tree: Any) -> State:
        """Gives the function its own checkpoint back when it starts again."""
        self._saved = self._exchange.saved = tree["saved"]
        self._exchange.step = tree["step"]
        self._exchange.scores = dict(tree["scores"])
        return {"progress": torch.tensor([tree["step"]], dtype=torch.int64)}

    def close(self) -> None:
        """Unwinds the function's thread where it stands."""
        if self._thread is not None and not self._exchange.finished:
            self._exchange.letting_go = True
            self._exchange.resume()
