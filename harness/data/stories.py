"""Stories with a question, made by rules: one fact answers it, or two that must be put together; computed.

After tasks 1 and 2 of bAbI (Weston et al. 2015). Deliberate differences: one question a story, no story in two splits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from harness.data.cards import Card, DataSet, digest, places
from harness.randomness import generator

__all__ = ["SETS", "one_fact", "two_facts"]

PEOPLE = ("Mary", "John", "Sandra", "Daniel")
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
THINGS = ("apple", "football", "milk")
MOVES = ("moved to", "went to", "journeyed to", "travelled to")
ROWS = {"train": 1000, "validation": 200, "test": 1000}
Pair = tuple[str, str]


def _one(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _move(person: str, rng: np.random.Generator) -> tuple[str, str]:
    """A sentence that takes a person to a place, and the place."""
    place = _one(PLACES, rng)
    return f"{person} {_one(MOVES, rng)} the {place}.", place


def one_fact(rng: np.random.Generator) -> Pair:
    """Two to ten moves; where is one of those who moved? (story and question, the place)."""
    where: dict[str, str] = {}
    lines = []
    for _ in range(rng.integers(2, 11)):
        person = _one(PEOPLE, rng)
        line, where[person] = _move(person, rng)
        lines.append(line)
    asked = _one(sorted(where), rng)
    return " ".join([*lines, f"Where is {asked}?"]), where[asked]


def two_facts(rng: np.random.Generator) -> Pair:
    """People move, take things along and put them down; where is a thing? Who has or had it, and where, answers.

    Twelve events at most; a thing is asked for that someone took, and the place is where its bearer is, or put it down.
    """
    where: dict[str, str] = {}  # of people
    bearer: dict[str, str] = {}  # of things
    lain: dict[str, str] = {}  # where things were put down
    lines = []
    for _ in range(rng.integers(5, 13)):
        person = _one(PEOPLE, rng)
        here = where.get(person)
        free = [t for t in THINGS if here and t not in bearer and lain.get(t, here) == here]
        held = [t for t in THINGS if bearer.get(t) == person]
        event = rng.random()
        if free and event < 0.4:
            thing = _one(free, rng)
            bearer[thing] = person
            lines.append(f"{person} took the {thing}.")
        elif here and held and event < 0.55:
            thing = _one(held, rng)
            del bearer[thing]
            lain[thing] = here
            lines.append(f"{person} dropped the {thing}.")
        else:
            line, where[person] = _move(person, rng)
            lines.append(line)
    known = {thing: where[person] for thing, person in bearer.items()}
    known |= {thing: place for thing, place in lain.items() if thing not in bearer}
    if not known:
        return two_facts(rng)
    asked = _one(sorted(known), rng)
    return " ".join([*lines, f"Where is the {asked}?"]), known[asked]


def stories(name: str, tell: Callable[[np.random.Generator], Pair]) -> dict[str, list[Pair]]:
    """The splits, all stories different."""
    rng = generator(0, f"data/{name}")
    told: dict[str, str] = {}
    while len(told) < sum(ROWS.values()):
        story, answer = tell(rng)
        told.setdefault(story, answer)
    pairs = list(told.items())
    return {split: pairs[place] for split, place in places(ROWS).items()}


def _set(name: str, facts: str, tell: Callable[[np.random.Generator], Pair]) -> DataSet:
    text = f"stories of who went where, {facts} the question, after bAbI (Weston et al., 2015) (computed)"
    card = Card(
        name=name,
        kind="pairs",
        source=text,
        licence="none needed: computed",
        sha256=digest(text),
        shape=(),
        classes=len(PLACES),
        rows=ROWS,
    )
    return DataSet(card, texts=partial(stories, name, tell))


SETS = {
    "stories-1": _set("stories-1", "one fact answers", one_fact),
    "stories-2": _set("stories-2", "two facts answer", two_facts),
}
