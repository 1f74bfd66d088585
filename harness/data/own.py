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

import json
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from harness.data import image_files
from harness.data.cards import DataError, DataSet, Rows, cut, hashed_order, places, split_sizes
from harness.data.files import FOLDER, own_folders
from harness.data.labelled import divided, is_labelled, labelled
from harness.data.own_rules import decoded, enough, learnable, own_card
from harness.data.own_tables import table
from harness.data.sheets import same

__all__ = ["is_path", "opened"]

IMAGES = (".bmp", ".jpeg", ".jpg", ".png")
OTHER_IMAGES = (".avif", ".gif", ".heic", ".jfif", ".tif", ".tiff", ".webp")  # that are read by no one here
READ = "tables are .csv or .parquet, texts .txt or .jsonl, images folders of folders"
WINDOW = 32  # characters of one row of text
# What lies beside data without being data, in small letters and without an ending; names with a dot in front do too.
BYSTANDERS = ("authors", "changelog", "citation", "copying", "licence", "license", "notice", "readme")
FOREIGN_FOLDERS = ("__macosx", "__pycache__", "@eadir", "lost+found", "$recycle.bin", "system volume information")


def is_path(name: str) -> bool:
    """Whether a name of a data set means a file or a folder."""
    plain = name.partition("?")[0]  # columns may be named behind it
    return "/" in name or Path(plain).suffix.lower() in (".csv", ".data", ".parquet", ".txt", ".jsonl")


@cache
def opened(name: str) -> DataSet:
    """The data set that a path means.

    Raises:
        DataError: there is no such file or folder, or something is wrong in it.
    """
    path, columns = _found(name)
    try:
        return _read(name, path, columns)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _found(name: str) -> tuple[Path, dict[str, str]]:
    """Where the file or folder of that name is, and the columns named behind it."""
    shown = name if len(name) <= 200 else f"{name[:100]} ... ({len(name):,} characters)"
    try:
        place, columns = (name, {}) if Path(name).exists() else divided(name)
        path = next((path for path in (Path(place), *own_folders(place)) if path.exists()), None)
    except DataError:  # of the columns
        raise
    except (OSError, ValueError) as error:  # too long, not to be entered, or with a character that no path has
        raise DataError(f"{shown!r} cannot be a path: {getattr(error, 'strerror', None) or error}") from None
    if path is None:
        raise DataError(f"there is no file or folder {shown!r}, neither here nor where {FOLDER} points")
    if not (path.is_file() or path.is_dir()):
        raise DataError(f"{path}: a pipe or a device, which may never end; save what it gives in a file")
    return path, columns


def _read(name: str, path: Path, columns: dict[str, str]) -> DataSet:
    if path.is_dir():
        return _folder(name, path)
    kinds = {".csv": table, ".data": table, ".parquet": table, ".jsonl": pairs}
    suffix = path.suffix.lower()
    if suffix in (".csv", ".jsonl") and (columns or is_labelled(path)):
        return labelled(name, path, columns)
    if suffix == ".txt":
        return text(name, [path])
    if suffix not in kinds:
        raise DataError(f"{path}: not a kind of file that is read; {READ}")
    return kinds[suffix](name, path)


def _folder(name: str, path: Path) -> DataSet:
    """Images by class if a folder in it holds some, else texts."""
    visible = [inner for inner in sorted(path.iterdir()) if _is_data(inner)]
    folders = [inner for inner in visible if inner.is_dir()]
    texts = [inner for inner in visible if inner.suffix.lower() == ".txt" and inner.is_file()]
    if texts and not any(_is_image(file) for inner in folders for file in inner.iterdir()):
        return text(name, texts)
    return images(name, path, folders)


def _is_data(path: Path) -> bool:
    """Whether a file or folder is more than a bystander: hidden, of an operating system, or about the data."""
    folder = path.is_dir()
    known = FOREIGN_FOLDERS if folder else BYSTANDERS
    return not path.name.startswith(".") and (path.name if folder else path.stem).lower() not in known


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGES and not file.name.startswith(".") and file.is_file()


def _is_other_image(file: Path) -> bool:
    return file.suffix.lower() in OTHER_IMAGES and not file.name.startswith(".")


# Images


def images(name: str, folder: Path, classes: Sequence[Path]) -> DataSet:
    """A folder of images by class; grey ones [H, W], others [3, H, W]."""
    classes = sorted(classes, key=lambda inner: unicodedata.normalize("NFC", inner.name))
    for one, other in pairwise(classes):
        if same(one.name) == same(other.name):
            raise DataError(f"{folder}: two folders are called {same(one.name)!r}, spelled differently; make them one")
    if not classes and any(_is_image(file) for file in folder.iterdir()):
        classes = [folder]  # images without classes, for generators
    if not classes:
        raise DataError(f"{folder}: no folders in it; put the images of each class into a folder of its own")
    if classes != [folder]:
        _no_strays(folder, classes)
    files = [(file, label) for label, inner in enumerate(classes) for file in _images_of(inner)]
    enough(folder, len(files), "images")
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
    learnable(folder, splits, [inner.name for inner in classes])
    return DataSet(own_card(name, "images", content, x.shape[1:], len(classes), sizes_of), read=lambda: splits)


