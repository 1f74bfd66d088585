"""Texts with labels of one's own: CSV and JSONL give the same rows; what is broken names its line."""

from __future__ import annotations

import csv
import json

import pytest

from harness import data
from harness.data import own
from harness.data.labelled import divided

ROWS = [(f"text {i}, with a comma\nand a line", "good" if i % 2 else "so so") for i in range(20)]


@pytest.fixture(autouse=True)
def forget():
    """Paths of other tests."""
    own.opened.cache_clear()
    data.sets.card.cache_clear()
    data.sets.pairs.cache_clear()


def as_csv(path, rows, heading=("text", "label")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([heading, *rows])
    return str(path)


def as_jsonl(path, entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return str(path)


def test_csv_and_jsonl_give_the_same_rows_in_the_same_splits(tmp_path):
    first = as_csv(tmp_path / "a.csv", ROWS)
    second = as_jsonl(tmp_path / "a.jsonl", [{"id": 1, "label": label, "text": text} for text, label in ROWS[::-1]])
    card = data.card(first)
    assert (card.kind, card.classes, dict(card.rows)) == ("pairs", 2, {"train": 12, "validation": 4, "test": 4})
    assert card.sha256 == data.card(second).sha256
    assert data.pairs(first) == data.pairs(second)
    assert sorted(pair for rows in data.pairs(first).values() for pair in rows) == sorted(ROWS)


def test_columns_may_have_other_names(tmp_path):
    rows = [(i, *row) for i, row in enumerate(ROWS)]
    name = as_csv(tmp_path / "a.csv", rows, ("id", "The review", "stars"))
    plain = as_csv(tmp_path / "b.csv", ROWS)
    assert data.pairs(f"{name}?text=The review&label=stars") == data.pairs(plain)
    assert data.pairs(f"{name}?text=The%20review&label=stars") == data.pairs(plain)
    entries = [{"body": text, "label": label} for text, label in ROWS]
    assert data.pairs(as_jsonl(tmp_path / "c.jsonl", entries) + "?text=body") == data.pairs(plain)


def test_a_heading_may_be_in_any_capitals(tmp_path):
    plain, upper = as_csv(tmp_path / "a.csv", ROWS), as_csv(tmp_path / "b.csv", ROWS, ("Text", "TARGET"))
    assert data.pairs(upper) == data.pairs(plain)
    assert data.pairs(f"{upper}?text=Text") == data.pairs(plain)
    with pytest.raises(data.DataError, match="there is no column `text` among Text, TARGET"):  # named, so exactly that
        data.card(f"{upper}?text=text")
    twice = as_csv(tmp_path / "c.csv", [(*row, "x") for row in ROWS], ("text", "label", "Text"))
    with pytest.raises(data.DataError, match="2 columns are called `text`; rename all but one"):
        data.card(twice)


def test_a_file_whose_name_has_a_question_mark_is_that_file(tmp_path):
    assert data.card(as_csv(tmp_path / "a?text=b.csv", ROWS)).classes == 2
    with pytest.raises(data.DataError, match=r"'\?column=b' does not name columns; write a\.csv\?text=COLUMN"):
        divided("a.csv?column=b")


def test_a_class_has_one_name_however_it_is_spelt(tmp_path):
    labels = [1, "1", 1.0, "1.0", " 1 ", True, "true", "caf\u00e9", "cafe\u0301 ", -0.0, 0, "-0"]
    entries = [{"text": f"{i}{label!r}", "label": label} for i in range(4) for label in labels]
    name = as_jsonl(tmp_path / "a.jsonl", entries)
    found = {label for rows in data.pairs(name).values() for _, label in rows}
    assert found == {"1", "true", "caf\u00e9", "0"}


def test_equal_texts_lie_beside_each_other_and_the_order_of_lines_does_not_matter(tmp_path):
    rows = [(f"t{i % 10}", "ab"[i // 10]) for i in range(20)]
    one, two = as_csv(tmp_path / "a.csv", rows), as_csv(tmp_path / "b.csv", rows[::-1])
    assert data.pairs(one) == data.pairs(two)
    ordered = [text for split in data.pairs(one).values() for text, _ in split]
    assert ordered[::2] == ordered[1::2]


def test_long_texts_other_line_ends_and_a_byte_order_mark_are_read(tmp_path):
    long = "word " * 40_000
    path = tmp_path / "a.csv"
    lines = ["text,label", f'"{long}",a', *(f"t{i},{'ab'[i % 2]}" for i in range(9))]
    path.write_bytes("\ufeff".encode() + "\r".join(lines).encode())
    pairs = [pair for rows in data.pairs(str(path)).values() for pair in rows]
    assert len(pairs) == 10
    assert (long, "a") in pairs


GOOD = "".join(f"t{i},{'ab'[i % 2]}\n" for i in range(9))
SOUND = "".join(json.dumps({"text": f"t{i}", "label": "ab"[i % 2]}) + "\n" for i in range(9))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", f"text,label\n{GOOD},a\n", r'a\.csv, line 11: the text is ""; give some text or remove the line'),
        ("a.csv", f"text,label\n{GOOD}u,\n", r"a\.csv, line 11: no label; fill it in"),
        ("a.csv", f'text,label\n"a\nb",a\n{GOOD}u, v,a\n', r"a\.csv, line 13: 3 values, the heading has 2 columns"),
        ("a.csv", f'text,label\n{GOOD}"u,a\nv,b\n', r"a\.csv, line 11: not a row of a CSV file .*close the quotes"),
        ("a.csv", f"text,label,text\n{GOOD}", r"a\.csv, line 1: 2 columns are called `text`; rename"),
        ("a.csv", "text,label\nt,a\nu,b\n", r"a\.csv: 2 texts; at least 5 are needed"),
        ("a.csv", "text,label\n" + "".join(f"t{i},a\n" for i in range(9)), r"all labels are 'a'; two classes"),
        ("a.csv", "text,label\n" + "".join(f"t{i},{i}\n" for i in range(9)), r"9 different labels in 9 rows .*'0'"),
        ("a.csv", f"text,label\n{GOOD * 3}t,c\n", r"a\.csv: class 'c' has no row in the training split"),
        ("b.jsonl", f"{SOUND}[1]\n", r"b\.jsonl, line 10: .*is needed"),
        ("b.jsonl", f'{SOUND}{{"text": "a"\n', r"b\.jsonl, line 10: not JSON"),
        ("b.jsonl", f'{SOUND}{{"text": "a"}}\n', r"b\.jsonl, line 10: there is no key `label` among text; add it"),
        ("b.jsonl", f'{SOUND}{{"text": 3, "label": "a"}}\n', r"b\.jsonl, line 10: the text is 3; give some text"),
        ("b.jsonl", f'{SOUND}{{"text": "a", "label": null}}\n', r"b\.jsonl, line 10: the label is null; give the name"),
        ("b.jsonl", f'{SOUND}{{"text": "a", "label": 0.5}}\n', r"b\.jsonl, line 10: the label is 0.5; give the name"),
        ("b.jsonl", f'{SOUND}{{"text": "\\ud800", "label": "a"}}\n', r"b\.jsonl, line 10: '.ud800' is half a char"),
        ("b.jsonl", f"{SOUND}{'[' * 100_000}\n", r"b\.jsonl, line 10: numbers or brackets that no text"),
        ("b.jsonl", '{"body": "a", "label": "b"}\n', r'b\.jsonl, line 1: .*or, in all lines, \{"text": "...",'),
    ],
)
def test_what_is_broken_names_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(data.DataError, match=message):
        data.card(str(tmp_path / name))
