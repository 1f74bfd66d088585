"""The user's own data: `data: PATH` instead of a name.

    flowers/                a folder of images by class: flowers/rose/1.png, flowers/tulip/7.jpg ...
    faces/                  images without classes, for generators: faces/1.png, faces/2.png ...
    houses.csv, .parquet    a table of numbers; the column `target` (or `label`, else the last) is to be predicted
    novel.txt, novels/      text, character by character; the files of a folder are its documents
    pairs.jsonl             lines of {"source": "...", "target": "..."}
    reviews.jsonl, .csv     texts with labels: `harness.data.labelled`

A path is looked up from the working folder, then in the folder that SEEDBED_DATA names. Splits follow from the sha256
of each row, so that the order of files and lines does not matter. Whatever is wrong is one error, before training,
that names the file, the line and the mend.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from harness.data import image_files
from harness.data.cards import Card, DataError, DataSet, Kind, Rows, cut, hashed_order, places, split_sizes
from harness.data.files import FOLDER, own_folders
from harness.data.labelled import divided, is_labelled, labelled
from harness.data.tables import standardised

__all__ = ["is_path", "opened"]

IMAGES = (".bmp", ".jpeg", ".jpg", ".png")
WINDOW = 32  # characters of one row of text
FEWEST = 5  # rows: each split needs one
MOST_CLASSES = 20  # more different whole numbers than these are numbers to predict


def is_path(name: str) -> bool:
    """Whether a name of a data set means a file or a folder."""
    return "/" in name or Path(name.partition("?")[0]).suffix in (".csv", ".parquet", ".txt", ".jsonl")


@cache
def opened(name: str) -> DataSet:
    """The data set that a path means.

    Raises:
        DataError: there is no such file or folder, or something is wrong in it.
    """
    place, columns = (name, {}) if Path(name).exists() else divided(name)
    path = next((path for path in (Path(place), *own_folders(place)) if path.exists()), None)
    if path is None:
        raise DataError(f"there is no file or folder {place!r}, neither here nor where {FOLDER} points")
    if path.is_dir():
        return text(name, sorted(path.glob("*.txt"))) if any(path.glob("*.txt")) else images(name, path)
    if path.suffix in (".csv", ".jsonl") and (columns or is_labelled(path)):
        return labelled(name, path, columns)
    kinds = {".csv": table, ".parquet": table, ".jsonl": pairs}
    if path.suffix == ".txt":
        return text(name, [path])
    if path.suffix not in kinds:
        raise DataError(f"{path}: not a kind of file that is read; there are .csv, .parquet, .txt, .jsonl and folders")
    return kinds[path.suffix](name, path)


def _card(
    name: str, kind: Kind, content: Sequence[bytes], shape: tuple[int, ...], classes: int, rows: dict[str, int]
) -> Card:
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


def _enough(path: Path, count: int, what: str) -> None:
    if count < FEWEST:
        raise DataError(f"{path}: {count} {what}; at least {FEWEST} are needed, so that each split has one")


def _learnable(path: Path, splits: dict[str, Rows], labels: Sequence[str]) -> dict[str, Rows]:
    """The splits, if every class has a training row."""
    missing = [label for number, label in enumerate(labels) if number not in splits["train"].y]
    if missing:
        raise DataError(f"{path}: class {missing[0]!r} has no row in the training split; give it more rows")
    return splits


def _decoded(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: not UTF-8; save it in that encoding") from None


# Images


def images(name: str, folder: Path) -> DataSet:
    """A folder of images by class; grey ones [H, W], others [3, H, W]."""
    classes = sorted(inner for inner in folder.iterdir() if inner.is_dir())
    if not classes and any(file.suffix.lower() in IMAGES for file in folder.iterdir()):
        classes = [folder]  # images without classes, for generators
    if not classes:
        raise DataError(f"{folder}: no folders in it; put the images of each class into a folder of its own")
    files = [(file, label) for label, inner in enumerate(classes) for file in _images_of(inner)]
    _enough(folder, len(files), "images")
    pixels = [image_files.pixels(file) for file, _ in files]
    if any(image.ndim == 3 for image in pixels):
        pixels = [image if image.ndim == 3 else np.repeat(image[None], 3, 0) for image in pixels]
    for (file, _), image in zip(files, pixels, strict=True):
        if image.shape != pixels[0].shape:
            sizes = f"{image.shape[-1]} x {image.shape[-2]} pixels, {files[0][0]} has {pixels[0].shape[-1]}"
            raise DataError(f"{file}: {sizes} x {pixels[0].shape[-2]}; bring all to one size")
    content = [f"{label}".encode() + image.tobytes() for (_, label), image in zip(files, pixels, strict=True)]
    order = hashed_order(content)
    x = np.stack([image_files.scaled(image) for image in pixels])[order]
    sizes_of = split_sizes(len(files))
    splits = cut(x, np.array([label for _, label in files])[order], sizes_of)
    _learnable(folder, splits, [inner.name for inner in classes])
    return DataSet(_card(name, "images", content, x.shape[1:], len(classes), sizes_of), read=lambda: splits)


def _images_of(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGES)
    if not files:
        raise DataError(f"{folder}: no images of this class ({', '.join(IMAGES)}); add some or remove the folder")
    return files


# Tables


def table(name: str, path: Path) -> DataSet:
    """A table of numbers with a heading; targets in words, or few whole numbers, are classes."""
    heading, lines = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    target = next((heading.index(word) for word in ("target", "label") if word in heading), len(heading) - 1)
    _enough(path, len(lines), "rows")
    features = [column for column in range(len(heading)) if column != target]
    x = np.array([[_number(path, n, heading[c], line[c]) for c in features] for n, line in enumerate(lines)])
    y, classes = _targets(path, heading[target], [line[target] for line in lines])
    content = [",".join(heading).encode(), *(",".join(line).encode() for line in lines)]
    order = hashed_order(content[1:])
    sizes = split_sizes(len(lines))
    splits = _learnable(path, standardised(cut(x[order], y[order], sizes)), classes)
    return DataSet(_card(name, "table", content, (len(features),), len(classes), sizes), read=lambda: splits)


def _csv(path: Path) -> tuple[list[str], list[list[str]]]:
    heading, *lines = list(csv.reader(io.StringIO(_decoded(path)))) or [[]]
    if len(heading) < 2:
        raise DataError(f"{path}, line 1: a heading of at least two columns, separated by commas, is needed")
    while lines and not lines[-1]:
        lines.pop()
    for n, line in enumerate(lines):
        if len(line) != len(heading):
            raise DataError(f"{_place(path, n)}: {len(line)} values, the heading has {len(heading)} columns")
    return heading, lines


def _parquet(path: Path) -> tuple[list[str], list[list[str]]]:
    import pandas

    try:
        frame = pandas.read_parquet(path)
    except Exception as error:  # pyarrow's own errors, or that it is missing
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from None
    return [str(column) for column in frame.columns], [[str(value) for value in row] for row in frame.values.tolist()]


def _place(path: Path, n: int) -> str:
    """Where row n of a table is, for people: a CSV's heading is line 1."""
    return f"{path}, row {n + 1}" if path.suffix == ".parquet" else f"{path}, line {n + 2}"


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _number(path: Path, n: int, column: str, value: str) -> float:
    if not _is_number(value):
        raise DataError(f"{_place(path, n)}, column {column!r}: {value!r} is not a number; give numbers")
    if not math.isfinite(float(value)):
        raise DataError(f"{_place(path, n)}, column {column!r}: {value!r}; fill in or remove what is missing")
    return float(value)


