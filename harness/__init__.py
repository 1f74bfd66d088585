"""The core: experiments, trials, cohorts, ledger, checkpoints, workers and the driver."""

from __future__ import annotations

from typing import Any

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":  # lazily: pandas loads only where results are read
        from harness.results import load

        return load
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
