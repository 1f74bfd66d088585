"""The user's own tables: which column is the target, what are classes, and everything that keeps them from being used.

What decides a row's split is the sha256 of its values: the features in the order of their names (of their places, in a
table without a heading), the target last. How a number is spelled, in which kind of file it lies, the order of rows
and, with a heading, that of columns have no part in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.cards import DataError, DataSet, Rows, cut, hashed_order, split_sizes
from harness.data.faults import Fault, message
from harness.data.own_rules import FEWEST, learnable, own_card
from harness.data.sheets import Sheet, is_missing, number, read_csv, read_parquet
from harness.data.tables import spread, standardised

__all__ = ["table"]

MOST_CLASSES = 20  # more different whole numbers than these are numbers to predict
LARGEST = float(np.finfo(np.float32).max)
TARGETS = ("target", "label")  # names of a column to predict, in small letters
ONE_NAME = "rename or remove all but one"
NUMBERS = "write numbers in place of words, or leave these columns out"
FILL = "fill in what is missing, or remove its line or column"
SMALLER = "give it a smaller unit; networks compute in float32"


@dataclass(frozen=True)
class Target:
    """The column to predict.

    Attributes:
        y: labels int64 [N], or numbers float64 [N].
        classes: names of the labels; none for numbers.
        keys: what enters the rows' hashes: a class's name, or a number's one spelling.
    """

    y: np.ndarray
    classes: list[str]
    keys: list[str]


def table(name: str, path: Path) -> DataSet:
    """A table of numbers; targets in words, or few whole numbers, are classes.

    Raises:
        DataError: it cannot be used; the message names everything that is in the way.
    """
    sheet = read_parquet(path) if path.suffix.lower() == ".parquet" else read_csv(path)
    faults = list(sheet.faults)
    if len(sheet.rows) < FEWEST:
        mend = f"at least {FEWEST} are needed, so that each split has one"
        faults.append(Fault("", f"{len(sheet.rows)} rows", mend))
    place, doubts = _target_place(sheet)
    features = [column for column in range(len(sheet.names)) if column != place]
    x = np.empty((len(sheet.rows), len(features)))
    for at, column in enumerate(features):
        numbers, found = _feature(sheet, column)
        x[:, at] = numbers
        faults += found
    target, found = _target(sheet, place)
    if faults := faults + doubts + found:
        raise DataError(message(path, faults) + _which(sheet, place, faults))
    return _split(name, path, sheet, place, x, target)


def _split(name: str, path: Path, sheet: Sheet, place: int, x: np.ndarray, target: Target) -> DataSet:
    """The data set of a table without faults; x [N, features]."""
    names = [title for column, title in enumerate(sheet.names) if column != place]
    by_name = sorted(range(len(names)), key=names.__getitem__) if sheet.heading else list(range(len(names)))
    keys = [json.dumps([*row, key]).encode() for row, key in zip(x[:, by_name].tolist(), target.keys, strict=True)]
    order, sizes = hashed_order(keys), split_sizes(len(keys))
    splits = cut(x[order], target.y[order], sizes)
    learnable(path, splits, target.classes)
    _check_spread(path, sheet, place, splits)
    heading = json.dumps([names, sheet.names[place]] if sheet.heading else []).encode()
    content = [heading, *(keys[i] for i in order)]
    rows = standardised(splits)
    card = own_card(name, "table", content, (len(names),), len(target.classes), sizes)
    return DataSet(card, read=lambda: rows)


def _target_place(sheet: Sheet) -> tuple[int, list[Fault]]:
    """Where the target is, and whether that is in doubt."""
    called = [place for place, name in enumerate(sheet.names) if sheet.heading and name.lower() in TARGETS]
    if len({sheet.names[place] for place in called}) > 1:  # columns of one name are a fault already
        both = " and ".join(repr(sheet.names[place]) for place in called)
        return called[0], [Fault("", f"columns {both} may both be the target", ONE_NAME)]
    return (called[0] if called else len(sheet.names) - 1), []


def _which(sheet: Sheet, place: int, faults: Sequence[Fault]) -> str:
    """What was taken for the target, where the file does not name it and several things are wrong."""
    if len(faults) < 2 or (sheet.heading and sheet.names[place].lower() in TARGETS):
        return ""
    return f". No column is called target, so the last one, {sheet.titled(place)}, was taken for it"


def _fault(sheet: Sheet, rows: Sequence[int], column: int, what: str, mend: str) -> list[Fault]:
    """One fault for all these rows, which names the first; none for no rows."""
    if not rows:
        return []
    cell = sheet.rows[rows[0]][column]
    shown = f"{cell[:40] + '...' if len(cell) > 40 else cell!r} {what}" if cell else f"an empty cell {what}"
    return [Fault(sheet.where(rows[0], column), shown + (f" ({len(rows)} cells)" if len(rows) > 1 else ""), mend)]


def _cells(sheet: Sheet, column: int) -> tuple[list[float], list[int], list[int]]:
    """(numbers, NaN where there is none; rows without a value; rows with words)."""
    numbers, missing, words = [], [], []
    for row, cells in enumerate(sheet.rows):
        value = number(cells[column])
        if is_missing(cells[column]) or (value is not None and math.isnan(value)):
            missing.append(row)
        elif value is None:
            words.append(row)
        numbers.append(math.nan if value is None else value)
    return numbers, missing, words


def _beyond(sheet: Sheet, column: int, numbers: Sequence[float]) -> list[Fault]:
    rows = [row for row, value in enumerate(numbers) if abs(value) > LARGEST]
    return _fault(sheet, rows, column, f"is beyond {LARGEST:.1e}", SMALLER)


def _feature(sheet: Sheet, column: int) -> tuple[list[float], list[Fault]]:
    """The numbers of a column, and what is wrong with it."""
    numbers, missing, words = _cells(sheet, column)
    faults = _fault(sheet, words, column, "is not a number", NUMBERS)
    faults += _fault(sheet, missing, column, "is a missing value", FILL)
    return numbers, faults + _beyond(sheet, column, numbers)


def _target(sheet: Sheet, column: int) -> tuple[Target, list[Fault]]:
    """Labels and their classes, or numbers, and what is wrong with them."""
    numbers, missing, words = _cells(sheet, column)
    faults = _fault(sheet, missing, column, "is a missing target", FILL)
    if 0 < len(words) < (len(numbers) - len(missing)) / 2:
        faults += _fault(sheet, words, column, "is among numbers", "write numbers only, or words only")
        return Target(np.array(numbers), [], []), faults
    most = max(len(numbers) / 2, 2)  # classes of one row cannot be learnt
    if not words:
        faults += _beyond(sheet, column, numbers)
        y = np.array(numbers)
        if faults or len(np.unique(y)) > min(MOST_CLASSES, most) or (y % 1 != 0).any():
            return Target(y, [], [repr(value) for value in numbers]), faults + _unequal(sheet, column, y)
    keys = [cells[column] for cells in sheet.rows] if words else [f"{value:.0f}" for value in numbers]
    classes = sorted(set(keys), key=lambda key: (len(key), key))
    labels = {key: label for label, key in enumerate(classes)}
    y = np.array([labels[key] for key in keys], dtype=np.int64)
    if not missing and len(classes) > most:
        what = f"{len(classes)} different words in {len(keys)} rows are too many for classes"
        faults.append(Fault(sheet.titled(column), what, "call the column to predict `target`, or put it last"))
    return Target(y, classes, keys), faults + _unequal(sheet, column, y)


def _unequal(sheet: Sheet, column: int, y: np.ndarray) -> list[Fault]:
    """A fault if there is nothing to tell apart."""
    if len(sheet.rows) < FEWEST or (y != y[0]).any():
        return []
    value = sheet.rows[0][column]
    return [Fault(sheet.titled(column), f"all targets are {value!r}", "two classes, or different numbers, are needed")]


def _check_spread(path: Path, sheet: Sheet, place: int, splits: Mapping[str, Rows]) -> None:
    """Refuses columns whose validation or test rows lie so far out that their standardised numbers overflow."""
    train = splits["train"]
    columns = [column for column in range(len(sheet.names)) if column != place]
    known = train.x if train.y.dtype == np.int64 else np.column_stack([train.x, train.y])
    for split in ("validation", "test"):
        rows = splits[split]
        other = rows.x if rows.y.dtype == np.int64 else np.column_stack([rows.x, rows.y])
        far = np.abs((other - known.mean(0)) / spread(known)).max(0) > LARGEST
        if far.any():
            column = [*columns, place][int(far.argmax())]
            what = f"{split} rows are beyond {LARGEST:.1e} standard deviations of the training rows"
            raise DataError(message(path, [Fault(sheet.titled(column), what, SMALLER)]))
