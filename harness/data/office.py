"""Pairs of texts: sentences of LibreOffice's help in English and French, eighteen times as many as GNOME's manual has.

Source: the LibreOffice documentation project, as Debian packages it. Each heading and paragraph has an identity that
its translation keeps; sentences within one are aligned by their order. Pages stay whole: no page is in two splits.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.data.cards import Card, DataError, DataSet, hashed_order
from harness.data.files import FOLDER, debian_folders, own_folders

__all__ = ["SETS"]

HELD_OUT = 1500  # pairs of validation, and as many of the test, at least: pages stay whole
BLOCK = re.compile(r'<(p|h[1-6]) id="((?:par|hd)_id[^"]*)"[^>]*>(.*?)</\1>', re.DOTALL)
MARK = re.compile(r"<[^>]*>")
SENTENCE = re.compile(r'(?<=[.!?]) +(?=[A-Z\u00c0-\u00dd"(\u00ab])')  # where one ends and the next begins
WORD = re.compile(r"\w+|[^\w\s]")
LONGEST = 25  # words and signs of a sentence
BY_SYSTEM = 'class="switchinline"'  # words for several systems one after the other; one of them is shown

CARD = Card(
    name="libreoffice-en-fr",
    kind="pairs",
    source="LibreOffice's help 7.4 (English, French), sentences of up to 25 words out of headings and "
    "paragraphs with one identity; splits by page",
    licence="MPL-2.0 (LibreOffice contributors)",
    sha256="99b1b68ad21cb7d6d34df81d5cddf7c39511fcbf4b58fc6e35a9d92ab5092d17",
    shape=(),
    classes=0,
    rows={"train": 30_573, "validation": 1899, "test": 1550},
    get="make data (Debian 12's packages libreoffice-help-en-us and libreoffice-help-fr 7.4.7), or unpack both in the "
    f"folder that {FOLDER} names",
)


def page_paths() -> list[Path]:
    """All English pages, then all French ones."""
    found = []
    for package, language in (("libreoffice-help-en-us", "en-US"), ("libreoffice-help-fr", "fr")):
        pages = f"usr/share/libreoffice/help/{language}/text"
        folders = (*own_folders(pages), *debian_folders(package, pages))
        folder = next((folder for folder in folders if folder.is_dir()), None)
        if folder is None:
            raise DataError(f"data set {CARD.name!r} needs {pages} of {package}: {CARD.get}")
        found += sorted(folder.rglob("*.html"))
    return found


def blocks(page: str) -> dict[str, str]:
    """Headings and paragraphs of a page by their identity, as text with single spaces; what depends on the reader's
    operating system is left out."""
    found: dict[str, str] = {}
    for _, identity, inner in BLOCK.findall(page):
        text = " ".join(html.unescape(MARK.sub("", inner)).split())
        if text and BY_SYSTEM not in inner:
            found.setdefault(identity, text)
    return found


def pages() -> dict[str, dict[str, str]]:
    """English and French blocks: {"en-US/shared/guide/copy": blocks}."""
    found = {}
    for path in page_paths():
        place = path.parts[path.parts.index("help") + 1 :]
        found["/".join(place)] = blocks(path.read_text(encoding="utf-8"))
    return found


def translations() -> dict[str, list[tuple[str, str]]]:
    """Sentences; pages in the order of the hashes of their names: the first validate, the next are the test.

    Of equal sources the first stays, so that nothing held out has been trained on.
    """
    found = pages()
    names = [name.removeprefix("en-US/") for name in found if f"fr/{name.removeprefix('en-US/')}" in found]
    splits: dict[str, dict[str, str]] = {"validation": {}, "test": {}, "train": {}}
    for i in hashed_order([name.encode() for name in names]):
        split = next((s for s in ("validation", "test") if len(splits[s]) < HELD_OUT), "train")
        for source, target in sentences(found[f"en-US/{names[i]}"], found[f"fr/{names[i]}"]):
            if not any(source in known for known in splits.values()):
                splits[split][source] = target
    return {split: list(splits[split].items()) for split in ("train", "validation", "test")}


def sentences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Sentences of blocks that both languages have, where both have equally many; none that is not translated or has
    more than LONGEST words in either."""
    for identity in [identity for identity in ours if identity in theirs]:
        both = SENTENCE.split(ours[identity]), SENTENCE.split(theirs[identity])
        if len(both[0]) == len(both[1]):
            for source, target in zip(*both, strict=True):
                if source != target and max(len(WORD.findall(source)), len(WORD.findall(target))) <= LONGEST:
                    yield source, target


SETS = {CARD.name: DataSet(CARD, texts=translations, paths=page_paths)}
