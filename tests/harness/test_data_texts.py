"""Pairs of texts and series: what is in them, splits that are disjoint and never move, files that are broken."""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from types import ModuleType

import numpy as np
import pytest

from harness import data
from harness.data import bilingual, office, series, stories
from harness.randomness import generator
from tests.harness.test_data import here


@pytest.mark.parametrize(
    ("name", "pinned"),
    [
        ("cmudict", "f99144ee bfed4fc1 68ca17fe"),
        ("drug-reviews", "5e920759 cbed63f5 661177b6"),
        ("gnome-en-fr", "ab12f845 505fb08c 727d0889"),
        ("gnome-help", "35a023a8 451119eb b1cab891"),
        ("libreoffice-en-fr", "e04eea83 e8efe0b5 fc3adb07"),
        ("stories-1", "837504cc 26c69943 3596876b"),
        ("stories-2", "74d21a13 f36ff6d5 d2d2f4d1"),
    ],
)
def test_pairs_never_move_and_no_source_is_in_two_splits(name, pinned):
    here(name)
    splits = data.pairs(name)
    assert list(splits) == ["train", "validation", "test"]
    assert " ".join(hashlib.sha256(repr(pairs).encode()).hexdigest()[:8] for pairs in splits.values()) == pinned
    sources = [{source for source, _ in pairs} for pairs in splits.values()]
    assert sum(len(found) for found in sources) == len(set.union(*sources))


def test_manuals_are_aligned():
    here("gnome-en-fr")
    pairs = dict(pair for split in data.pairs("gnome-en-fr").values() for pair in split)
    assert pairs["Accessibility icons"] == "Ic\u00f4nes Accessibilit\u00e9"
    numbers = [(re.findall(r"\d+", a), re.findall(r"\d+", b)) for a, b in pairs.items() if re.search(r"\d", a)]
    assert np.mean([sorted(a) == sorted(b) for a, b in numbers]) > 0.8  # numbers survive a translation


def test_a_page_of_another_shape_is_left_out(tmp_path, monkeypatch):
    def page(language: str, name: str, *lines: str) -> None:
        path = tmp_path / "usr/share/help" / language / "gnome-help" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        body = "".join(f"<p>{line}</p>" for line in lines)
        path.write_text(f"<page><title>{language}</title>{body}<item/></page>", encoding="utf-8")

    page("C", "a.page", "one <em>two</em>\n   three", "same")
    page("fr", "a.page", "un deux trois", "same")
    page("C", "b.page", "four", "five")
    page("fr", "b.page", "quatre cinq")
    monkeypatch.setenv("SEEDBED_DATA", str(tmp_path))
    monkeypatch.setattr(bilingual, "hashed", lambda pairs, held_out: list(pairs))
    assert bilingual.translations() == [("C", "fr"), ("one two three", "un deux trois")]


def test_help_is_paired_by_identity_and_sentences_by_order(tmp_path, monkeypatch):
    def page(language: str, name: str, **lines: str) -> None:
        path = tmp_path / "usr/share/libreoffice/help" / language / "text/a" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        body = "".join(f'<p id="par_{identity}" dir="auto">{line}</p>' for identity, line in lines.items())
        path.write_text(f'<html><p>no identity</p><h1 id="hd_id0">{language}</h1>{body}</html>', encoding="utf-8")

    long = "long " * 26
    page(
        "en-US",
        "1.html",
        id1="One <em>two</em>\n &amp; three. Four.",
        id2="same",
        id3="only English",
        id4="a. B",
        id5=long,
    )
    page("fr", "1.html", id2="same", id1="Un deux &amp; trois. \u00c7a.", id4="a b", id5="court")
    page("en-US", "2.html", id1='<span class="switchinline">Cmd</span> five', id4="six")
    page("fr", "2.html", id1="cinq", id4="six !")
    page("en-US", "3.html", id1="seven")
    monkeypatch.setenv("SEEDBED_DATA", str(tmp_path))
    monkeypatch.setattr(office, "HELD_OUT", 1)
    found = office.translations()
    first = [("One two & three.", "Un deux & trois."), ("Four.", "\u00c7a.")]
    pages = [pairs[1:] if ("en-US", "fr") in pairs else pairs for pairs in (found["validation"], found["test"])]
    assert sorted(pages, key=len) == [[("six", "six !")], first]  # the heading stays where it is met first
    assert found["train"] == []


def test_a_title_asks_for_its_own_paragraphs_and_pages_stay_whole(tmp_path, monkeypatch):
    def page(name: str, body: str) -> None:
        path = tmp_path / name
        path.write_text(f"<page><info><desc>not this</desc></info>{body}</page>", encoding="utf-8")

    long = " ".join(["word"] * 14)
    page("a.page", f"<title>A</title><p>one</p><steps><item><p>{long}</p></item></steps>"
         f"<section><title>B  b</title><p>two {long}</p><!-- no --></section>")  # fmt: skip
    page("b.page", f"<title>C</title><p>short</p><section><title>D</title><p>x {long}</p></section>")
    page("c.page", f"<title>D</title><p>twice {long}</p>")
    monkeypatch.setattr(bilingual, "english_paths", lambda: sorted(tmp_path.glob("*.page")))
    splits = bilingual.questions()
    pairs = [pair for split in splits.values() for pair in split]
    assert pairs == [("A", f"one {long}"), ("B b", f"two {long}")]
    assert sum(map(bool, splits.values())) == 1  # both are of one page


