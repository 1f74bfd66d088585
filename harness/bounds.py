"""Bounds that numbers of an experiment file keep to, before anything is built from them.

They are far above what anybody trains, and there so that a slip (a depth of 1e6, a rollout of 1e15 steps) is one
sentence within seconds, not a hang, a recursion or a full memory. What a trial holds is compared with the machine's
memory besides (`check_memory`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

__all__ = ["check_memory", "memory_of_this_machine", "too_large"]

Path_ = tuple[str | int, ...]

LAYERS = 1_000  # of what is built one after another
ENTRIES = 1_000  # of a list of numbers
PROGRESS = 10**15  # of what is only counted
DEFAULT = 10**7  # of what is held in memory all at once
NAMED: dict[str, int] = {
    **dict.fromkeys(("depth", "heads", "expansion", "factors", "beam", "rank", "truncate"), LAYERS),
    **dict.fromkeys(("d_steps", "policy_delay", "gradient_steps", "minibatches", "rollouts", "accumulate"), 100_000),
    **dict.fromkeys(("n_step", "env_workers", "kernel_size", "stride", "time_stride", "first_stride"), 10_000),
    **dict.fromkeys(("n_envs", "env_restarts", "groups", "patch", "waves", "side", "windows"), 1_000_000),
    **dict.fromkeys(("steps", "updates", "images", "patience", "learning_starts", "train_freq"), PROGRESS),
    **dict.fromkeys(("target_update_interval", "unfreeze_every", "penalty_every", "layers_every"), PROGRESS),
    **dict.fromkeys(("report_every", "evaluate_every", "checkpoint_every"), PROGRESS),
    **dict.fromkeys(("pretrain", "pretrain_judge", "judge_updates", "rounds", "train_rows", "held_rows"), PROGRESS),
    **dict.fromkeys(("batch", "n_steps", "samples", "sampled", "judged", "length", "longest", "least"), DEFAULT),
    **dict.fromkeys(("epochs", "vocabulary", "eval_episodes", "eval_sampled_episodes", "horizon", "classes"), DEFAULT),
    "buffer_size": 10**10,
}
FREE = ("config", "env_options", "wrappers")  # what only the user's own code understands


def too_large(values: Mapping[str, Any]) -> Iterator[tuple[Path_, str]]:
    """Numbers of a learner's configuration, as the file has it, that are beyond all reason: (path, sentence) each."""
    for name, value in values.items():
        if name not in FREE:
            yield from _walk(value, (name,), name)


def _walk(value: Any, path: Path_, name: str) -> Iterator[tuple[Path_, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(inner, (*path, key), key)
    elif isinstance(value, list):
        if len(value) > ENTRIES:
            yield path, f"{len(value):,} entries are more than {ENTRIES:,}; give fewer"
        for place, inner in enumerate(value[:ENTRIES]):
            yield from _walk(inner, (*path, place), name)
    elif _is_count(value, name) and value > (most := NAMED.get(name, DEFAULT)):
        yield path, f"{value:,.0f} is more than {most:,}, the most that makes sense here; lower it"


def _is_count(value: Any, name: str) -> bool:
    """Whether a number counts something: fields that are not named here do where they end in a plural of parts."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return name in NAMED or name.endswith(("_features", "_size", "_length", "channels", "features"))


def memory_of_this_machine() -> int:
    """Bytes: of the machine's memory or, where there are GPUs with more, of theirs together."""
    import torch

    most = psutil.virtual_memory().total
    if torch.cuda.is_available():
        gpus = range(torch.cuda.device_count())
        most = max(most, sum(torch.cuda.get_device_properties(i).total_memory for i in gpus))
    return most


def check_memory(held: Mapping[str, int]) -> None:
    """Compares what one trial holds with what this machine has.

    Args:
        held: the field (or "a x b") that makes a trial hold so many bytes -> the bytes. Replay may lie on the disk.

    Raises:
        ValueError: it has less; names the field and both numbers.
    """
    for name, size in held.items():
        most = memory_of_this_machine()
        where = "memory"
        if name == "buffer_size":
            folder = Path(os.environ.get("TMPDIR") or tempfile.gettempdir())
            most, where = max(most, shutil.disk_usage(folder).total), f"memory or on the disk of {folder}"
        if size > most:
            raise ValueError(
                f"{name}: a trial would hold {size / 2**30:,.1f} GiB, more than the {most / 2**30:,.1f} GiB of this"
                f" machine's {where}; lower it"
            )
