"""The user's own labelled texts: a CSV or JSONL file of texts and their classes.

    reviews.jsonl           lines of {"text": "...", "label": ...}; other keys are left alone
    reviews.csv             a heading with the columns `text` and `label` (or `target`), in any capitals; other columns
                            are left alone

    reviews.csv?text=Review&label=Sentiment     where the columns (or keys) have other names

Labels are the names of the classes: text, whole numbers, true or false. Splits follow from the sha256 of each text, so
neither the order of the lines nor the kind of file moves a row, and equal texts lie beside each other.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from harness.data.cards import DataError, DataSet, hashed_order, places, split_sizes
from harness.data.own_rules import decoded, enough, own_card

__all__ = ["divided", "is_labelled", "labelled"]

COLUMNS = {"text": ("text",), "label": ("label", "target")}  # what each is called unless the path says otherwise
MOST_CLASSES = 1000  # more different labels than these are free text, or numbers
Row = tuple[int, str, str]  # line, text, class


def divided(name: str) -> tuple[str, dict[str, str]]:
    """The path of a data set and the columns named behind it: "a.csv?text=Review" gives ("a.csv", {"text": "Review"}).

    Raises:
        DataError: what stands behind the question mark does not name columns.
    """
    path, mark, query = name.partition("?")
    if not mark or Path(path).suffix.lower() not in (".csv", ".jsonl"):
        return name, {}
    named = {key: unquote(value) for key, _, value in (part.partition("=") for part in query.split("&"))}
    if not named or set(named) - set(COLUMNS) or not all(named.values()):
        raise DataError(f"{name}: '?{query}' does not name columns; write {path}?text=COLUMN&label=COLUMN")
    return path, named


def is_labelled(path: Path) -> bool:
    """Whether a CSV or JSONL file holds texts with labels, by its heading or its first line."""
    with path.open("rb") as file:
        start = file.read(1 << 16).decode("utf-8-sig", errors="replace").lstrip()
    if path.suffix.lower() == ".jsonl":
        try:
            first = json.loads(start.partition("\n")[0])
        except (ValueError, RecursionError):
            return re.match(r'\{\s*"(text|label)"', start) is not None  # damaged, or longer than what was read
        return isinstance(first, dict) and "text" in first and "source" not in first
    try:
        heading = next(csv.reader(io.StringIO(start, newline="")), [])
    except csv.Error:
        return False
    names = [name.strip().lower() for name in heading]
    return all(any(word in names for word in words) for words in COLUMNS.values())


def labelled(name: str, path: Path, named: dict[str, str]) -> DataSet:
    """Pairs of a text and the name of its class.

    Args:
        name: of the data set.
        path: of the file.
        named: "text" and "label" -> the column, where it has another name.

    Raises:
        DataError: names the file, the line and the mend.
    """
    rows = _of_csv(path, named) if path.suffix.lower() == ".csv" else _of_jsonl(path, named)
    enough(path, len(rows), "texts")
    pairs = sorted((text, label) for _, text, label in rows)  # equal texts in one order, whatever that of the lines
    ordered = [pairs[i] for i in hashed_order([text.encode() for text, _ in pairs])]
    sizes = split_sizes(len(ordered))
    splits = {split: ordered[place] for split, place in places(sizes).items()}
    classes = _classes(path, [label for _, label in ordered], [label for _, label in splits["train"]])
    content = [part.encode() for pair in ordered for part in pair]
    card = own_card(name, "pairs", content, (), classes, sizes)
    return DataSet(card, texts=lambda: splits)


def _classes(path: Path, labels: Sequence[str], trained: Sequence[str]) -> int:
    """How many classes there are, each with a training row."""
    counts = Counter(labels)
    if len(counts) < 2:
        raise DataError(f"{path}: all labels are {labels[0]!r}; two classes are needed")
    if len(counts) > MOST_CLASSES or len(counts) > len(labels) / 2:
        some = ", ".join(repr(label[:40]) for label in sorted(counts)[:3])
        raise DataError(
            f"{path}: {len(counts)} different labels in {len(labels)} rows ({some}, ...) are no classes; name the"
            f" column of the classes: {path}?label=COLUMN"
        )
    missing = sorted(set(counts) - set(trained))
    if missing:
        raise DataError(f"{path}: class {missing[0]!r} has no row in the training split; give it more rows")
    return len(counts)


# Files


def _of_csv(path: Path, named: dict[str, str]) -> list[Row]:
    """Rows of a table; a row's line is the one on which it begins."""
    limit = csv.field_size_limit(sys.maxsize)  # texts may be longer than the 128 KiB that the module allows
    try:
        return _rows_of_csv(path, named)
    finally:
        csv.field_size_limit(limit)  # one for the whole process: tables keep it


