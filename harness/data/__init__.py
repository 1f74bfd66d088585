"""Data sets: found where packages put them, each with a card."""