def _no_strays(folder: Path, classes: Sequence[Path]) -> None:
    """Raises DataError for images next to the classes' folders, or deeper inside them: nothing says what they show."""
    beside = [file for file in sorted(folder.iterdir()) if _is_image(file) or _is_other_image(file)]
    if beside:
        text = f"an image next to the folders of the classes ({len(beside)} in all)"
        raise DataError(f"{beside[0]}: {text}; move it into the folder of its class, or out of {folder}")
    for inner in (inner for one in classes for inner in sorted(one.iterdir())):
        if inner.is_dir() and _is_data(inner) and any(_is_image(file) for file in inner.iterdir()):
            mend = f"put all images of a class into {folder}/CLASS itself; the splits are made from them"
            raise DataError(f"{inner}: a folder of images inside the folder of a class; {mend}")


def _images_of(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if _is_image(file))
    other = next((file for file in sorted(folder.iterdir()) if _is_other_image(file)), None)
    if other:
        raise DataError(f"{other}: images of this kind are not read; convert it to one of {', '.join(IMAGES)}")
    if not files:
        raise DataError(f"{folder}: no images of this class ({', '.join(IMAGES)}); add some or remove the folder")
    return files


# Texts


def text(name: str, files: Sequence[Path]) -> DataSet:
    """Characters; one file is cut into 60, 20 and 20 %, the files of a folder go to splits by their hashes."""
    documents = [decoded(file) for file in files]
    for file, document in zip(files, documents, strict=True):
        if not document:
            raise DataError(f"{file}: empty; remove it")
    content = [document.encode() for document in documents]
    alphabet = "".join(sorted(set("".join(documents))))
    if len(documents) == 1:
        parts = {s: documents[0][place] for s, place in places(split_sizes(len(documents[0]))).items()}
    else:
        enough(files[0].parent, len(files), "texts")
        ordered = [documents[i] for i in hashed_order(content)]
        parts = {s: "".join(ordered[place]) for s, place in places(split_sizes(len(files))).items()}
    numbers = {character: number for number, character in enumerate(alphabet)}
    streams = {s: np.array([numbers[c] for c in part], dtype=np.int64) for s, part in parts.items()}
    rows = {s: stream[: len(stream) // WINDOW * WINDOW].reshape(-1, WINDOW) for s, stream in streams.items()}
    if not all(len(windows) for windows in rows.values()):
        raise DataError(f"{files[0]}: too short; every split needs {WINDOW} characters")
    splits = {s: Rows(windows, np.zeros(len(windows), dtype=np.int64)) for s, windows in rows.items()}
    card = own_card(name, "tokens", content, (WINDOW,), len(alphabet), {s: len(r) for s, r in rows.items()})
    return DataSet(card, read=lambda: splits, streams=lambda: streams, alphabet=alphabet)


def pairs(name: str, path: Path) -> DataSet:
    """Lines of {"source", "target"}."""
    whole = decoded(path)
    lines = re.split(r"\r\n|\n|\r", whole)  # splitlines would also split at separators that JSON leaves inside of texts
    found = [_pair(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    enough(path, len(found), "pairs")
    ordered = [found[i] for i in hashed_order([source.encode() for source, _ in found])]
    sizes = split_sizes(len(found))
    splits = {s: ordered[place] for s, place in places(sizes).items()}
    card = own_card(name, "pairs", [line.encode() for line in whole.split("\n")], (), 0, sizes)
    return DataSet(card, texts=lambda: splits)


def _pair(path: Path, number: int, line: str) -> tuple[str, str]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, or a thousand brackets
        deep = "too many brackets inside of one another" if isinstance(error, RecursionError) else str(error)
        why = error.msg if isinstance(error, json.JSONDecodeError) else deep
        raise DataError(f"{path}, line {number}: not JSON that can be read: {why}") from None
    source, target = (entry.get(key) if isinstance(entry, dict) else None for key in ("source", "target"))
    if not (isinstance(source, str) and isinstance(target, str) and source and target):
        form = '{"source": "...", "target": "..."} is needed, both not empty; or, in all lines,'
        form += ' {"text": "...", "label": "..."}'
        raise DataError(f"{path}, line {number}: {form}")
    for text in (source, target):
        if lone := next((c for c in text if "\ud800" <= c <= "\udfff"), ""):
            what = f"\\u{ord(lone):04x} is half of a character, its other half is missing"
            raise DataError(f"{path}, line {number}: {what}; write the whole character")
    return source, target
