"""The page of an experiment, and the figures that W&B shares with it."""

from __future__ import annotations

from typing import Any

__all__ = ["build_page"]


def __getattr__(name: str) -> Any:
    if name == "build_page":  # lazily: plotly and jinja2 load only where a page is built
        from harness.report.page import build_page

        return build_page
    raise AttributeError(name)
