"""Data sets by name: what they are (cards, made without torch) and their rows, split once and for all."""

from harness.data.cards import Card, DataError, Kind, Rows
from harness.data.few import check_few, draw_few, few
from harness.data.plane import centres, points, std
from harness.data.ring import ring_centres, ring_points
from harness.data.sets import card, draw, draw_rows, load, names, pairs, spelled, tokens

__all__ = [
    "Card",
    "DataError",
    "Kind",
    "Rows",
    "card",
    "centres",
    "check_few",
    "draw",
    "draw_few",
    "draw_rows",
    "few",
    "load",
    "names",
    "pairs",
    "points",
    "ring_centres",
    "ring_points",
    "spelled",
    "std",
    "tokens",
]
