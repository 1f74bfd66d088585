"""What is written beside a result must not cost the result: its failure is one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from harness.files import DISK, is_full

__all__ = ["attempt"]

T = TypeVar("T")


def attempt(what: str, action: Callable[[], T], failures: list[str]) -> T | None:
    """What `action` returns; None where it raised, and then one sentence joins `failures`.

    Args:
        what: is being written, for the sentence.
        action: writes it.
        failures: sentences so far.

    Raises:
        NoSpaceError: the disk is full.
        OSError: the disk is broken or read-only.
    """
    try:
        return action()
    except Exception as error:
        if is_full(error) or (isinstance(error, OSError) and error.errno in DISK):  # the run stops
            raise
        text = " ".join(str(error).split())
        failures.append(f"{what} could not be written: {type(error).__name__}: {text[:300]}")
        return None