def _targets(path: Path, column: str, values: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Labels and the names of the classes, or numbers and no names."""
    for n, value in enumerate(values):
        if value.strip().lower() in ("", "nan", "none"):
            raise DataError(f"{_place(path, n)}, column {column!r}: no target; fill it in or remove the line")
    words = [n for n, value in enumerate(values) if not _is_number(value)]
    if 0 < len(words) < len(values) / 2:
        raise DataError(f"{_place(path, words[0])}, column {column!r}: {values[words[0]]!r} among numbers; mend it")
    keys = list(values)
    if not words:
        numbers = [_number(path, n, column, value) for n, value in enumerate(values)]
        if len(set(numbers)) > MOST_CLASSES or any(number % 1 for number in numbers):
            return np.array(numbers, dtype=np.float32), []
        keys = [f"{number:.0f}" for number in numbers]
    classes = sorted(set(keys), key=lambda key: (len(key), key))
    if len(classes) < 2:
        raise DataError(f"{path}, column {column!r}: all targets are {classes[0]!r}; two classes are needed")
    return np.array([classes.index(key) for key in keys], dtype=np.int64), classes


# Texts


def text(name: str, files: Sequence[Path]) -> DataSet:
    """Characters; one file is cut into 60, 20 and 20 %, the files of a folder go to splits by their hashes."""
    documents = [_decoded(file) for file in files]
    for file, document in zip(files, documents, strict=True):
        if not document:
            raise DataError(f"{file}: empty; remove it")
    content = [document.encode() for document in documents]
    alphabet = "".join(sorted(set("".join(documents))))
    if len(documents) == 1:
        parts = {s: documents[0][place] for s, place in places(split_sizes(len(documents[0]))).items()}
    else:
        _enough(files[0].parent, len(files), "texts")
        ordered = [documents[i] for i in hashed_order(content)]
        parts = {s: "".join(ordered[place]) for s, place in places(split_sizes(len(files))).items()}
    numbers = {character: number for number, character in enumerate(alphabet)}
    streams = {s: np.array([numbers[c] for c in part], dtype=np.int64) for s, part in parts.items()}
    rows = {s: stream[: len(stream) // WINDOW * WINDOW].reshape(-1, WINDOW) for s, stream in streams.items()}
    if not all(len(windows) for windows in rows.values()):
        raise DataError(f"{files[0]}: too short; every split needs {WINDOW} characters")
    splits = {s: Rows(windows, np.zeros(len(windows), dtype=np.int64)) for s, windows in rows.items()}
    card = _card(name, "tokens", content, (WINDOW,), len(alphabet), {s: len(r) for s, r in rows.items()})
    return DataSet(card, read=lambda: splits, streams=lambda: streams, alphabet=alphabet)


def pairs(name: str, path: Path) -> DataSet:
    """Lines of {"source", "target"}."""
    lines = _decoded(path).split("\n")  # splitlines would also split at separators that JSON leaves inside of texts
    found = [_pair(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    _enough(path, len(found), "pairs")
    ordered = [found[i] for i in hashed_order([source.encode() for source, _ in found])]
    sizes = split_sizes(len(found))
    splits = {s: ordered[place] for s, place in places(sizes).items()}
    return DataSet(_card(name, "pairs", [line.encode() for line in lines], (), 0, sizes), texts=lambda: splits)


def _pair(path: Path, number: int, line: str) -> tuple[str, str]:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: not JSON: {error.msg}") from None
    source, target = (entry.get(key) if isinstance(entry, dict) else None for key in ("source", "target"))
    if not (isinstance(source, str) and isinstance(target, str) and source and target):
        form = '{"source": "...", "target": "..."} is needed, both not empty; or, in all lines,'
        form += ' {"text": "...", "label": "..."}'
        raise DataError(f"{path}, line {number}: {form}")
    return source, target
