"""Data sets by name: what they are (cards, made without torch) and their rows, split once and for all."""

from harness.data.cards import Card, DataError, Kind, Rows
from harness.data.few import check_few, draw_few, few
from harness.data.plane import centres, points, std
from harness.data.sets import about, card, draw, draw_rows, lacking, load, names, pairs, spelled, tokens
from harness.data.tables import spread

__all__ = [
    "Card",
    "DataError",
    "Kind",
    "Rows",
    "about",
    "card",
    "centres",
    "check_few",
    "draw",
    "draw_few",
    "draw_rows",
    "few",
    "lacking",
    "load",
    "names",
    "pairs",
    "points",
    "spelled",
    "spread",
    "std",
    "tokens",
]
