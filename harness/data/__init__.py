"""Data sets by name: what they are (cards, made without torch) and their rows, split once and for all."""

from harness.data.cards import Card, DataError, card, names
from harness.data.digits import Rows
from harness.data.ring import ring_centres, ring_points
from harness.data.sets import load

__all__ = ["Card", "DataError", "Rows", "card", "load", "names", "ring_centres", "ring_points"]
