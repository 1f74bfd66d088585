"""Texts as tokens and back: characters, bytes, words, or pairs of them merged (BPE).

Papers: Sennrich et al. 2016 (byte-pair encoding), by the tokenizers package, which only `bpe` needs.
Deliberate differences: words are lower-case and marks are words; a vocabulary is learnt from the training texts alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

__all__ = [
    "END",
    "PAD",
    "SPECIAL",
    "START",
    "UNKNOWN",
    "Units",
    "Vocabulary",
    "check_units",
    "learnt",
    "padded",
    "words",
]

Units = Literal["words", "characters", "bytes", "bpe"]
SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")
PAD, START, END, UNKNOWN = range(4)


def words(text: str) -> list[str]:
    """Runs of letters and digits, and every mark by itself, in lower case."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


@dataclass(frozen=True)
class Vocabulary:
    """What tokens there are.

    Attributes:
        spellings: of every token, the special ones first.
        cut: a text into spellings.
        joined: spellings to a text.
        numbers: of every spelling its token.
    """

    spellings: tuple[str, ...]
    cut: Callable[[str], Sequence[str]]
    joined: Callable[[Iterable[str]], str]
    numbers: dict[str, int] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        self.numbers.update({spelling: token for token, spelling in enumerate(self.spellings)})

    def __len__(self) -> int:
        return len(self.spellings)

    def encoded(self, text: str) -> list[int]:
        """A text's tokens; those it does not know are UNKNOWN."""
        return [self.numbers.get(spelling, UNKNOWN) for spelling in self.cut(text)]

    def pieces(self, text: str) -> list[str]:
        """A text's tokens as people read them."""
        return [self.joined([spelling]).strip() for spelling in self.cut(text)]

    def decoded(self, tokens: Iterable[int]) -> str:
        """The text of tokens up to the first END; padding and START spell nothing."""
        spelt = []
        for token in tokens:
            if token == END:
                break
            if token not in (PAD, START):
                spelt.append(self.spellings[token])
        return self.joined(spelt)


def check_units(field: str, units: str) -> None:
    """Refuses what needs a package that is not here.

    Raises:
        ValueError: names the field and the mend.
    """
    if units == "bpe" and find_spec("tokenizers") is None:
        mend = "pip install 'seedbed[pretrained]', or take other units"
        raise ValueError(f"{field}: bpe needs the package tokenizers: {mend}")


def learnt(texts: Sequence[str], units: Units, size: int, least: int = 1) -> Vocabulary:
    """The vocabulary of training texts: its most frequent units, the more frequent first, then by the alphabet.

    Args:
        texts: to learn from.
        units: what a token is. Characters and words are counted; "bytes" are all 256; "bpe" merges bytes.
        size: tokens at most, the special ones counted.
        least: how often a unit occurs at least.
    """
    if units == "bpe":
        return _merged(texts, size)
    if units == "bytes":
        return Vocabulary((*SPECIAL, *map(chr, range(256))), _bytes, _text)
    cut, between = (words, " ") if units == "words" else (list, "")
    counts = Counter(spelling for text in texts for spelling in cut(text))
    ranked = sorted((s for s, c in counts.items() if c >= least), key=lambda s: (-counts[s], s))
    return Vocabulary((*SPECIAL, *ranked[: size - len(SPECIAL)]), cut, between.join)


def padded(rows: Sequence[Sequence[int]], length: int) -> np.ndarray:
    """Tokens of rows, int64 [N, length]: cut off at the end, or filled up with PAD."""
    found = np.full((len(rows), length), PAD, np.int64)
    for i, row in enumerate(rows):
        found[i, : len(row)] = row[:length]
    return found


def _bytes(text: str) -> list[str]:
    return list(text.encode().decode("latin-1"))


def _text(spelt: Iterable[str]) -> str:
    return "".join(s if len(s) == 1 else "?" for s in spelt).encode("latin-1").decode(errors="replace")


def _merged(texts: Sequence[str], size: int) -> Vocabulary:
    import tokenizers

    model: Any = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size - len(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    model.train_from_iterator(texts, trainer)
    spellings = sorted(model.get_vocab(), key=model.get_vocab().__getitem__)
    return Vocabulary(
        (*SPECIAL, *spellings), lambda text: model.encode(text).tokens, lambda spelt: model.decoder.decode(list(spelt))
    )
