"""Labels of trials: short, for people, and different where configurations differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
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

    "classifier net.kind=cnn"; with two entries of `gan`: "gan ring-8" and "gan digits". Equal configurations have equal
    labels (more seeds of the same), different ones never do.
    """
    dumps = [variant.config.model_dump(mode="json") for variant in variants]
    telling = _telling(variants, dumps)
    short, full = [], []
    for variant, dump in zip(variants, dumps, strict=True):
        varied = {key.split(".")[0] for key in variant.varied}
        told = {name: _show(dump[name]) for name in dump if name in telling[variant.learner] and name not in varied}
        subjects = [value for name, value in told.items() if name in SUBJECTS]
        others = [f"{name}={value}" for name, value in told.items() if name not in SUBJECTS]
        grid = [f"{key}={_show(value)}" for key, value in variant.varied.items()]
        short.append(" ".join([variant.learner, *subjects, *grid]))
        full.append(" ".join([variant.learner, *subjects, *others, *grid]))
    keys = [f"{v.learner} {canonical(dump)}" for v, dump in zip(variants, dumps, strict=True)]
    crowded = _shared(short, keys)
    labels = [full[i] if label in crowded else label for i, label in enumerate(short)]
    still = _shared(labels, keys)
    number = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    return [f"{label} #{number[keys[i]]}" if label in still else label for i, label in enumerate(labels)]


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


def _show(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 32 else text[:29] + "..."
