"""Which rows of a replay a gradient step learns from: all alike, or those that surprised most (Schaul et al. 2016,
arXiv:1511.05952, proportional variant).

Both samplers are used alike:

    state["priority"] = sampler.start(rows)
    sampler.added(state["priority"], replay, steps)                        # after `replay_add` of so many steps
    for index, batch, weight in sampler.batches(state, progress, count):   # [K, B], name -> [K, B, ...], [K, B]
        sampler.learned(state["priority"], index, error)                   # before the next one is asked for

Legend: K lanes, R rows a lane keeps, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from agents.replay import replay_draw, replay_rows
from harness.learner import Lanes

__all__ = ["Prioritised", "Uniform", "importance", "proportional"]

BLOCK = 256  # rows of a block of priorities
SMALLEST = 1e-6  # epsilon of section 3.3: no row is lost for good

Take = Callable[[dict[str, Tensor], Tensor], dict[str, Tensor]]  # (replay, index [K, ...]) to rows [K, ..., *]


class Uniform:
    """Every row alike: all batches of a round are drawn and gathered at once.

    Args:
        lanes: the cohort.
        take: reads rows.
        batch: B.
    """

    def __init__(self, lanes: Lanes, take: Take, batch: int) -> None:
        self.lanes, self.take, self.batch = lanes, take, batch

    def start(self, rows: int) -> dict[str, Tensor]:
        """Nothing is remembered of rows."""
        return {}

    def added(self, priority: dict[str, Tensor], replay: dict[str, Tensor], steps: int) -> None:
        """New rows are like all others."""

    def batches(self, state: dict[str, Any], progress: int, count: int) -> Iterator[tuple[Tensor, Any, Tensor]]:
        """So many batches: (flat rows [K, B], what stands there, weights 1)."""
        index = replay_draw(self.lanes, state["replay"], "replay/batch", progress, (count, self.batch))
        rows = self.take(state["replay"], index)
        ones = rows["reward"].new_ones(len(index), self.batch)
        for g in range(count):
            yield index[:, g], {name: row[:, g] for name, row in rows.items()}, ones

    def learned(self, priority: dict[str, Tensor], index: Tensor, error: Tensor) -> None:
        """Errors change nothing."""


class Prioritised:
    """Rows in proportion to |TD error|^alpha; new ones as if they had the largest error so far.

    Priorities are {"power": p^alpha [K, blocks, BLOCK] by flat row, "sums": of every block, float64 [K, blocks],
    "highest": p [K]}. They change everywhere and all the time: a checkpoint holds them whole.

    Args:
        lanes: the cohort; its configurations have priority_alpha, priority_beta and budget.
        take: reads rows.
        batch: B.
    """

    def __init__(self, lanes: Lanes, take: Take, batch: int) -> None:
        self.lanes, self.take, self.batch = lanes, take, batch
        self.alpha, self.beta = (lanes.per_lane(f"priority_{name}")[:, None] for name in ("alpha", "beta"))

    def start(self, rows: int) -> dict[str, Tensor]:
        """No row can be drawn yet."""
        highest = torch.ones_like(self.alpha.squeeze(1))
        power = highest.new_zeros(len(highest), -(-rows // BLOCK), BLOCK)
        return {"power": power, "sums": power.sum(-1, dtype=torch.float64), "highest": highest}

    def added(self, priority: dict[str, Tensor], replay: dict[str, Tensor], steps: int) -> None:
        """The newest steps get the highest priority so far (algorithm 1, line 6)."""
        size, n_envs = replay["reward"].shape[1:3]
        first = int(replay["added"][0]) - steps
        new = torch.arange(first * n_envs, (first + steps) * n_envs, device=self.alpha.device) % (size * n_envs)
        priority["power"].flatten(1)[:, new] = priority["highest"][:, None] ** self.alpha
        blocks = torch.unique(new // BLOCK)
        priority["sums"][:, blocks] = priority["power"][:, blocks].sum(-1, dtype=torch.float64)

    def batches(self, state: dict[str, Any], progress: int, count: int) -> Iterator[tuple[Tensor, Any, Tensor]]:
        """So many batches, each drawn from what was learned before it: (flat rows [K, B], what stands there, weights).

        A batch is stratified: one row of every B-th part of the total (appendix B.2.1).
        """
        noise = self.lanes.noise("replay/batch", progress, (count, self.batch), "uniform").double()
        parts = (torch.arange(self.batch, device=noise.device) + noise) / self.batch
        beta = self.beta + (1 - self.beta) * min(progress / self.lanes.config.budget, 1.0)  # section 3.4
        for g in range(count):
            index, chance = proportional(state["priority"]["power"], state["priority"]["sums"], parts[:, g])
            yield index, self.take(state["replay"], index), importance(chance, replay_rows(state["replay"]), beta)

    def learned(self, priority: dict[str, Tensor], index: Tensor, error: Tensor) -> None:
        """Rows that were learned from get the priority of their errors, TD errors [K, B]."""
        found = error.abs() + SMALLEST
        lane = torch.arange(len(index), device=index.device)[:, None]
        priority["power"].flatten(1)[lane, index] = found**self.alpha
        blocks = index // BLOCK
        priority["sums"][lane, blocks] = priority["power"][lane, blocks].sum(-1, dtype=torch.float64)
        priority["highest"] = torch.maximum(priority["highest"], found.amax(1))


def proportional(power: Tensor, sums: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in proportion to their priorities, by inverting the cumulative sum: of whole blocks first, then within one.

    Args:
        power: priorities [K, blocks, S], at least 0; rows are counted through the blocks.
        sums: of every block, float64 [K, blocks].
        part: float64 [K, B], which part of each lane's total lies before the row, in [0, 1].

    Returns:
        (rows int64 [K, B], their probabilities [K, B]). A row without priority is never drawn; a NaN among a lane's
        priorities makes that lane's rows arbitrary ones and its probabilities NaN.
    """
    lane = torch.arange(len(power), device=power.device)[:, None]
    edges = sums.cumsum(-1)
    total = edges[:, -1:]
    below = 1 - 1e-9  # rounding must not lead past the last row
    wanted = (part * total).minimum(total * below)
    block = torch.searchsorted(edges, wanted, right=True).clamp(max=power.shape[1] - 1)
    within = power[lane, block].cumsum(-1, dtype=torch.float64)  # [K, B, S]
    rest = (wanted - (edges - sums).gather(1, block)).unsqueeze(-1).minimum(within[..., -1:] * below)
    place = (within <= rest).sum(-1).clamp(max=power.shape[2] - 1)
    return block * power.shape[2] + place, (power[lane, block, place] / total).to(power.dtype)


def importance(chance: Tensor, rows: int, beta: Tensor) -> Tensor:
    """Weights (R P(i))^-beta over the batch's largest, which undo the bias of sampling (section 3.4): [K, B].

    Args:
        chance: P(i), [K, B].
        rows: R.
        beta: how much of the bias is undone, [K, 1] in [0, 1].
    """
    weight = (rows * chance) ** -beta
    return weight / weight.amax(1, keepdim=True)
