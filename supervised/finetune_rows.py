"""Rows for pretrained networks: texts and streams in a model's own tokens, images as they are.

Legend: N rows, T tokens of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness import data
from supervised.finetune_nets import ENDED

__all__ = ["Split", "images", "language", "pairs", "texts"]


@dataclass(frozen=True)
class Split:
    """Rows and what is to be said of them.

    Attributes:
        x: what the network takes: tokens int64 [N, T], of pairs [N, 2, T], or images [N, ...].
        y: classes int64 [N], or for language the next tokens int64 [N, T].
        characters: that the tokens y spell; 0 where y are classes.
    """

    x: Tensor
    y: Tensor
    characters: int = 0


def texts(name: str, tokenizer: Any, length: int) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Pairs of a text and its class; texts are cut after `length` tokens. The splits, and the names of the classes.

    Classes are in alphabetical order of their names.
    """
    loaded = data.pairs(name)
    classes = tuple(sorted({label for _, label in loaded["train"]}))
    splits = {}
    for split, rows in loaded.items():
        x = padded([text for text, _ in rows], tokenizer, length)
        splits[split] = Split(x, torch.tensor([classes.index(label) for _, label in rows]))
    return splits, classes


def pairs(name: str, tokenizer: Any, length: int) -> dict[str, Split]:
    """Pairs of texts as tokens [N, 2, T], each text cut after `length` tokens; y numbers the pairs of a split."""
    splits = {}
    for split, rows in data.pairs(name).items():
        x = padded([text for pair in rows for text in pair], tokenizer, length)
        splits[split] = Split(x.unflatten(0, (-1, 2)), torch.arange(len(rows)))
    return splits


def padded(texts: Sequence[str], tokenizer: Any, length: int) -> Tensor:
    """Texts as tokens, int64 [N, T], ENDED after each one's end; cut after `length` tokens."""
    found = tokenizer(list(texts), truncation=True, max_length=length)["input_ids"]
    x = torch.full((len(found), max(map(len, found))), ENDED)
    for row, tokens in zip(x, found, strict=True):
        row[: len(tokens)] = torch.tensor(tokens)
    return x


def language(name: str, tokenizer: Any, length: int, rows: Mapping[str, int]) -> dict[str, Split]:
    """Streams of text in rows of `length` tokens and their successors, one after the other; no more than `rows`.

    Args:
        name: of a set of tokens, which are spelled out and read anew by the tokenizer.
        tokenizer: the model's.
        length: in tokens.
        rows: how many of each split at most; a split's first ones are taken.
    """
    splits = {}
    for split, stream in data.tokens(name).items():
        enough = rows[split] * length * 8  # characters: no tokenizer of words spells 8 a token on average
        found = tokenizer(data.spelled(name, stream[:enough]), add_special_tokens=False, verbose=False)["input_ids"]
        count = min((len(found) - 1) // length, rows[split])
        tokens = torch.tensor(found[: count * length + 1])
        x, y = (t.reshape(count, length) for t in (tokens[:-1], tokens[1:]))
        splits[split] = Split(x, y, len(tokenizer.decode(tokens[1:])))
    return splits


def images(name: str, few: int) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Images with pixels in [0, 1] and their classes; the classes' names are their numbers.

    Args:
        name: of a set of images.
        few: training rows that are used, of each class alike; 0 for all.
    """
    loaded = {**data.load(name), "train": data.few(name, few)}
    splits = {s: Split(torch.tensor(rows.x, dtype=torch.float32), torch.tensor(rows.y)) for s, rows in loaded.items()}
    return splits, tuple(map(str, np.arange(data.card(name).classes)))
