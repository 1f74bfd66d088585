"""Where a user's own modules are found: in the folder of the experiment file and in the working folder.

Both are appended to Python's path, so that nothing of theirs takes the place of an installed package. Workers, and
processes of environments, get the same folders (`harness.messages.Job.sys_path`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["find_own_code", "own_folders"]


def own_folders(file: str | Path) -> tuple[str, ...]:
    """The folders of an experiment file's own modules: the file's, then the one we are in."""
    return tuple(dict.fromkeys((str(Path(file).resolve().parent), str(Path.cwd()))))


def find_own_code(folders: Iterable[str]) -> None:
    """Lets Python import from these folders, after everything that it knows already."""
    for folder in folders:
        if folder not in sys.path:
            sys.path.append(folder)
