"""What a text classifier is held against: the most frequent class, and a linear model of words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from supervised.measures import confusion, macro_f1

__all__ = ["text_controls"]


def text_controls(train: Sequence[tuple[str, str]], test: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Scores on test texts of the most frequent training class and of tf-idf with a logistic regression.

    Words, signs and pairs of neighbours, sublinear counts (scikit-learn's vectoriser), classes weighted by frequency;
    nothing is tuned.

    Args:
        train: texts and their classes.
        test: likewise.

    Returns:
        "majority_accuracy", "tfidf_accuracy", "tfidf_f1" (macro).
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # seconds to import
    from sklearn.linear_model import LogisticRegression

    texts, labels = zip(*train, strict=True)
    asked, truth = zip(*test, strict=True)
    classes, counts = np.unique(labels, return_counts=True)
    vectoriser = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]+")
    guess = np.full(len(asked), classes[0])
    if len(classes) > 1:  # few rows may all be of one class
        model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(vectoriser.fit_transform(texts), labels)
        guess = model.predict(vectoriser.transform(asked))
    known = {name: i for i, name in enumerate(sorted({*classes, *truth}))}
    told, found = (torch.tensor([known[name] for name in names]) for names in (truth, guess))
    return {
        "majority_accuracy": float(np.mean([name == classes[counts.argmax()] for name in truth])),
        "tfidf_accuracy": float((told == found).double().mean()),
        "tfidf_f1": float(macro_f1(confusion(found, told, len(known)))),
    }
