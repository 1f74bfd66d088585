"""Tables as files hold them: the cells of a CSV or Parquet file as text, where each row is, and its columns' names.

Whether the first line of a CSV file is a heading is told from its cells: names are words. In a column of numbers a
word on the first line is a name, a number there is a value; where columns disagree, nobody can tell, and the user is
asked. Cells are stripped and composed (Unicode's NFC), so that what looks alike is alike.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.cards import DataError
from harness.data.faults import Fault
from harness.data.own_rules import decoded

__all__ = ["Sheet", "is_missing", "number", "read_csv", "read_parquet", "same"]

# As pandas has them, and the question mark of the UCI repository; "None" is no such word: it names classes.
MISSING = frozenset(
    ("", "?", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A")
) | frozenset(("NA", "NULL", "NaN", "NaT", "n/a", "nan", "null"))
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}  # that are refused
LONGEST = 131_072  # characters of one value, the module's own limit
CSV_ERRORS = {
    "unexpected end of data": 'a quote (") is opened and never closed',
    """',' expected after '"'""": 'a closing quote (") has something else than a comma behind it',
    "field larger than": f"a value has more than {LONGEST:,} characters; is a quote never closed?",
}
NAME_COLUMNS = "give every column a name that is not a number in the first line"
ROW_NUMBERS = "remove it (pandas leaves it out with index=False) or name it"


@dataclass
class Sheet:
    """The cells of a table.

    Attributes:
        unit: what its rows are counted in, "line" or "row".
        names: of its columns, or of their places, "1", "2" ..., where it has no heading.
        heading: whether the names are the file's.
        rows: cells as text, stripped and composed.
        places: the line or row in which each row starts.
        faults: what is wrong with its lines and its heading.
    """

    unit: str
    names: list[str]
    heading: bool
    rows: list[list[str]]
    places: list[int]
    faults: list[Fault] = field(default_factory=list)

    def where(self, row: int, column: int) -> str:
        """The place of a cell, for people."""
        return f"{self.unit} {self.places[row]}, {self.titled(column)}"

    def titled(self, column: int) -> str:
        """A column, for people."""
        return f"column {self.names[column]!r}" if self.heading else f"column {self.names[column]}"


def same(text: str) -> str:
    """Text without what cannot be seen: blanks at its ends, and accents in one of their two forms."""
    return unicodedata.normalize("NFC", text).strip().strip("\u200b\u2060\ufeff").strip()


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value."""
    return cell in MISSING


def number(cell: str) -> float | None:
    """The number that a cell spells, None if it is a word; infinite where it is too large for float64."""
    if "_" in cell or not cell.isascii():  # Python reads "1_2" and digits of other scripts, nobody else does
        return None
    try:
        return float(cell) + 0.0  # -0.0 becomes 0.0
    except ValueError:
        return None


# CSV


def read_csv(path: Path) -> Sheet:
    """The cells of a CSV file in UTF-8, separated by commas; blank lines are skipped.

    Raises:
        DataError: it is no table at all: a quote is never closed, there is one column.
    """
    records, faults = _cut(_records(path, decoded(path)))
    width = Counter(len(cells) for _, cells in records).most_common(1)[0][0] if records else 0
    if width < 2:
        raise DataError(f"{path}: at least two columns, separated by commas, are needed")
    lines = [(line, [same(cell) for cell in cells]) for line, cells in records if len(cells) == width]
    if ragged := [(line, cells) for line, cells in records if len(cells) != width]:
        count = len(ragged[0][1])
        more = f" ({len(ragged)} such lines)" if len(ragged) > 1 else ""
        what = f"{count} value{'s' if count > 1 else ''}, other lines have {width}{more}"
        faults.append(Fault(f"line {ragged[0][0]}", what, "give every line as many values; comments are not skipped"))
    heading, doubt = _is_heading([cells for _, cells in lines])
    if doubt:
        faults.append(Fault(f"line {lines[0][0]}", doubt, NAME_COLUMNS))
    names = lines[0][1] if heading else [str(place) for place in range(1, width + 1)]
    body = lines[1:] if heading else lines
    return _with_names_checked(
        Sheet("line", names, heading, [cells for _, cells in body], [line for line, _ in body], faults)
    )


