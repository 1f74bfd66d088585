"""Tables of the user's own: no row is lost, a split follows from values alone, all obstacles are named at once."""

from __future__ import annotations

import numpy as np
import pandas
import pytest

from harness.data import DataError
from harness.data.own import opened
from harness.data.sheets import number


def csv_file(folder, text, name="a.csv"):
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def lines(rows, heading="", end="\n"):
    return end.join([heading] * bool(heading) + [",".join(map(str, row)) for row in rows]) + end


def count(name):
    return sum(opened(name).card.rows.values())


def placed(name):
    """The split of each row by its first feature, which must differ from row to row: order is all that is kept."""
    splits = opened(name).read()
    every = np.concatenate([rows.x[:, 0] for rows in splits.values()])
    rank = {value: place for place, value in enumerate(sorted(every.tolist()))}
    return {rank[value]: split for split, rows in splits.items() for value in rows.x[:, 0].tolist()}


NUMBERS = [(i, i * i / 4, i % 2) for i in range(3, 23)]
FLOWERS = [(i / 4, i, ("rose", "tulip")[i % 2]) for i in range(3, 23)]


# Headings


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (lines(NUMBERS), 20),
        (lines(NUMBERS, "size,age,target"), 20),
        (lines(FLOWERS), 20),
        (lines(FLOWERS, "size,age,kind"), 20),
        (lines(FLOWERS, "size,age,2019"), 20),  # a number over words is a name where the others are
        (lines([(f"{i} ", f" {i + 1}", i % 2) for i in range(3, 23)]), 20),
        (lines(NUMBERS, end="\r"), 20),
        (lines(NUMBERS, "size,age,target", end="\r\n"), 20),
        (lines(NUMBERS, "size,age,target").replace("\n", "\n\n"), 20),
        ("\ufeff" + lines(NUMBERS), 20),
    ],
)
def test_every_row_is_taken_with_a_heading_and_without(tmp_path, text, rows):
    assert count(csv_file(tmp_path, text)) == rows
    assert count(csv_file(tmp_path, text, "a.data")) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lines(NUMBERS, "size,1990,1991"), "line 1: 'size' looks like a name, '1990' like a value; give every column"),
        (lines([("old", 3, 1), *NUMBERS]), "line 1: 'old' looks like a name, '3' like a value"),
        (lines(NUMBERS, "0,1,2"), "line 1: 0, 1, 2 ... may be names .as pandas writes them. or values; give every"),
        (lines(NUMBERS, "1,2,3"), "line 1: 1, 2, 3 ... may be names"),
        (lines(FLOWERS, "1990,1991,kind"), "line 1: '1990' looks like a value, 'kind' like a name"),
        (lines([(i, *row) for i, row in enumerate(NUMBERS)], ",size,age,target"), "column 1: a column without a name"),
        (lines(NUMBERS, "target,size,target"), "2 columns are called 'target' .1, 3.; rename or remove all but one"),
        (lines(NUMBERS, "size, size,target"), "2 columns are called 'size'"),
        (lines(NUMBERS, "target,size,label"), "columns 'target' and 'label' may both be the target; rename or remove"),
        (lines(NUMBERS, "Target,size,target"), "columns 'Target' and 'target' may both be the target"),
    ],
)
def test_a_heading_in_doubt_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=r"a\.csv(, |: | )" + message):
        opened(csv_file(tmp_path, text))


def test_the_target_is_found_whatever_its_capitals(tmp_path):
    rows = [(i % 3, i, i / 4) for i in range(3, 23)]
    assert opened(csv_file(tmp_path, lines(rows, "TARGET,size,age"))).card.classes == 3


# Values


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1e0", 1.0), ("-0.0", 0.0), (".5", 0.5), ("1_2", None), ("\u0661", None), ("", None), ("a", None)],
)
def test_a_number_is_what_everybody_reads_as_one(cell, value):
    assert number(cell) == value
    assert not str(number(cell)).startswith("-")


@pytest.mark.parametrize(
    ("one", "two"),
    [("-0.0", "0.0"), ("cat", "cat "), ("caf\u00e9", "cafe\u0301"), ("cat", "cat\u200b"), ("2", "2e0")],
)
def test_what_looks_alike_is_one_class(tmp_path, one, two):
    other = "5" if number(one) is not None else "dog"
    rows = [(i, (one, two, other)[i % 3]) for i in range(3, 33)]
    assert opened(csv_file(tmp_path, lines(rows, "size,target"))).card.classes == 2


