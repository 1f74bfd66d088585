"""Where workers live: in this process, or in Ray actors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from harness.messages import Report

__all__ = ["ClusterError", "Executor", "WorkerDiedError", "make_executor"]


class WorkerDiedError(Exception):
    """A worker or its node is gone."""


class ClusterError(Exception):
    """Ray cannot be used as it was asked for; one sentence for the person.

    Args:
        text: the sentence.
        usage: whether the command was wrong (exit status 2) or the world is (1).
    """

    def __init__(self, text: str, *, usage: bool = False) -> None:
        super().__init__(text)
        self.usage = usage


class Executor(Protocol):
    """Runs workers in numbered slots; a call to a slot is answered by exactly one result of `wait`.

    Where several workers train a cohort together, all are called, and the one of rank 0 answers.

    Attributes:
        most: slots at most, infinite where machines decide.
        say: told a sentence for the person.
    """

    most: float
    say: Callable[[str], None]

    def check(self) -> None:
        """Looks whether workers can be had at all, before anything is started.

        Raises:
            ClusterError: they cannot.
        """
        ...

    def start(self, slots: int, cpus: int, gpus: float, workers: int) -> int:
        """Makes up to `slots` slots ready (those it has are used again); returns how many there are.

        A slot has `workers` workers, of which a cohort takes as many as its trials ask for. Waits for the first slot;
        none are ready when a stop is asked for meanwhile.

        Raises:
            ClusterError: not one will ever be.
        """
        ...

    def call(self, slot: int, method: str, argument: Any) -> None:
        """Calls `open` or `advance` of the worker in a slot."""
        ...

    def wait(self, timeout: float) -> list[tuple[int, Report | WorkerDiedError]]:
        """What came back within `timeout` seconds; a dead worker comes as an error, its slot holds a new one."""
        ...

    def give_up_at(self, when: float) -> None:
        """Told when a stop is asked for: past `when` (monotonic clock) boundaries are not waited for."""
        ...

    def abandon(self, slots: list[int]) -> None:
        """Gives up what the workers in these slots are doing."""
        ...

    def stop(self) -> None:
        """Ends all workers and whatever was started for them."""
        ...


def make_executor(kind: str, address: str | None = None) -> Executor:
    """The executor of a name: "inline" or "ray"; "plan" is for looking only, at files of either.

    Args:
        kind: its name.
        address: of a running Ray cluster; None starts Ray on this machine.

    Raises:
        ValueError: unknown name.
    """
    if kind in ("inline", "plan"):
        from harness.executors.inline import InlineExecutor

        return InlineExecutor()
    if kind != "ray":
        raise ValueError(f"unknown executor {kind!r}; known are inline, ray")
    if address:
        from harness.executors.access import use_token

        use_token()  # Ray reads it once, when it is imported
    from harness.executors.ray import RayExecutor

    return RayExecutor(address)
