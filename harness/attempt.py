"""What is written beside a result must not cost the result: its failure is one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from harness.files import disk_trouble

__all__ = ["attempt"]

T = TypeVar("T")


def attempt(what: str, action: Callable[[], T], failures: list[str], disk_ends: bool = True) -> T | None:
    """What `action` returns; None where it raised, and then one sentence joins `failures`.

    Args:
        what: is being written, for the sentence.
        action: writes it.
        failures: sentences so far.
        disk_ends: a full or broken disk is raised: what comes next would fail likewise.

    Raises:
        NoSpaceError: the disk is full.
        OSError: the disk is broken or read-only.
    """
    try:
        return action()
    except Exception as error:
        if disk_ends and disk_trouble(error):
            raise
        text = " ".join(str(error).split())[:300]
        failures.append(f"{what} could not be written: {disk_trouble(error) or f'{type(error).__name__}: {text}'}")
        return None
