"""Data sets by name: what they are (cards, made without torch) and their rows, split once and for all."""

from harness.data.cards import Card, DataError, Kind, Rows
from harness.data.plane import centres, points, std
from harness.data.sets import about, card, draw, draw_rows, lacking, load, names, pairs, spelled, tokens

__all__ = [
    "Card",
    "DataError",
    "Kind",
    "Rows",
    "about",
    "card",
    "centres",
    "draw",
    "draw_rows",
    "lacking",
    "load",
    "names",
    "pairs",
    "points",
    "spelled",
    "std",
    "tokens",
]
