"""What holds for every kind of the user's own data: its card, how many rows it needs, and how its text is read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.data.cards import Card, DataError, Kind, Rows

__all__ = ["FEWEST", "decoded", "enough", "learnable", "own_card"]

FEWEST = 5  # rows: each split needs one


def own_card(
    name: str, kind: Kind, content: Sequence[bytes], shape: tuple[int, ...], classes: int, rows: Mapping[str, int]
) -> Card:
    """The card of a data set whose sha256 is that of its content."""
    return Card(
        name=name,
        kind=kind,
        source="the user's own",
        licence="the user's own",
        sha256=hashlib.sha256(b"\0".join(content)).hexdigest(),
        shape=shape,
        classes=classes,
        rows=rows,
        get="the user's own",
    )


def enough(path: Path, count: int, what: str) -> None:
    """Refuses fewer rows than splits need.

    Raises:
        DataError: says how many there are.
    """
    if count < FEWEST:
        raise DataError(f"{path}: {count} {what}; at least {FEWEST} are needed, so that each split has one")


def learnable(path: Path, splits: dict[str, Rows], labels: Sequence[str]) -> None:
    """Refuses splits in which a class has no training row.

    Raises:
        DataError: names all such classes.
    """
    known = set(splits["train"].y.tolist())
    missing = [repr(label) for number, label in enumerate(labels) if number not in known]
    if missing:
        many = len(missing) > 1
        which = f"{'classes' if many else 'class'} {', '.join(missing)} {'have' if many else 'has'}"
        raise DataError(f"{path}: {which} no row in the training split; give {'them' if many else 'it'} more rows")


def decoded(path: Path) -> str:
    """The text of a file in UTF-8.

    Raises:
        DataError: names the line that is not.
    """
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n|\r|\n", raw[: error.start])) + 1
        raise DataError(f"{path}, line {line}: not UTF-8; save it as UTF-8") from None