def test_a_class_may_be_called_none(tmp_path):
    rows = [(i, ("none", "None", "some")[i % 3]) for i in range(3, 33)]
    assert opened(csv_file(tmp_path, lines(rows, "size,target"))).card.classes == 3


@pytest.mark.parametrize("cell", ["", " ", "NA", "<NA>", "NaN", "nan", "null", "?", "#N/A", "NaT"])
def test_a_missing_label_is_no_class(tmp_path, cell):
    rows = [*FLOWERS, (7, 8, cell)]
    with pytest.raises(DataError, match=r"line 22, column 'kind': .* is a missing target; fill in what is missing"):
        opened(csv_file(tmp_path, lines(rows, "size,age,kind")))


@pytest.mark.parametrize("missing", [pandas.NA, None, np.nan])
def test_a_missing_label_of_parquet_is_no_class(tmp_path, missing):
    frame = pandas.DataFrame({"size": range(9), "target": [*"ababab", missing, *"ba"]})
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet, row 7, column 'target': an empty cell is a missing target"):
        opened(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize("cell", ["1e39", "-1e39", "1e999", "inf"])
def test_numbers_beyond_single_precision_are_refused(tmp_path, cell):
    for row, column in (((cell, 4, 0.5), "size"), ((5, 4, cell), "price")):
        rows = [*((i, i + 1, i / 4) for i in range(3, 33)), row]
        with pytest.raises(DataError, match=rf"line 32, column '{column}': '{cell}' is beyond 3\.4e\+38; give"):
            opened(csv_file(tmp_path, lines(rows, "size,age,price"), f"{column}.csv"))


def test_rows_that_lie_too_far_from_the_training_rows_are_refused(tmp_path):
    """A constant training column with a spread of 1e-20, and 1e30 somewhere else: 1e50 standard deviations."""
    names = []
    for far in range(3, 43):
        rows = [(1e-20 * (i % 2) if i != far else 1e30, i, i % 2) for i in range(3, 43)]
        names.append(csv_file(tmp_path, lines(rows, "size,age,target"), f"{far}.csv"))
    held_out = [name for name in names if _fits(name)]
    assert 5 < len(held_out) < 35
    for name in set(names) - set(held_out):
        with pytest.raises(DataError, match=r"column 'size': (validation|test) rows are beyond .* standard deviations"):
            opened(name)


def _fits(name):
    try:
        splits = opened(name).read()
    except DataError:
        return False
    return all(np.isfinite(split.x).all() for split in splits.values())


def test_a_few_whole_numbers_that_hardly_repeat_are_numbers(tmp_path):
    assert opened(csv_file(tmp_path, lines([(i / 4, 3 * i) for i in range(3, 13)], "size,price"))).card.classes == 0


def test_a_constant_column_is_zero(tmp_path):
    for value in (0.1, 1 / 3, 1e17 + 0.1):  # their means are rounded
        rows = [(value, i, i % 2) for i in range(3, 33)]
        splits = opened(csv_file(tmp_path, lines(rows, "size,age,target"), f"{value}.csv")).read()
        assert all(np.abs(split.x[:, 0]).max() < 1e-12 * value for split in splits.values())


def test_targets_keep_their_digits(tmp_path):
    rows = [(i, 1_700_000_000 + i * 0.25) for i in range(3, 43)]
    splits = opened(csv_file(tmp_path, lines(rows, "size,target"))).read()
    assert sorted(np.concatenate([split.y for split in splits.values()]).tolist()) == [y for _, y in rows]


# Splits


def test_csv_and_parquet_are_one_table(tmp_path):
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "size": np.arange(60) / 8,
            "single": rng.normal(size=60).astype(np.float32),
            "whole": rng.integers(0, 9, 60),
            "zero": [-0.0, 0.0] * 30,
            "target": rng.choice(["caf\u00e9", "tea "], 60),
        }
    )
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.set_index("size").to_parquet(tmp_path / "b.parquet")  # the index is a column, written last
    shuffled = frame[["size", "target", "zero", "whole", "single"]].sample(frac=1, random_state=1)
    shuffled.to_parquet(tmp_path / "c.parquet")
    one, two, three, four = (opened(str(tmp_path / file)) for file in ("a.csv", "a.parquet", "b.parquet", "c.parquet"))
    assert one.card.sha256 == two.card.sha256
    for split, rows in one.read().items():
        np.testing.assert_array_equal(rows.x, two.read()[split].x)
        np.testing.assert_array_equal(rows.y, two.read()[split].y)
        np.testing.assert_array_equal(rows.x[:, 0], three.read()[split].x[:, -1])
        np.testing.assert_array_equal(rows.x[:, [0, 3, 2, 1]], four.read()[split].x)


