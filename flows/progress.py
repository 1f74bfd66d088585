"""What a run shows: live bars on a terminal, quiet lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

__all__ = ["Bars", "Display", "Lines", "clock", "leaderboard_table", "make_display", "metrics_text", "rate_text"]

Event = dict[str, Any]
SHOWN_METRICS = 3
SOONEST, LATEST = 30.0, 300.0  # seconds between two lines of a cohort's metrics, where there are no bars
COHORT_WORDS = {
    "running": "training",
    "done": "done",
    "retry": "tried again from its last checkpoint",
    "failed": "failed",
    "stopped": "stopped",
}


class Display(Protocol):
    """Shows a driver's events; used as a context manager around a run."""

    def hear(self, event: Event) -> None:
        """Takes one event."""
        ...

    def say(self, text: str) -> None:
        """Shows a sentence."""
        ...

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_display(console: Console) -> Display:
    """Bars on a terminal, lines elsewhere."""
    return Bars(console) if console.is_terminal and not console.is_dumb_terminal else Lines(console)


def clock(seconds: float) -> str:
    """A duration for people: 8s, 1:05, 2:03:04."""
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole}s"
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def rate_text(rate: float, unit: str) -> str:
    """Progress times lanes per second: 1,234 env_steps/s."""
    digits = 0 if rate >= 100 else 1
    return f"{rate:,.{digits}f} {unit}/s"


def metrics_text(metrics: dict[str, float], headline: str = "", most: int = SHOWN_METRICS) -> str:
    """The first few metrics: what is nearest to the headline, then returns, losses and evaluations, then the rest."""
    near = (f"eval/{headline}", headline, "return", "accuracy", "loss")

    def rank(name: str) -> tuple[int, bool, str]:
        close = [i for i, word in enumerate(near) if word and name.endswith(word)]
        return min(close, default=len(near)), not name.startswith("eval/"), name

    names = sorted(metrics, key=rank)[:most]
    return "  ".join(f"{name} {metrics[name]:.4g}" for name in names)


def _trial_text(event: Event) -> str:
    text = f"{event['label']} seed {event['seed']}: {event['state']}"
    if event.get("score") is not None:
        text += f", {event['score_name']} {event['score']:.4g}"
    if event.get("reason"):
        text += f" ({event['reason']})"
    return text


class _Shown:
    """What both displays share: a console and sentences."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        """Shows a sentence as it is: labels may hold brackets."""
        self.console.print(Text(text), soft_wrap=True)


class Lines(_Shown):
    """One line a cohort's state, one a trial's end; a cohort's metrics often at first, then every five minutes."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._measured: dict[str, tuple[float, float]] = {}  # cohort: when its first and its last line were shown

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def hear(self, event: Event) -> None:
        """Takes one event."""
        line = getattr(self, f"_{event['kind']}")(event)
        if line:
            self.say(f"[{clock(time.monotonic() - self.began)}] {line}")

    def _note(self, event: Event) -> str:
        return event["text"]

    def _cohort(self, event: Event) -> str:
        lanes = f"{event['lanes']} lane{'s' if event['lanes'] > 1 else ''}"
        word = COHORT_WORDS.get(event["state"], event["state"])
        return f"{event['label']} ({lanes}): {word} at {event['progress']:,} of {event['budget']:,} {event['unit']}"

    def _report(self, event: Event) -> str:
        now = time.monotonic()
        first, last = self._measured.get(event["cohort"], (now, -math.inf))
        if not event["metrics"] or now - last < min(LATEST, max(SOONEST, last - first)):
            return ""
        self._measured[event["cohort"]] = (first, now)
        rate, left = rate_text(event["rate"], event["unit"]), clock(event["seconds_left"])
        metrics = metrics_text(event["metrics"], event.get("headline", ""))
        return f"{event['label']}: {metrics}  ({rate}, {left} left)"

    def _trial(self, event: Event) -> str:
        return _trial_text(event)


class Bars(_Shown):
    """A bar a cohort with its rate, the time left and its newest metrics; trials that end badly get a line."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._tasks: dict[str, Any] = {}
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            _Share(),
            TextColumn("{task.fields[speed]}", style="cyan", markup=False),
            TextColumn("{task.fields[metrics]}", style="dim", markup=False),
            console=console,
        )

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Shows a sentence above the bars."""
        self._bars.console.print(Text(text))

    def hear(self, event: Event) -> None:
        """Takes one event."""
        getattr(self, f"_{event['kind']}")(event)

    def _note(self, event: Event) -> None:
        self.say(event["text"])

    def _cohort(self, event: Event) -> None:
        task = self._task(event)
        speed = "" if event["state"] == "running" else COHORT_WORDS.get(event["state"], event["state"])
        done = event["budget"] if event["state"] == "done" else event["progress"]
        self._bars.update(task, completed=done, total=event["budget"], speed=speed)

    def _report(self, event: Event) -> None:
        speed = f"{rate_text(event['rate'], event['unit'])}  {clock(event['seconds_left'])} left"
        self._bars.update(
            self._task(event),
            completed=event["progress"],
            total=event["budget"],
            speed=speed,
            metrics=metrics_text(event["metrics"], event.get("headline", "")),
        )

    def _trial(self, event: Event) -> None:
        if event["state"] not in ("done", "pruned"):
            self.say(_trial_text(event))

    def _task(self, event: Event) -> Any:
        if event["cohort"] not in self._tasks:
            lanes = f" x{event['lanes']}" if event.get("lanes", 1) > 1 else ""
            task = self._bars.add_task(f"{event['label']}{lanes}", total=event["budget"], speed="", metrics="")
            self._tasks[event["cohort"]] = task
        return self._tasks[event["cohort"]]


class _Share(ProgressColumn):
    """How much is done, in per cent."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.percentage:3.0f}%", style="green")


def leaderboard_table(rows: Iterable[dict[str, Any]]) -> Table:
    """The short leaderboard for the terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("trials", "left"), ("score", "left"), ("mean", "right"), ("least", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("most", justify="right")
    table.add_column("ended", justify="right")
    for row in rows:
        values = ["-" if row[k] is None else f"{row[k]:.4g}" for k in ("mean", "least", "most")]
        table.add_row(Text(row["label"]), row["score"] or "-", *values, f"{row['ended']}/{row['trials']}")
    return table