def test_words_have_their_sounds():
    here("cmudict")
    words = dict(pair for split in data.pairs("cmudict").values() for pair in split)
    assert words["hello"] == "HH AH L OW"
    assert len({sound for sounds in words.values() for sound in sounds.split()}) == 39
    assert not any("(" in word for word in words)


def test_reviews_have_the_published_majority():
    here("drug-reviews")
    test = [sentiment for _, sentiment in data.pairs("drug-reviews")["test"]]
    assert {s: test.count(s) for s in set(test)} == {"positive": 248, "negative": 95, "neutral": 36}
    assert not any("&#" in text or text.startswith('"') for text, _ in data.pairs("drug-reviews")["train"])


def answer(story: str) -> str:
    """Solves a story by following it, independently of how it was made."""
    *lines, question = re.findall(r"[^.?]+[.?]", story)
    where: dict[str, str] = {}
    bearer: dict[str, str] = {}
    for line in lines:
        person, verb, *_, last = line.strip(" .").split()
        if verb == "took":
            bearer[last] = person
        elif verb == "dropped":
            where[last] = where[person]
            del bearer[last]
        else:
            where[person] = last
    asked = question.strip(" ?").split()[-1]
    return where[bearer.get(asked, asked)]


@pytest.mark.parametrize("name", ["stories-1", "stories-2"])
def test_stories_can_be_solved_and_answers_are_fair(name):
    splits = data.pairs(name)
    pairs = [pair for split in splits.values() for pair in split]
    assert all(answer(story) == place for story, place in pairs)
    shares = np.unique([place for _, place in pairs], return_counts=True)[1] / len(pairs)
    assert len(shares) == 6
    assert shares.max() < 0.2


def test_two_facts_cannot_be_answered_by_the_last_place_alone():
    """A guess that knows the last place of the story is far from solving it."""
    rng = generator(0, "test")
    told = [stories.two_facts(rng) for _ in range(500)]
    last = [[word for word in re.findall(r"\w+", story) if word in stories.PLACES][-1] for story, _ in told]
    assert np.mean([guess == place for guess, (_, place) in zip(last, told, strict=True)]) < 0.6


def test_mnist_1d_has_the_numbers_of_its_package(monkeypatch):
    """Its package asks for matplotlib and requests, which nothing of ours needs: empty modules stand in."""
    for name in ("matplotlib", "matplotlib.pyplot", "requests"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["matplotlib"].pyplot = sys.modules["matplotlib.pyplot"]
    pytest.importorskip("mnist1d", reason="make data installs mnist1d")
    theirs = importlib.import_module("mnist1d.data")
    args = theirs.get_dataset_args()
    args.shuffle_seq, args.num_samples = True, 300
    state = np.random.get_state()
    made = theirs.make_dataset(args)
    np.random.set_state(state)
    x, y = series.mnist_1d(shuffled=True, count=300)
    np.testing.assert_allclose(x, np.concatenate([made["x"], made["x_test"]]), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(y, np.concatenate([made["y"], made["y_test"]]))


def test_a_series_is_read_as_steps_and_features(tmp_path):
    path = tmp_path / "a.ts"
    path.write_text("# words\n@problemName a\n@data\n1,2,3:4,5,6:left\n7,8,9:0,0,1e1: right\n")
    x, labels = series.parse_ts(path)
    assert x[0].tolist() == [[1, 4], [2, 5], [3, 6]]
    assert x[1, -1].tolist() == [9, 10]
    assert labels == ["left", "right"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,x,3:left", "its features are not numbers, or differ in length"),
        ("1,2,3:4,5:left", "its features are not numbers, or differ in length"),
        ("1,2:left", "series of one length are needed"),
    ],
)
def test_a_broken_series_names_file_and_line(tmp_path, line, message):
    path = tmp_path / "a.ts"
    path.write_text(f"@data\n1,2,3:left\n{line}\n")
    with pytest.raises(data.DataError, match=rf"a\.ts, line 3: {message}"):
        series.parse_ts(path)


@pytest.mark.parametrize("name", ["breast-cancer", "diabetes", "iris", "wine"])
def test_tables_are_standardised_by_training_rows_alone(name):
    splits = data.load(name)
    np.testing.assert_allclose(splits["train"].x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(splits["train"].x.std(0), 1, atol=1e-5)
    assert abs(splits["test"].x.mean(0)).max() > 1e-3


def test_tables_are_sklearns_own():
    from sklearn.datasets import load_diabetes, load_wine

    wine = data.load("wine").values()
    assert np.bincount(np.concatenate([r.y for r in wine])).tolist() == np.bincount(load_wine().target).tolist()
    targets = np.concatenate([r.y for r in data.load("diabetes").values()])
    np.testing.assert_array_equal(np.sort(targets), np.sort(load_diabetes().target))
    scale = [data.load("diabetes")[s].x for s in ("train", "validation", "test")]
    raw = load_diabetes(scaled=False).data
    for column in range(10):  # standardising keeps the order
        assert len(np.unique(np.concatenate(scale)[:, column])) == len(np.unique(raw[:, column]))