def _rows_of_csv(path: Path, named: dict[str, str]) -> list[Row]:
    reader = csv.reader(io.StringIO(decoded(path), newline=""), strict=True)
    rows, line, columns, heading = [], 1, (0, 0), None
    while True:
        try:
            values = next(reader, None)
        except csv.Error as error:
            mend = "close the quotes and write quotes inside a text twice"
            raise DataError(f"{path}, line {line}: not a row of a CSV file ({error}); {mend}") from None
        if values is None:
            break
        if heading is None:
            heading = [name.strip() for name in values]
            columns = _place(path, heading, named, "text"), _place(path, heading, named, "label")
        elif values:
            if len(values) != len(heading):
                what = f"{len(values)} values, the heading has {len(heading)} columns"
                raise DataError(f"{path}, line {line}: {what}; put quotes around a text that has commas")
            text, label = (values[column] for column in columns)
            rows.append((line, *_row(path, line, text, label)))
        line = reader.line_num + 1
    return rows


def _place(path: Path, heading: Sequence[str], named: dict[str, str], what: str) -> int:
    """The column that holds the texts or the labels."""
    wanted = (named[what],) if what in named else COLUMNS[what]
    names = list(heading) if what in named else [name.lower() for name in heading]  # `Text`, as `Target` in tables
    found = next((word for word in wanted if word in names), None)
    if found is None:
        have = ", ".join(heading)
        mend = f"name it: {path}?text=COLUMN&label=COLUMN"
        raise DataError(f"{path}, line 1: there is no column `{wanted[0]}` among {have}; {mend}")
    if names.count(found) > 1:
        raise DataError(f"{path}, line 1: {names.count(found)} columns are called `{found}`; rename all but one")
    return names.index(found)


def _of_jsonl(path: Path, named: dict[str, str]) -> list[Row]:
    rows = []
    lines = re.split(r"\r\n|\r|\n", decoded(path))  # splitlines would also split at separators inside texts
    for number, line in enumerate(lines, 1):
        if line.strip():
            entry = _entry(path, number, line)
            text, label = (_value(path, number, entry, named, what) for what in COLUMNS)
            rows.append((number, *_row(path, number, text, label)))
    return rows


def _entry(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}, line {number}: numbers or brackets that no text with a label needs") from None
    if not isinstance(entry, dict):
        raise DataError(f'{path}, line {number}: {{"text": "...", "label": "..."}} is needed')
    return entry


def _value(path: Path, number: int, entry: dict[str, Any], named: dict[str, str], what: str) -> Any:
    wanted = (named[what],) if what in named else COLUMNS[what]
    found = next((word for word in wanted if word in entry), None)
    if found is None:
        have = ", ".join(entry) or "nothing"
        mend = f"add it, or name another: {path}?text=KEY&label=KEY"
        raise DataError(f"{path}, line {number}: there is no key `{wanted[0]}` among {have[:100]}; {mend}")
    return entry[found]


def _row(path: Path, line: int, text: Any, label: Any) -> tuple[str, str]:
    """A text and the name of its class, checked."""
    where = f"{path}, line {line}"
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: the text is {_short(text)}; give some text or remove the line")
    if label is None or (isinstance(label, float | list | dict) and not _whole(label)):
        raise DataError(f"{where}: the label is {_short(label)}; give the name of a class")
    name = _named(label)
    if not name or name.lower() == "nan":
        raise DataError(f"{where}: no label; fill it in or remove the line")
    try:
        f"{text}{name}".encode()
    except UnicodeEncodeError as error:
        half = f"{error.object[error.start]!a} is half a character"
        raise DataError(f"{where}: {half} (a lone surrogate); replace or remove it") from None
    return text, name


def _whole(label: Any) -> bool:
    return isinstance(label, float) and label.is_integer()


def _named(label: Any) -> str:
    """One name for every spelling of a class: 1, 1.0 and "1.0", composed and decomposed accents, blanks around it."""
    if isinstance(label, bool):
        return str(label).lower()
    name = unicodedata.normalize("NFC", str(label).strip())
    number = re.fullmatch(r"(-?(?:0|[1-9]\d{0,17}))(?:\.0+)?", name)
    return str(int(number[1])) if number else name


def _short(value: Any) -> str:
    shown = json.dumps(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."
