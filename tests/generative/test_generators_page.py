"""docs/generators.md: its code runs, its table of extractors is that of the cards, it names every metric."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from generative.extractors import card, names
from generative.judge import Judge
from harness import data

PAGE = (Path(__file__).parents[2] / "docs" / "generators.md").read_text()


def test_its_python_runs():
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.S | re.M):
        exec(compile(code, "generators.md", "exec"), {})


@pytest.mark.parametrize("name", [name for name in names() if card(name)["kind"] == "images"])
def test_its_table_of_extractors_is_that_of_the_cards(name):
    about = card(name)
    accuracy = f"{100 * about['test_accuracy']:.2f} % of {about['test_rows']:,}"
    cells = [f"`{name}`", about["data"], about["features"], accuracy, f"{about['bytes'] / 1000:.0f} kB", about["date"]]
    assert f"| {' | '.join(map(str, cells))} |" in PAGE


@pytest.mark.parametrize("name", ["ring-8", "spirals", "digits", "stacked-digits"])
def test_it_names_every_metric(name):
    judge = Judge(data.card(name))
    rows, _ = judge._of.real(40)
    for metric in judge.scores(rows):
        assert f"`{re.sub('_digits_cnn$', '_<extractor>', metric)}`" in PAGE
