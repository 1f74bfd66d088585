"""Texts as tokens and back."""

from __future__ import annotations

import numpy as np
import pytest

from supervised import vocabulary
from supervised.vocabulary import END, PAD, START, UNKNOWN, check_units, learnt, padded, words


def test_words_and_marks():
    assert words("Ouvrez l'ensemble, 2 fois.") == ["ouvrez", "l", "'", "ensemble", ",", "2", "fois", "."]


@pytest.mark.parametrize("units", ["characters", "bytes"])
def test_characters_and_bytes_spell_the_text_again(units):
    text = "Caf\u00e9, d\u00e9j\u00e0 vu."
    known = learnt([text], units, 1000)
    assert known.decoded([START, *known.encoded(text), END, 7, PAD]) == text
    assert len(known.encoded(text)) == (len(text) if units == "characters" else len(text.encode()))


def test_a_vocabulary_holds_the_most_frequent_words_and_no_others():
    known = learnt(["b a a c c c", "a d"], "words", 7, least=1)
    assert known.spellings[4:] == ("a", "c", "b")
    assert known.encoded("A b d") == [4, 6, UNKNOWN]
    assert learnt(["b a a"], "words", 100, least=2).spellings[4:] == ("a",)


def test_rows_are_filled_up_or_cut_off():
    assert np.array_equal(padded([[5, 6, 7], [8]], 2), [[5, 6], [8, PAD]])


def test_bpe_spells_the_text_again_with_fewer_tokens():
    pytest.importorskip("tokenizers")
    text = "the cat and the hat and the bat. " * 20
    known = learnt([text], "bpe", 300)
    assert known.decoded(known.encoded(text)) == text
    assert len(known.encoded(text)) < len(text) / 2
    assert max(known.encoded(text)) < 300


def test_bpe_without_its_package_is_refused(monkeypatch):
    monkeypatch.setattr(vocabulary, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"units: bpe needs .* pip install 'seedbed\[pretrained\]'"):
        check_units("units", "bpe")
    check_units("units", "bytes")
