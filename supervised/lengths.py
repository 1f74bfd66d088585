"""Batches of rows of like length, so that little of a batch is padding.

Rows are sorted by their length and cut into groups. An epoch has as many batches of each group as the group holds rows
for, in an order that all lanes share: lanes side by side then have batches of one shape, and each equals the trial
alone. Which rows these are follows from a permutation of the lane's own, one a group and round.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from harness.randomness import generator

__all__ = ["Alike"]

MOST = 8  # groups
FEWEST = 4  # batches that a group holds rows for


class Alike:
    """Rows in groups of like length.

    Args:
        slack: how many tokens of padding each row could do without, int [N].
        batch: rows of one update, B.

    Attributes:
        groups: indices of each group's rows; together all rows.
        cuts: how many tokens of padding no row of each group needs.
    """

    def __init__(self, slack: np.ndarray, batch: int) -> None:
        count = int(np.clip(len(slack) // (FEWEST * batch), 1, MOST))
        self.batch = batch
        self.groups = np.array_split(np.argsort(slack, kind="stable"), count)
        self.cuts = [int(slack[rows].min()) for rows in self.groups]
        self._sizes = np.array([len(rows) for rows in self.groups])
        self._order = lru_cache(maxsize=2)(self._order_anew)

    @property
    def saved(self) -> float:
        """Tokens of padding that a row is spared, on average."""
        return float(np.dot(self.cuts, self._sizes) / self._sizes.sum())

    def place(self, update: int) -> tuple[int, int]:
        """Of which group an update's batch is, and how many batches of that group came before."""
        epoch = update * self.batch // int(self._sizes.sum())
        while self._made(epoch + 1).sum() <= update:  # batches that were not full by the end of an epoch come later
            epoch += 1
        made, order = self._made(epoch), self._order(epoch)
        position = update - int(made.sum())
        group = int(order[position])
        return group, int(made[group] + (order[:position] == group).sum())

    def span(self, group: int, number: int) -> list[tuple[int, slice]]:
        """Where the rows of a group's batch lie: in which rounds through the group, and where in each."""
        size, spans = len(self.groups[group]), []
        first, end = number * self.batch, (number + 1) * self.batch
        while first < end:
            turn, start = divmod(first, size)
            stop = min(size, start + end - first)
            spans.append((turn, slice(start, stop)))
            first += stop - start
        return spans

    def _made(self, epochs: int) -> np.ndarray:
        """How many batches of each group there are in the first so many epochs."""
        return epochs * self._sizes // self.batch

    def _order_anew(self, epoch: int) -> np.ndarray:
        batches = np.repeat(np.arange(len(self.groups)), self._made(epoch + 1) - self._made(epoch))
        return generator(0, "rows of like length", epoch).permutation(batches)
