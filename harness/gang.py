"""Workers that train one cohort together, each on its part of every batch (data parallelism).

The executor starts `resources.workers` workers for a cohort and gives each a `Seat`; the worker joins the process group
and the learner sees a `Gang`. All hold the same state, and the mean of their gradients keeps it so, bit for bit;
the worker of rank 0 alone evaluates and writes. A single worker's gang takes all rows, and its means are no work.

The process group meets in a file under the run root, which all workers share: no port is opened for that. Workers of a
Ray that was started here talk over the loopback interface.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.utils import _pytree as pytree

from harness.files import make_folder

__all__ = ["ALONE", "Gang", "Seat", "join", "leave"]

PATIENCE = timedelta(minutes=10)  # that a worker waits for the others: the slowest of them may be compiling


@dataclass(frozen=True)
class Seat:
    """A worker's place in its gang, and where the gang meets.

    Attributes:
        rank: 0 evaluates and writes.
        size: workers.
        file: under the run root, in a folder of the cohort's own; a gang that is started again has another.
        loopback: all workers are on this machine.
    """

    rank: int
    size: int
    file: str
    loopback: bool


@dataclass(frozen=True)
class Gang:
    """What a learner sees of the workers that train with it.

    Attributes:
        rank: this worker's, from 0.
        size: of how many.
    """

    rank: int = 0
    size: int = 1

    def part(self, rows: Tensor, dim: int) -> Tensor:
        """This worker's rows of a batch: of `size` equal parts along `dim` the one at its rank."""
        return rows.chunk(self.size, dim)[self.rank]

    def mean(self, tree: Any) -> Any:
        """The tree with the mean over all workers of every floating-point tensor; other tensors stay.

        Every worker calls it, with a tree of the same form, and gets the same numbers. One message a dtype.
        """
        if self.size == 1:
            return tree
        leaves, form = pytree.tree_flatten(tree)
        for dtype in dict.fromkeys(t.dtype for t in leaves if t.is_floating_point()):  # in one order for all workers
            places = [i for i, t in enumerate(leaves) if t.dtype == dtype]
            flat = torch.cat([leaves[i].reshape(-1) for i in places])
            distributed.all_reduce(flat)
            means = (flat / self.size).split([leaves[i].numel() for i in places])
            for i, mean in zip(places, means, strict=True):
                leaves[i] = mean.reshape(leaves[i].shape)
        return pytree.tree_unflatten(leaves, form)


ALONE = Gang()


def join(seat: Seat | None, device: str) -> Gang:
    """Waits for the others of the gang and joins its process group; without a seat the worker is alone.

    Args:
        seat: this worker's.
        device: "cpu" (the gloo backend) or "cuda..." (NCCL).
    """
    leave(None)
    if seat is None:
        return ALONE
    if seat.loopback:
        os.environ.update(GLOO_SOCKET_IFNAME="lo", NCCL_SOCKET_IFNAME="lo")
    make_folder(Path(seat.file).parent)
    backend = "gloo" if device == "cpu" else "nccl"
    meeting = Path(seat.file).resolve().as_uri()
    distributed.init_process_group(backend, init_method=meeting, rank=seat.rank, world_size=seat.size, timeout=PATIENCE)
    return Gang(seat.rank, seat.size)


def leave(seat: Seat | None) -> None:
    """Leaves the process group, where there is one; rank 0 clears away where it met."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
    if seat is not None and seat.rank == 0:
        shutil.rmtree(Path(seat.file).parent, ignore_errors=True)