def test_row_numbers_that_pandas_keeps_beside_a_table_are_no_feature(tmp_path):
    frame = pandas.DataFrame({"size": range(20), "target": [i % 2 for i in range(20)]})
    frame[frame["size"] != 3].to_parquet(tmp_path / "a.parquet")
    assert opened(str(tmp_path / "a.parquet")).card.shape == (1,)


def test_a_split_follows_from_values_and_not_from_their_spelling(tmp_path):
    plain = csv_file(tmp_path, lines([(i, i % 5, i % 2) for i in range(3, 63)], "size,age,target"))
    spelled = lines([(f"{i}.0", f'"{i % 5}e0"', f" {i % 2}.") for i in range(62, 2, -1)], "size,age,target")
    named = csv_file(tmp_path, lines([(i, i % 5, i % 2) for i in range(3, 63)], "size,zebra,target"), "c.csv")
    other = csv_file(tmp_path, spelled, "b.csv")
    assert placed(plain) == placed(other)
    assert opened(plain).card.sha256 == opened(other).card.sha256 != opened(named).card.sha256
    swapped = csv_file(tmp_path, lines([(i % 2, i, i % 5) for i in range(3, 63)], "target,size,age"), "d.csv")
    assert placed(plain) == placed(swapped)


# All at once


def test_all_obstacles_are_named_at_once(tmp_path):
    rows = [(i, "" if i % 2 else 4, ("male", "female")[i % 2], "1e40", f"name {i}") for i in range(3, 23)]
    with pytest.raises(DataError) as error:
        opened(csv_file(tmp_path, "# made by hand\n" + lines(rows, ",age,sex,fare,fare")))
    for part in (
        "has 7 obstacles",
        "line 1: 1 value, other lines have 5: give every line as many values; comments are not skipped",
        "column 1: a column without a name",
        "2 columns are called 'fare' (4, 5): rename",
        "line 3, column 'age': an empty cell is a missing value (10 cells): fill in what is missing",
        "line 3, column 'sex': 'female' is not a number (20 cells): write numbers in place of words",
        "line 3, column 'fare': '1e40' is beyond 3.4e+38 (20 cells)",
        "column 'fare': 20 different words in 20 rows are too many for classes",
        "No column is called target, so the last one, column 'fare', was taken for it",
    ):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_many_columns_of_words_are_counted(tmp_path):
    rows = [("a",) * 50 + (i % 2,) for i in range(20)]
    heading = ",".join(f"c{i}" for i in range(50)) + ",target"
    with pytest.raises(DataError, match=r"has 50 obstacles\. .*column 'c7'.*; and 42 more: write numbers"):
        opened(csv_file(tmp_path, lines(rows, heading)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lines(NUMBERS) + '5,"6,1\n' + lines(NUMBERS), r"line 21: a quote \(\"\) is opened and never closed"),
        (lines(NUMBERS) + "5," + "6" * 140_000 + ",1\n", r"line 21: a value has more than 131,072 characters"),
        (lines(NUMBERS) + '5,"6' + ",1\n" * 50_000, r"line 21: "),
        (lines(NUMBERS).replace(",", ";"), "its values are separated by semicolons; save it with commas"),
        (lines(NUMBERS).replace(",", "  "), "its values are separated by blanks; save it with commas"),
        ("a;target\n" + "1,5;2\n2,5;3\n" * 10, "its values are separated by semicolons and have decimal commas; save"),
        ("text\tlabel\n" + "so, good\tone\nbad, so\ttwo\n" * 10, r"has 2 obstacles\. .* separated by tabs: .* quotes"),
        ("", "at least two columns, separated by commas, are needed"),
        ("\n\n", "at least two columns"),
        ("a\nb\n", "at least two columns"),
        (lines(NUMBERS).encode("utf-16"), "line 1: not UTF-8; save it as UTF-8"),
    ],
)
def test_files_that_are_no_tables_are_named(tmp_path, text, message):
    with pytest.raises(DataError, match=r"a\.csv(, |: | )" + message):
        opened(csv_file(tmp_path, text))
