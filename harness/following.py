"""One cohort in a worker of a gang that follows: it trains the same lanes on its part of a batch and writes nothing."""

from __future__ import annotations

from typing import Any

import torch

from harness.cohort_run import CohortRun

__all__ = ["Follower"]


class Follower(CohortRun):
    """The cohort in a worker of another rank than 0."""

    def _open_folders(self) -> None:
        """Rank 0 has them open."""

    def _evaluate(self) -> dict[int, dict[str, Any]]:
        return {}

    def _log(self, metrics: dict[str, torch.Tensor], evaluated: dict[int, dict[str, Any]]) -> None:
        """Rank 0 does."""

    def _remember(self) -> None:
        """Rank 0 does."""

    def _save(self) -> None:
        if self.saved != self.progress:
            self.saved = self.progress
            self.learner.checkpointed(self.state)

    def _end(self, lane: int, state: str, reason: str) -> None:
        self.ended[lane] = {"state": state}
        if "alive" in self.state:
            self.state["alive"][lane] = False
