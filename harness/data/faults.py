"""What is wrong with a user's file: single faults, and the one message that names them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

__all__ = ["Fault", "message"]

SHOWN = 8  # places of one kind of fault; further ones are counted


@dataclass(frozen=True)
class Fault:
    """One thing that keeps a file from being used.

    Attributes:
        where: "line 22, column 'age'"; "" for the whole file.
        what: what is wrong there.
        mend: what to do about it.
    """

    where: str
    what: str
    mend: str


def message(path: Path, faults: Sequence[Fault]) -> str:
    """One message for all faults of a file; those with the same mend stand together, the mend behind them."""
    if len(faults) == 1:
        (fault,) = faults
        place = f"{path}, {fault.where}" if fault.where else f"{path}"
        return f"{place}: {fault.what}; {fault.mend}"
    mends = list(dict.fromkeys(fault.mend for fault in faults))
    ordered = sorted(faults, key=lambda fault: mends.index(fault.mend))
    parts = [f"{_listed(list(group))}: {mend}" for mend, group in groupby(ordered, key=lambda fault: fault.mend)]
    return f"{path} has {len(faults)} obstacles. " + ". ".join(f"({n}) {part}" for n, part in enumerate(parts, 1))


def _listed(faults: Sequence[Fault]) -> str:
    shown = [f"{fault.where}: {fault.what}" if fault.where else fault.what for fault in faults[:SHOWN]]
    rest = len(faults) - len(shown)
    return "; ".join([*shown, f"and {rest} more"] if rest else shown)
