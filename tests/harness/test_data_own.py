"""The user's own data: what each kind gives, and one error with file, line and mend for what is broken."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas
import pytest
from PIL import Image

from harness import data
from harness.data import files, own


@pytest.fixture(autouse=True)
def forget():
    """Paths of other tests."""
    own.opened.cache_clear()


def flowers(folder, count=6, mode="L"):
    """Two classes of images of 5 x 4 pixels, as bright as their number."""
    for label, name in enumerate(("rose", "tulip")):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new(mode, (5, 4), (10 * i + label,) * len(mode)).save(folder / name / f"{i}.png")
    return str(folder)


def houses(folder, lines, heading="size,age,target"):
    path = folder / "houses.csv"
    path.write_text("\n".join([heading, *lines]) + "\n")
    return str(path)


LINES = [f"{i},{i * i},{'ab'[i % 2]}" for i in range(20)]


def test_a_folder_of_images_by_class(tmp_path):
    name = flowers(tmp_path / "flowers")
    card, splits = data.card(name), data.load(name)
    assert (card.kind, card.shape, card.classes, dict(card.rows)) == (
        "images",
        (4, 5),
        2,
        {"train": 7, "validation": 2, "test": 3},
    )
    rows = [(round(x.max() * 255), y) for r in splits.values() for x, y in zip(r.x, r.y, strict=True)]
    assert sorted(rows) == [(10 * i + label, label) for i in range(6) for label in (0, 1)]
    assert data.draw(name, np.random.default_rng(0), (3,)).shape == (3, 4, 5)


def test_colours_are_channels_and_grey_joins_them(tmp_path):
    name = flowers(tmp_path / "flowers", mode="RGB")
    Image.new("L", (5, 4), 200).save(tmp_path / "flowers" / "rose" / "grey.png")
    assert data.card(name).shape == (3, 4, 5)


def test_the_identity_follows_the_content_and_not_the_place(tmp_path):
    one, two = flowers(tmp_path / "a"), flowers(tmp_path / "b")
    assert data.card(one).sha256 == data.card(two).sha256
    three = flowers(tmp_path / "c")
    (tmp_path / "c" / "rose" / "0.png").rename(tmp_path / "c" / "tulip" / "x.png")
    assert data.card(three).sha256 != data.card(one).sha256


def test_a_path_is_looked_up_in_the_users_folder(tmp_path, monkeypatch):
    flowers(tmp_path / "mine" / "flowers")
    monkeypatch.setenv(files.FOLDER, str(tmp_path))
    assert data.card("mine/flowers").rows["train"] == 7


@pytest.mark.parametrize(("suffix", "lines"), [(".csv", LINES), (".parquet", LINES)])
def test_a_table_has_standardised_columns_and_classes(tmp_path, suffix, lines):
    name = houses(tmp_path, lines)
    if suffix == ".parquet":
        pandas.read_csv(name).to_parquet(tmp_path / "houses.parquet")
        name = str(tmp_path / "houses.parquet")
    card, train = data.card(name), data.load(name)["train"]
    assert (card.kind, card.shape, card.classes) == ("table", (2,), 2)
    np.testing.assert_allclose(train.x.mean(0), 0, atol=1e-6)
    assert train.y.dtype == np.int64


def test_the_target_may_be_a_number_in_any_column(tmp_path):
    name = houses(tmp_path, [f"{i / 4},{i},{-i}" for i in range(20)], "target,size,age")
    splits = data.load(name)
    assert data.card(name).classes == 0
    assert sorted(np.concatenate([r.y for r in splits.values()]).tolist()) == [i / 4 for i in range(20)]


def test_many_whole_numbers_are_numbers_and_few_are_classes(tmp_path):
    assert data.card(houses(tmp_path, [f"{i},0,{i}" for i in range(21)])).classes == 0
    own.opened.cache_clear()
    data.sets.card.cache_clear()
    assert data.card(houses(tmp_path, [f"{i},0,{i % 3 + 9}" for i in range(30)])).classes == 3


def test_text_is_characters_in_order(tmp_path):
    path = tmp_path / "novel.txt"
    path.write_text("".join(f"{i}, " for i in range(200)) + "\u00e9", encoding="utf-8")
    streams = data.tokens(str(path))
    assert "".join(data.spelled(str(path), stream) for stream in streams.values()) == path.read_text(encoding="utf-8")
    assert data.card(str(path)).shape == (own.WINDOW,)


def test_texts_of_a_folder_stay_whole(tmp_path):
    for i in range(10):
        (tmp_path / f"{i}.txt").write_text(str(i) * 40)
    spelled = {split: data.spelled(str(tmp_path), stream) for split, stream in data.tokens(str(tmp_path)).items()}
    assert {split: len(text) for split, text in spelled.items()} == {"train": 240, "validation": 80, "test": 80}
    assert all(text.count(digit) in (0, 40) for text in spelled.values() for digit in "0123456789")


def test_pairs_of_lines(tmp_path):
    path = tmp_path / "pairs.jsonl"
    texts = [{"source": f"a\u2028{i}", "target": f"b\u2028{i}"} for i in range(10)]
    path.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in texts), encoding="utf-8")
    splits = data.pairs(str(path))
    assert {split: len(pairs) for split, pairs in splits.items()} == {"train": 6, "validation": 2, "test": 2}
    assert {a.replace("a", "b") == b for pairs in splits.values() for a, b in pairs} == {True}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([*LINES, "1,2"], r"houses\.csv, line 22: 2 values, other lines have 3; give every line as many"),
        ([*LINES, "1,old,a"], r"houses\.csv, line 22, column 'age': 'old' is not a number; write numbers"),
        ([*LINES, "1,nan,a"], r"houses\.csv, line 22, column 'age': 'nan' is a missing value; fill in"),
        ([*LINES, "1,2,"], r"houses\.csv, line 22, column 'target': an empty cell is a missing target; fill in"),
        ([*LINES, "1,2,NaN"], r"houses\.csv, line 22, column 'target': 'NaN' is a missing target; fill in"),
        ([*(f"1,2,{i}.5" for i in range(9)), "1,2,x"], r"houses\.csv, line 11, column 'target': 'x' is among numbers"),
        ([*(f"1,2,{i}.5" for i in range(9)), "1,2,inf"], r"houses\.csv, line 11, column 'target': 'inf' is beyond 3"),
        (LINES[:1], r"houses\.csv: 1 rows; at least 5 are needed"),
        ([f"{i},1,a" for i in range(9)], r"houses\.csv, column 'target': all targets are 'a'; two classes"),
        ([f"{i},1,0.5" for i in range(9)], r"houses\.csv, column 'target': all targets are '0\.5'; two classes"),
        ([*LINES, "45,1,c"], r"houses\.csv: class 'c' has no row in the training split; give it more"),
        ([f"{i},1,name {i}" for i in range(9)], r"houses\.csv, column 'target': 9 different words in 9 rows are too"),
    ],
)
def test_a_broken_table_names_its_line(tmp_path, lines, message):
    with pytest.raises(data.DataError, match=message):
        data.card(houses(tmp_path, lines))


def test_a_truncated_parquet_is_named(tmp_path):
    pandas.DataFrame({"a": range(9), "target": range(9)}).to_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[:-20])
    with pytest.raises(data.DataError, match=r"a\.parquet: cannot be read as Parquet") as error:
        data.card(str(tmp_path / "a.parquet"))
    assert "\n" not in str(error.value)


def test_a_missing_value_of_parquet_is_named(tmp_path):
    frame = pandas.DataFrame({"a": [1.0, math.nan, 3, 4, 5, 6], "target": [0, 1, 0, 1, 0, 1]})
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(data.DataError, match=r"a\.parquet, row 2, column 'a': an empty cell is a missing value"):
        data.card(str(tmp_path / "a.parquet"))


def test_broken_images_are_named(tmp_path):
    name = flowers(tmp_path / "flowers")
    rose = tmp_path / "flowers" / "rose"
    whole = (rose / "1.png").read_bytes()

    def says(message):
        own.opened.cache_clear()
        with pytest.raises(data.DataError, match=message):
            data.card(name)

    (rose / "1.png").write_bytes(whole[:40])
    says(r"rose/1\.png: not a readable image")
    (rose / "1.png").write_bytes(b"no image")
    says(r"rose/1\.png: not a readable image")
    Image.new("L", (7, 4)).save(rose / "1.png")
    says(r"rose/1\.png: 7 x 4 pixels, .*rose/0\.png has 5 x 4; bring all to one size")
    for file in rose.iterdir():
        file.unlink()
    says(r"rose: no images of this class .*; add some or remove the folder")


def test_other_broken_files_are_named(tmp_path):
    def says(name, content, message):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(data.DataError, match=message):
            data.card(str(tmp_path / name))

    says("a.txt", b"fine\nnot \xff fine", r"a\.txt, line 2: not UTF-8")
    says("b.txt", b"", r"b\.txt: empty")
    says("c.txt", b"short", r"c\.txt: too short")
    says("a.jsonl", b'{"source": "a", "target": "b"}\n{"source"', r"a\.jsonl, line 2: not JSON that can be read")
    says("b.jsonl", b'{"source": "a", "target": ""}\n', r"b\.jsonl, line 1: .* is needed, both not empty")
    says("c.jsonl", b"[1]\n", r"c\.jsonl, line 1: .* is needed")
    says("a.csv", b"alone\n1\n", r"a\.csv: at least two columns, separated by commas, are needed")
    says("b.csv", b"a,b\n1,\xff\n", r"b\.csv, line 2: not UTF-8")
    says("a.xls", b"", r"a\.xls: not a kind of file that is read")
    with pytest.raises(data.DataError, match="there is no file or folder 'no/such'"):
        data.card("no/such")
    (tmp_path / "empty").mkdir()
    with pytest.raises(data.DataError, match="empty: no folders in it; put the images of each class"):
        data.card(str(tmp_path / "empty"))
