"""What is written beside a result must not cost the result: its failure is one sentence."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

__all__ = ["attempt"]

T = TypeVar("T")
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)  # the next file would fail likewise: the run stops


def attempt(what: str, action: Callable[[], T], failures: list[str]) -> T | None:
    """What `action` returns; None where it raised, and then one sentence joins `failures`.

    Args:
        what: is being written, for the sentence.
        action: writes it.
        failures: sentences so far.

    Raises:
        OSError: the disk is full or broken.
    """
    try:
        return action()
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK:
            raise
        text = " ".join(str(error).split())
        failures.append(f"{what} could not be written: {type(error).__name__}: {text[:300]}")
        return None
