"""Looking things up without branches or indices that depend on data: constants, and one-hot masks."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Table", "cell", "one_hot"]


class _Copies(dict[torch.device, Tensor]):
    """A tensor by device; a copy is made where there is none."""

    def __missing__(self, where: torch.device) -> Tensor:
        self[where] = next(iter(self.values())).to(where)
        return self[where]


class Table:
    """A constant tensor, copied once to every device that asks for it.

    Environments ask for the first time in `reset`, before anything is compiled: a captured program may not copy from
    the host.
    """

    def __init__(self, values: Tensor) -> None:
        self.copies = _Copies({values.device: values})

    def on(self, like: Tensor) -> Tensor:
        """The constant on the device of a tensor."""
        return self.copies[like.device]


def one_hot(index: Tensor, count: int) -> Tensor:
    """Where an index [...] of any dtype lies: bool [..., count], all False outside. torch's own synchronises a GPU."""
    return index.unsqueeze(-1) == torch.arange(count, device=index.device)


def cell(row: Tensor, column: Tensor, rows: int, columns: int) -> Tensor:
    """One cell of a grid, bool [..., rows, columns]; none where it lies outside."""
    return one_hot(row, rows).unsqueeze(-1) & one_hot(column, columns).unsqueeze(-2)
