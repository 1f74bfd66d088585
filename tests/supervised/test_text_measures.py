"""BLEU, chrF, edit distance, baselines; sacreBLEU's own numbers (2.6.0) stand here, and where it is, it is asked."""

from __future__ import annotations

import random

import pytest

from supervised.text_measures import bleu, chrf, dictionary, edit_distance, error_rate, exact, looked_up

MADE = ["the cat sat on the mat", "hello there world"]
TRUE = ["the cat is on the mat", "hello world"]


def cut(texts):
    return [text.split() for text in texts]


def test_bleu_and_chrf_give_the_numbers_of_sacrebleu():
    assert bleu(cut(MADE), cut(TRUE)) == pytest.approx(32.46679154750988)
    assert chrf(MADE, TRUE) == pytest.approx(60.30647038869241)


def test_bleu_and_chrf_equal_sacrebleu_on_random_texts():
    sacrebleu = pytest.importorskip("sacrebleu")
    rng = random.Random(0)
    for count in (1, 3, 30):
        true = [[rng.choice(["a", "bb", "ccc", "d", "ee"]) for _ in range(rng.randint(1, 9))] for _ in range(count)]
        made = [[t if rng.random() < 0.6 else "d" for t in row][: rng.randint(1, 9)] for row in true]
        texts, references = [" ".join(t) for t in made], [" ".join(t) for t in true]
        if max(map(len, true)) >= 4:  # below that sacreBLEU's is 0
            expected = sacrebleu.corpus_bleu(texts, [references], tokenize="none").score
            assert bleu(made, true) == pytest.approx(expected)
        assert chrf(texts, references) == pytest.approx(sacrebleu.corpus_chrf(texts, [references]).score)


def test_a_perfect_text_has_100_and_a_foreign_one_0():
    assert bleu(cut(TRUE), cut(TRUE)) == pytest.approx(100)
    assert chrf(TRUE, TRUE) == pytest.approx(100)
    assert bleu([["x"] * 5], [["y"] * 5]) == 0
    assert chrf(["xxxxx"], ["yyyyy"]) == 0
    assert bleu([[]], [["a"]]) == chrf([""], ["a"]) == 0


def test_bleu_of_short_texts_tells_right_from_wrong():
    true = cut(["one", "two three", "four five six"])
    assert bleu(true, true) == pytest.approx(100)
    half = cut(["one", "two three", "nine nine nine"])
    assert bleu(half, true) == pytest.approx(100 * (3 / 6 * 1 / 3 * 1 / 2) ** (1 / 3))
    assert bleu(cut(["x", "y z", "u v w"]), true) == 0
    assert bleu(cut(["one"]), cut(["one"])) == pytest.approx(100)
    assert bleu([["x"]], [[]]) == bleu([[]], [[]]) == 0


@pytest.mark.parametrize(
    ("a", "b", "edits"), [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("flaw", "lawn", 2), ("a", "a", 0)]
)
def test_edit_distance(a, b, edits):
    assert edit_distance(a, b) == edits
    assert edit_distance(b, a) == edits


def test_rates_are_over_all_rows_together():
    made, true = [["K", "AE", "T"], ["D"]], [["K", "AE", "T"], ["D", "AO", "G"]]
    assert error_rate(made, true) == pytest.approx(2 / 6)
    assert exact(made, true) == 0.5


def test_the_dictionary_pairs_what_occurs_together():
    sources, targets = cut(["the cat", "the dog", "a cat"]), cut(["le chat", "le chien", "un chat"])
    known = dictionary(sources, targets)
    assert known == {"the": "le", "cat": "chat", "dog": "chien", "a": "un"}
    assert looked_up(["a", "dog", "x"], known) == ["un", "chien", "x"]
