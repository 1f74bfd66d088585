"""Names that a metric must not have, for they are the harness's own on the way to files, tables and W&B."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["check_metric_names"]

RESERVED = {
    "progress": "the step of a line",
    "seconds": "the training time of a line",
    "trial": "the trial's id in `results.metrics()`",
    "label": "the trial's label in `results.metrics()`",
    "seed": "the trial's seed in `results.metrics()`",
    "state": "how the trial ended, in W&B's summary",
    "reason": "why the trial ended, in W&B's summary",
    "score_name": "the headline metric's name, in W&B's summary",
    "digest": "the proof of delivery, in W&B's summary",
}
BEGINNINGS = {"_": "W&B's own (_step, _runtime)", "media/": "a trial's media in W&B"}


def check_metric_names(names: Iterable[object], headline: str = "score") -> None:
    """Checks the names of metrics before a line is written.

    Args:
        names: of the metrics.
        headline: the headline metric, whose value W&B's summary also calls "score".

    Raises:
        ValueError: the first reserved name, what it is reserved for, and the mend.
    """
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f"a metric's name is text, not {name!r}")
        use = RESERVED.get(name) or next((u for b, u in BEGINNINGS.items() if name.startswith(b)), "")
        if name == "score" and headline != "score":
            use = f"the headline metric in W&B's summary, which is `{headline}` here"
        if use:
            better = name.strip("_").replace("/", "_") or "value"
            raise ValueError(f"the metric `{name}` has a reserved name ({use}); log it as `my_{better}`, for example")
