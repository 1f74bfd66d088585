"""How the page writes numbers, times and configurations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

__all__ = ["decimals", "duration", "flatten", "moment", "number", "short", "tidy"]

NONE = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def decimals(values: Sequence[float]) -> int:
    """How many decimals suit numbers of this size, so that a column shows four digits or so."""
    finite = [abs(v) for v in values if math.isfinite(v)]
    top = max(finite, default=1.0)
    return 4 if top < 1.5 else 3 if top < 10 else 2 if top < 100 else 1 if top < 10_000 else 0


def number(value: float | None, places: int) -> str:
    """A number with thousands separated by narrow blanks; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return ("" if value > 0 else MINUS) + "\N{INFINITY}"
    text = f"{abs(value):,.{places}f}" if abs(value) < 1e12 else f"{abs(value):.3g}"
    return (MINUS if value < 0 else "") + text.replace(",", "\N{NARROW NO-BREAK SPACE}")


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 0.4 s, 12 s, 3 min 05 s, 2 h 07 min, 3 d 4 h."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 60:
        return f"{whole} s"
    if hours < 1:
        return f"{minutes} min {whole % 60:02d} s"
    return f"{hours} h {minutes % 60:02d} min" if days < 1 else f"{days} d {hours % 24} h"


def moment(value: Any) -> str:
    """A time stamp (seconds since 1970, datetime or text) in UTC; "" for None."""
    if value is None:
        return ""
    if isinstance(value, int | float):
        value = datetime.fromtimestamp(value, UTC)
    if isinstance(value, datetime):
        value = value if value.tzinfo is None else value.astimezone(UTC)
        return f"{value.day} {value:%B %Y, %H:%M} UTC"
    try:
        return moment(datetime.fromisoformat(str(value)))
    except ValueError:
        return str(value)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """(dotted name, text) of nested dicts, in their order."""
    rows: list[tuple[str, str]] = []
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            rows += flatten(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", tidy(value)))
    return rows


def short(learner: str, label: str) -> str:
    """A label where its learner stands above it already: "classifier net.kind=cnn" is "net.kind=cnn"."""
    return label.removeprefix(learner).strip() or label


def tidy(value: Any) -> str:
    """One configuration value as text."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}") if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(tidy(v) for v in value) or NONE
    return str(value) if value != {} else NONE
