"""Measures of texts beside the true ones, of whole corpora: BLEU, chrF, edit distance; and baselines to beat.

Papers: Papineni et al. 2002 (BLEU); Chen & Cherry 2014 (its smoothing); Popovic 2015 (chrF); Levenshtein 1966; Dice
1945; Salton & Buckley 1988 (tf-idf).
BLEU and chrF have sacreBLEU's defaults (Post 2018) and equal it to rounding, but for two things: BLEU takes tokens, so
that the caller says what a word is; and where all references are shorter than four tokens it is that of shorter runs.

Legend: n order of n-grams, hypotheses and references one for each row.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

__all__ = ["bleu", "chrf", "dictionary", "edit_distance", "error_rate", "exact", "found_at", "looked_up", "tf_idf"]

Tokens = Sequence[str]


def ngrams(tokens: Tokens | str, n: int) -> Counter[tuple[str, ...]]:
    """How often each run of n tokens (or characters) occurs."""
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def bleu(hypotheses: Sequence[Tokens], references: Sequence[Tokens], order: int = 4) -> float:
    """BLEU = exp(min(0, 1 - r / h)) (p_1 ... p_N)^(1/N), in percent.

    p_n is the share of the hypotheses' n-grams that the reference has too, counted over all rows; where there is none,
    1 / (2^k total) for the k-th such order (Chen & Cherry's third smoothing).

    Args:
        hypotheses: tokens of each row.
        references: likewise.
        order: N; where no reference is so long, the length of the longest.

    Returns:
        0 to 100; 0 where no token is right.
    """
    order = max(1, min(order, max(map(len, references), default=0)))
    precisions, halves = [], 1.0
    for n in range(1, order + 1):
        right = total = 0
        for hypothesis, reference in zip(hypotheses, references, strict=True):
            found = ngrams(hypothesis, n)
            right += (found & ngrams(reference, n)).total()
            total += found.total()
        if not total or (n == 1 and not right):
            return 0.0
        halves = halves if right else 2 * halves
        precisions.append(right / total if right else 1 / (halves * total))
    h, r = sum(map(len, hypotheses)), sum(map(len, references))
    return 100 * math.exp(min(0.0, 1 - r / h) + sum(map(math.log, precisions)) / order)


def chrf(hypotheses: Sequence[str], references: Sequence[str], order: int = 6, beta: float = 2.0) -> float:
    """chrF = (1 + beta^2) P R / (beta^2 P + R), in percent: P and R are means over the orders of n-grams of characters.

    Blanks do not count. Orders that no hypothesis or no reference is long enough for are left out.

    Args:
        hypotheses: the text of each row.
        references: likewise.
        order: longest n-grams.
        beta: recall counts beta times as much as precision.

    Returns:
        0 to 100.
    """
    pairs = [("".join(h.split()), "".join(r.split())) for h, r in zip(hypotheses, references, strict=True)]
    precisions, recalls = [], []
    for n in range(1, order + 1):
        right = made = true = 0
        for hypothesis, reference in pairs:
            found, wanted = ngrams(hypothesis, n), ngrams(reference, n)
            right += (found & wanted).total()
            made += found.total() if wanted else 0  # as sacreBLEU: nothing to be compared with
            true += wanted.total()
        if made and true:
            precisions.append(right / made)
            recalls.append(right / true)
    p, r = sum(precisions), sum(recalls)
    return 100 * (1 + beta**2) * p * r / (beta**2 * p + r) / len(precisions) if p else 0.0


def edit_distance(a: Tokens, b: Tokens) -> int:
    """Fewest insertions, deletions and replacements that make b of a (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]


def error_rate(hypotheses: Sequence[Tokens], references: Sequence[Tokens]) -> float:
    """Edits over the references' tokens: the word error rate, or that of phonemes where tokens are phonemes.

    It is above 1 where hypotheses are far too long.

    Raises:
        ZeroDivisionError: the references are empty.
    """
    edits = sum(edit_distance(h, r) for h, r in zip(hypotheses, references, strict=True))
    return edits / sum(map(len, references))


def exact(hypotheses: Sequence[Tokens], references: Sequence[Tokens]) -> float:
    """Share of rows without any mistake."""
    return sum(list(h) == list(r) for h, r in zip(hypotheses, references, strict=True)) / len(references)


# Baselines


def dictionary(sources: Sequence[Tokens], targets: Sequence[Tokens]) -> dict[str, str]:
    """For every source token the target token that it occurs together with most: 2 c(s, t) / (c(s) + c(t)) (Dice 1945).

    c counts rows. Of equals the one first in the alphabet is taken.
    """
    of_source = Counter(token for tokens in sources for token in set(tokens))
    of_target = Counter(token for tokens in targets for token in set(tokens))
    together: dict[str, Counter[str]] = {token: Counter() for token in of_source}
    for source, target in zip(sources, targets, strict=True):
        seen = set(target)
        for token in set(source):
            together[token].update(seen)
    return {
        s: min(found, key=lambda t: (-found[t] / (of_source[s] + of_target[t]), t))
        for s, found in together.items()
        if found
    }


def looked_up(source: Tokens, known: dict[str, str]) -> list[str]:
    """A text token by token; what the dictionary does not know is copied."""
    return [known.get(token, token) for token in source]


def tf_idf(questions: Sequence[Tokens], passages: Sequence[Tokens]) -> np.ndarray:
    """How near every question is to every passage by the words they share: cosines of tf-idf vectors.

    A word counts as often as it occurs, times 1 + log((1 + N) / (1 + passages that have it)), as in scikit-learn;
    words that no passage has count nothing.

    Args:
        questions: tokens of each of Q.
        passages: tokens of each of N.

    Returns:
        [Q, N], in [0, 1]; 0 where there is no common word.
    """
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(word for tokens in passages for word in tokens))}

    def counts(texts: Sequence[Tokens]) -> np.ndarray:
        found = np.zeros((len(texts), len(vocabulary)))
        for row, tokens in zip(found, texts, strict=True):
            np.add.at(row, [vocabulary[word] for word in tokens if word in vocabulary], 1)
        return found

    words = counts(passages)
    rarity = 1 + np.log((1 + len(passages)) / (1 + (words > 0).sum(0)))
    asked, there = counts(questions) * rarity, words * rarity
    lengths = np.linalg.norm(asked, axis=1)[:, None] * np.linalg.norm(there, axis=1)
    return asked @ there.T / np.maximum(lengths, np.finfo(float).tiny)


def found_at(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The rank of the right passage of each question, from 1; of equal scores it has the last one's.

    Args:
        scores: of each passage, [Q, N].
        right: the index of the right one, [Q].
    """
    own = np.take_along_axis(scores, right[:, None], 1)
    return (scores >= own).sum(1)
