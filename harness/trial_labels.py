"""Labels of trials: short, for people, and different where configurations differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from harness.spec import LearnerConfig, canonical

__all__ = ["Variant", "label_variants"]

SUBJECTS = ("env", "data", "call")  # fields whose bare value says enough: "gan ring-8"


@dataclass(frozen=True)
class Variant:
    """One grid point of one entry.

    Attributes:
        learner: registered name.
        entry: index in the file's `trials`.
        config: resolved.
        varied: the grid's fields (dotted) and their values here.
        written: top-level fields that the entry sets itself.
    """

    learner: str
    entry: int
    config: LearnerConfig
    varied: dict[str, Any]
    written: tuple[str, ...]


def label_variants(variants: Sequence[Variant]) -> list[str]:
    """One label a variant: the learner, what tells its entry from others of the same learner, and what its grid varies.

    "classifier net.kind=cnn"; with two entries of `gan`: "gan ring-8" and "gan digits"; with several networks on one
    data set: "classifier net=mlp". Equal configurations have equal labels (more seeds of the same), different ones
    never do.
    """
    dumps = [variant.config.model_dump(mode="json") for variant in variants]
    keys = [f"{v.learner} {canonical(dump)}" for v, dump in zip(variants, dumps, strict=True)]
    telling = _telling(variants, dumps)
    labels = [""] * len(variants)
    for learner, fields in telling.items():
        own = [i for i, variant in enumerate(variants) if variant.learner == learner]
        found = _told_apart([variants[i] for i in own], [dumps[i] for i in own], [keys[i] for i in own], fields)
        for i, label in zip(own, found, strict=True):
            labels[i] = label
    still = _shared(labels, keys)
    number = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    return [f"{label} #{number[keys[i]]}" if label in still else label for i, label in enumerate(labels)]


def _told_apart(
    variants: Sequence[Variant], dumps: Sequence[dict[str, Any]], keys: Sequence[str], telling: set[str]
) -> list[str]:
    """Labels of one learner's variants, with as few fields as tell them apart; all fields where nothing does."""

    told = _shown([{n: dump[n] for n in dump if n in telling} for dump in dumps])
    grid = _shown([variant.varied for variant in variants])

    def label(i: int, names: Sequence[str]) -> str:
        own = told[i].keys() - {key.split(".")[0] for key in grid[i]}
        subjects = [told[i][name] for name in told[i] if name in own and name in SUBJECTS]
        fields = [*((n, told[i][n]) for n in names if n in own), *grid[i].items()]
        return " ".join([variants[i].learner, *subjects, *(f"{name}={text}" for name, text in fields)])

    labels = short = [label(i, ()) for i in range(len(variants))]
    crowded = _shared(short, keys)
    for names in _choices([n for n in dumps[0] if n in telling and n not in SUBJECTS], dumps) if crowded else ():
        labels = [label(i, names) if text in crowded else text for i, text in enumerate(short)]
        if not _shared(labels, keys):
            break
    return labels


def _choices(fields: Sequence[str], dumps: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Which fields to name, what says most first: a network, a word, two of these, a number; at last all."""
    blocks = [n for n in fields if all(_is_block(dump[n]) for dump in dumps)]
    words = [*blocks, *(n for n in fields if all(isinstance(dump[n], str) for dump in dumps))]
    alone = [n for n in fields if n not in words]
    return [*((n,) for n in words), *combinations(words, 2), *((n,) for n in alone), tuple(fields)]


def _telling(variants: Sequence[Variant], dumps: Sequence[dict[str, Any]]) -> dict[str, set[str]]:
    """learner -> fields that some entry sets and that are not the same in all its entries."""
    seen: dict[tuple[str, str], dict[int, set[str]]] = {}
    written: dict[str, set[str]] = {}
    for variant, dump in zip(variants, dumps, strict=True):
        written.setdefault(variant.learner, set()).update(variant.written)
        for name, value in dump.items():
            values = seen.setdefault((variant.learner, name), {}).setdefault(variant.entry, set())
            values.add(canonical(value))
    telling: dict[str, set[str]] = {learner: set() for learner in written}
    for (learner, name), by_entry in seen.items():
        if name in written[learner] and len({frozenset(values) for values in by_entry.values()}) > 1:
            telling[learner].add(name)
    return telling


def _shared(labels: Sequence[str], keys: Sequence[str]) -> set[str]:
    """Labels that stand for more than one configuration."""
    meaning: dict[str, set[str]] = {}
    for label, key in zip(labels, keys, strict=True):
        meaning.setdefault(label, set()).add(key)
    return {label for label, several in meaning.items() if len(several) > 1}


def _is_block(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("kind"), str)


def _shown(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Values for people, row by row; of a block its kind, and its fields where others of that name and kind differ."""
    alike: dict[tuple[str, str], list[dict[str, str]]] = {}
    for name, block in ((name, value) for row in rows for name, value in row.items() if _is_block(value)):
        fields = {field: json.dumps(value, sort_keys=True) for field, value in block.items()}
        alike.setdefault((name, block["kind"]), []).append(fields)
    known = {key: dict.fromkeys(f for fields in several for f in fields) for key, several in alike.items()}
    differ = {key: [f for f in fields if len({own.get(f) for own in alike[key]}) > 1] for key, fields in known.items()}

    def show(name: str, value: Any) -> str:
        if not _is_block(value):
            return _short(value)
        fields = [f for f in differ[name, value["kind"]] if f in value]
        return " ".join([value["kind"], *(f"{f}={_short(value[f])}" for f in fields)])

    return [{name: show(name, value) for name, value in row.items()} for row in rows]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 32 else text[:29] + "..."
