"""Ring buffers in a learner's state (replay): what a checkpoint writes of them, and how they come back.

A learner names them: `rings = {"replay": "added"}` says that `state["replay"]` is a dict of rings [K, C, ...] and of
`added`, int64 [K], the steps ever written, the same in every lane; step t stands at t modulo C. A step, once written,
stays as it is until it is overwritten; only the newest may still change. So whole blocks of steps are immutable:
every checkpoint lists the segments, one file each for all lanes, that hold what a ring holds, and only the blocks that
were completed since the last one, and the unfinished block, are written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from harness.checkpoint import Checkpoint, DamagedError, Segment
from harness.learner import State, tree_map

__all__ = ["Rings", "broken_lanes"]

SMALLEST = 2**21  # bytes of a block: smaller files would cost more to name and to sync than to write
MOST = 256  # blocks of a ring, which bounds the manifest


class Rings:
    """The rings of one cohort's state.

    Args:
        keys: path of a dict of rings in the state, dotted -> the key in it of the count; the learner's own `rings`.

    Attributes:
        known: segments that are on disk, in the cohort's own folder.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        self.keys = keys
        self.known: tuple[Segment, ...] = ()
        self._seen = dict.fromkeys(keys, 0)

    def without(self, state: State) -> State:
        """The state without its rings; their counts stay."""
        return self._replaced(state, {path: {} for path in self.keys})

    def segments(self, state: State) -> list[Segment]:
        """All that the rings hold, oldest first: what `known` has of it, and segments that are yet to be written."""
        found = []
        for path, (rings, size, count) in self._all(state):
            step = sum(r[:, 0].numel() * r.itemsize for r in rings.values())
            block = min(size, math.ceil(max(SMALLEST, size * step / MOST) / step))
            oldest = max(0, count - size)
            whole = (count - 1) // block  # the newest step may still change: its block is not whole yet
            for b in range(oldest // block, whole + 1):
                first, last = max(b * block, oldest), min((b + 1) * block, count)
                there = [s for s in self.known if s.owner == path and s.whole and s.first <= first and s.last == last]
                new = Segment(path, first, last, b < whole, tensors=partial(_steps, rings, first, last))
                found.append(there[0] if there else new)
        return found

    def restored(self, state: State, started: State, found: Checkpoint, index: Sequence[int]) -> State:
        """A state without rings, with the rings of the started one, into which a checkpoint's segments are read.

        Args:
            state: of the lanes `index` of the checkpoint.
            started: as the learner started it.
            found: the checkpoint.
            index: lanes to take of it.

        Raises:
            DamagedError: its rings are not of this cohort's shape, or some of their steps are missing.
        """
        lanes = torch.as_tensor(list(index), dtype=torch.long)
        full = self._replaced(state, {path: rings for path, (rings, _, _) in self._all(started)})
        for path, (rings, size, count) in self._all(full):
            at = max(0, count - size)
            for segment in sorted((s for s in found.segments if s.owner == path), key=lambda s: s.first):
                if segment.first > at:
                    break
                steps = {name: t[lanes, at - segment.first :] for name, t in load_file(found.file(segment)).items()}
                _write(rings, steps, at, path)
                at = segment.last
            if at != count:
                raise DamagedError(f"{found.path}: state.{path}: the steps from {at} to {count} are missing")
            self._seen[path] = count
        return full

    def unseen(self, state: State) -> State:
        """The state with only those steps of its rings that came since the last call."""
        fresh = {}
        for path, (rings, size, count) in self._all(state):
            fresh[path] = _steps(rings, max(self._seen[path], count - size), count)
            self._seen[path] = count
        return self._replaced(state, fresh)

    def _all(self, state: State) -> Iterator[tuple[str, tuple[dict[str, Tensor], int, int]]]:
        """Path -> (rings by name, C, steps ever written)."""
        for path, key in self.keys.items():
            node: Any = state
            for part in path.split("."):
                node = node[part]
            rings = {name: t for name, t in node.items() if name != key}
            yield path, (rings, next((t.shape[1] for t in rings.values()), 0), int(node[key][0]))

    def _replaced(self, state: State, rings: Mapping[str, Mapping[str, Tensor]]) -> State:
        """A state with other rings: the dicts on the way to them are new, everything else is shared."""
        state = dict(state)
        for path, key in self.keys.items():
            node = state
            *way, last = path.split(".")
            for part in way:
                node[part] = node = dict(node[part])
            node[last] = {**rings[path], key: node[last][key]}
        return state


def broken_lanes(state: State, lanes: int) -> Tensor:
    """Lanes with a NaN or an infinity anywhere in a tree of tensors [K, ...]: bool [K], on the CPU."""
    bad = torch.zeros(lanes, dtype=torch.bool)

    def look(value: Tensor) -> None:
        if value.is_floating_point():
            bad.logical_or_((~value.isfinite()).flatten(1).any(1).cpu() if value.dim() > 1 else ~value.isfinite().cpu())

    tree_map(look, state)
    return bad


def _steps(rings: Mapping[str, Tensor], first: int, last: int) -> dict[str, Tensor]:
    """The steps [first, last) of rings that still hold them, [K, last - first, ...]."""
    return {name: ring.index_select(1, _places(ring, first, last)) for name, ring in rings.items()}


def _write(rings: Mapping[str, Tensor], steps: Mapping[str, Tensor], first: int, path: str) -> None:
    """Puts steps [K, T, ...] where those from `first` on stand."""
    for name, ring in rings.items():
        given = steps.get(name)
        if given is None or given.dtype != ring.dtype or ring[:, :0].shape != given[:, :0].shape:
            raise DamagedError(f"state.{path}.{name}: another name, shape or type than this version's")
        ring.index_copy_(1, _places(ring, first, first + given.shape[1]), given.to(ring.device))


def _places(ring: Tensor, first: int, last: int) -> Tensor:
    return torch.arange(first, last, device=ring.device) % ring.shape[1]
