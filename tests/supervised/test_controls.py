"""Controls of text classifiers."""

import pytest

from supervised.controls import text_controls

TRAIN = [("it helped me a lot", "good")] * 6 + [("it made me sick", "bad")] * 3
TEST = [("helped a lot", "good"), ("so sick", "bad"), ("it made it worse, sick", "bad"), ("sick", "good")]


def test_words_tell_more_than_the_most_frequent_class():
    found = text_controls(TRAIN, TEST)
    assert found["majority_accuracy"] == 0.5
    assert found["tfidf_accuracy"] == 0.75
    f1_good, f1_bad = 2 * 1 / (2 + 1), 2 * 2 / (2 + 3)
    assert found["tfidf_f1"] == pytest.approx((f1_good + f1_bad) / 2)


def test_a_class_that_only_the_test_has_is_never_guessed():
    found = text_controls(TRAIN, [*TEST, ("well", "neutral")])
    assert found["tfidf_accuracy"] == pytest.approx(0.6)
    assert found["tfidf_f1"] < 0.5
