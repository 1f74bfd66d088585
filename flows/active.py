"""The steps that the flow of this process works on. Apart from the flow, which Prefect pickles: this it cannot."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.steps import Steps

__all__ = ["current"]

current: ContextVar[Steps | None] = ContextVar("seedbed_steps", default=None)