def _records(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """Lines that are not blank, each with its number; a record with line ends inside of quotes starts there."""
    csv.field_size_limit(LONGEST)  # it belongs to the process, others may have changed it
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    records, line = [], 1
    try:
        for cells in reader:
            if len(cells) > 1 or any(cell.strip() for cell in cells):
                records.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        what = next((what for start, what in CSV_ERRORS.items() if str(error).startswith(start)), str(error))
        raise DataError(f'{path}, line {line}: {what}; close every quote, or write "" inside of quotes') from None
    return records


def _cut(records: list[tuple[int, list[str]]]) -> tuple[list[tuple[int, list[str]]], list[Fault]]:
    """The lines of a file without commas between values, cut by what separates them instead, and this as a fault."""
    if any(len(cells) > 1 for _, cells in records):
        return _with_decimal_commas(records)
    for mark, name in SEPARATORS.items():
        if any(mark in cells[0].strip() for _, cells in records[:1]):
            cut = [(line, cells[0].split(None if mark == " " else mark)) for line, cells in records]
            return cut, [Fault("", f"its values are separated by {name}", "save it with commas between them")]
    return records, []


def _with_decimal_commas(records: list[tuple[int, list[str]]]) -> tuple[list[tuple[int, list[str]]], list[Fault]]:
    """The same for a file whose commas lie inside values: in numbers, as Excel writes in many countries, or texts."""
    whole = [(line, ",".join(cells)) for line, cells in records]
    for mark in (";", "\t"):
        cut = [(line, text.split(mark)) for line, text in whole]
        width = len(cut[0][1])
        if len(records[0][1]) > 1 or width < 2 or any(len(cells) != width for _, cells in cut):
            continue
        pointed = [(line, [_with_a_point(cell) for cell in cells]) for line, cells in cut]
        what, mend = f"its values are separated by {SEPARATORS[mark]}", "quotes around texts that have commas"
        if pointed != cut:
            what, mend = f"{what} and have decimal commas", "points in numbers"
        return pointed, [Fault("", what, f"save it with commas between values and {mend}")]
    return records, []


def _with_a_point(cell: str) -> str:
    """A number with a decimal comma as one with a point; other cells stay."""
    spelled = cell.replace(",", ".", 1)
    return cell if number(spelled) is None else spelled


def _is_heading(lines: Sequence[Sequence[str]]) -> tuple[bool, str]:
    """Whether the first of these lines names the columns, and why that is in doubt, or ""."""
    first, *rest = lines
    values = [number(cell) for cell in first]
    if all(value is None or is_missing(cell) for value, cell in zip(values, first, strict=True)):
        repeated = sum(any(line[place] == cell for line in rest) for place, cell in enumerate(first))
        return repeated <= len(first) / 2, ""
    if _counts(values):
        return False, f"{', '.join(first[:3])} ... may be names (as pandas writes them) or values"
    numeric = [_is_of_numbers([line[c] for line in rest]) for c in range(len(first))]
    named: list[str] = []
    valued: list[str] = []
    for cell, value, of_numbers in zip(first, values, numeric, strict=True):
        if of_numbers and not is_missing(cell):
            (named if value is None else valued).append(cell)
    if named and valued:
        return True, f"{named[0]!r} looks like a name, {valued[0]!r} like a value"
    target = first[-1]
    if valued and values[-1] is None and not is_missing(target) and all(line[-1] != target for line in rest):
        return False, f"{valued[0]!r} looks like a value, {target!r} like a name"
    return bool(named), ""


def _counts(values: Sequence[float | None]) -> bool:
    """Whether a line counts, 0, 1, 2 ... or 1, 2 ..., as headings that nobody chose do."""
    return any(list(values) == list(range(start, start + len(values))) for start in (0, 1))


def _is_of_numbers(cells: Sequence[str]) -> bool:
    """Whether most cells with a value are numbers."""
    present = [cell for cell in cells if not is_missing(cell)]
    return sum(number(cell) is not None for cell in present) > len(present) / 2


def _with_names_checked(sheet: Sheet) -> Sheet:
    """The sheet, with faults for columns without a name and for names that occur twice."""
    if not sheet.heading:
        return sheet
    places: dict[str, list[int]] = {}
    for place, name in enumerate(sheet.names, 1):
        places.setdefault(name, []).append(place)
    unnamed = [p for name, found in places.items() if not name or name.startswith("Unnamed: ") for p in found]
    what = "a column without a name, as pandas writes for row numbers"
    sheet.faults += [Fault(f"column {place}", what, ROW_NUMBERS) for place in unnamed]
    for name, found in places.items():
        if len(found) > 1 and name:
            what = f"{len(found)} columns are called {name!r} ({', '.join(map(str, found))})"
            sheet.faults.append(Fault("", what, "rename or remove all but one"))
    return sheet


# Parquet


def read_parquet(path: Path) -> Sheet:
    """The cells of a Parquet file, spelled as a CSV file of the same table would.

    Raises:
        DataError: it cannot be read.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path).read()
        columns = [_spelled(column, pyarrow.types.is_floating(column.type)) for column in table.columns]
    except Exception as error:  # of its many readers
        why = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as Parquet, save it again: {why}") from None
    kept = [place for place, name in enumerate(table.column_names) if not name.startswith("__index_level_")]
    if len(kept) < 2:
        raise DataError(f"{path}: at least two columns are needed")
    names = [same(table.column_names[place]) for place in kept]
    rows = [list(cells) for cells in zip(*(columns[place] for place in kept), strict=True)]
    return _with_names_checked(Sheet("row", names, True, rows, list(range(1, len(rows) + 1))))


def _spelled(column: Any, floating: bool) -> list[str]:
    """A column of Arrow's as text; single precision by its own shortest digits, so that 0.1 is 0.1."""
    if floating and column.type.bit_width < 64:
        kind = np.dtype(f"float{column.type.bit_width}").type
        return ["" if value is None else str(kind(value)) for value in column.to_pylist()]
    return [_text(value) for value in column.to_pylist()]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return same(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))
