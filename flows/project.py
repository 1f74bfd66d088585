"""What travels with `seedbed submit`: the project's files, as git sees them, and whatever the experiment names.

Folders behind links and in submodules travel as ordinary folders. What a tool has made (caches, environments, built
packages, run roots, W&B's folders) stays here; it is told by what it holds, for code may have folders of these names.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.errors import UserError
from harness.data.cards import DataError
from harness.data.labelled import divided

__all__ = ["named_files", "outside", "project_files"]

NEVER = {".git", ".hg", ".venv", "venv", "node_modules", "__pycache__"}
_TARGET = re.compile(r"([A-Za-z_]\w*)(\.\w+)*:[A-Za-z_]\w*")


def project_files(folder: Path) -> list[Path]:
    """Files of a project, relative to its folder: what git knows or does not ignore; without git, all but the usual."""
    return [name for name in _files(folder, Path(), frozenset()) if (folder / name).is_file()]


def _files(folder: Path, inside: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Files of a folder, `inside` the project, with those behind links; `above`: real folders that hold it."""
    real = (folder / inside).resolve()
    if real in above or (inside != Path() and _made(folder / inside)):
        return
    listed = _known_to_git(folder / inside)
    if listed is None:
        yield from _walked(folder, inside, above | {real})
        return
    made: dict[Path, bool] = {}
    for name in listed:
        parents = [folder / inside / parent for parent in name.parents if parent != Path()]
        if name.name in NEVER or any(made.setdefault(parent, _made(parent)) for parent in parents):
            continue
        path = folder / inside / name
        if path.is_symlink() and path.is_dir():  # all of it: what another repository ignores may be the data
            if path.resolve() not in above | {real}:
                yield from _walked(folder, inside / name, above | {real, path.resolve()})
        elif path.is_dir():  # a submodule, or a repository inside this one
            yield from _files(folder, inside / name, above | {real})
        else:
            yield inside / name


def _walked(folder: Path, inside: Path, above: frozenset[Path]) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder / inside), key=lambda e: e.name):
        if entry.name in NEVER:
            continue
        if entry.is_dir():
            real = Path(entry.path).resolve()
            if real not in above and not _made(Path(entry.path)):
                yield from _walked(folder, inside / entry.name, above | {real})
        else:
            yield inside / entry.name


def _known_to_git(folder: Path) -> list[Path] | None:
    """What git tracks, or does not ignore, of a folder that is a work tree of its own or lies in one; else None."""
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    return list(dict.fromkeys(Path(os.fsdecode(n)) for n in done.stdout.split(b"\0") if n))


def _made(folder: Path) -> bool:
    """Whether a tool has made a folder, so that it stays here."""
    name = folder.name
    if name in NEVER or name.endswith(".egg-info") or (name.startswith(".") and name.endswith("_cache")):
        return True
    marks = {
        "build": ("lib", "bdist.*", "temp.*"),
        "dist": ("*.whl", "*.tar.gz"),
        "wandb": ("run-*", "offline-run-*", "latest-run"),
    }.get(name, ("ledger.sqlite", "pyvenv.cfg"))
    return any(next(folder.glob(mark), None) is not None for mark in marks)


def _texts(value: Any) -> Iterator[str]:
    """All strings in a tree of plain values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from _texts(name)
            yield from _texts(one)
    elif isinstance(value, Sequence):
        for one in value:
            yield from _texts(one)


def named_files(spec: Mapping[str, Any], project: Path, file: Path) -> list[Path]:
    """Files of the project that an experiment names (data, modules of its functions), also where git ignores them.

    Args:
        spec: the experiment file as plain values.
        project: the folder that travels, in which relative paths are looked up.
        file: the experiment file; modules are also looked up beside it.

    Raises:
        UserError: a relative path leads out of the project, where nothing would be found on the cluster.
    """
    found: dict[Path, None] = {file.relative_to(project): None}
    for text in _texts(spec["trials"]):
        for path in _meant(text, project, file):
            inside = Path(os.path.normpath(path))
            if not inside.is_relative_to(project):
                mend = "move it into the project, or link it there"
                raise UserError(f"{file}: {text} lies outside of {project}, which is what travels; {mend}", usage=True)
            names = [inside.relative_to(project)]
            if inside.is_dir():
                real = frozenset({inside.resolve()})
                names = [n for n in _walked(project, names[0], real) if (project / n).is_file()]
            found.update(dict.fromkeys(names))
    return list(found)


def _meant(text: str, project: Path, file: Path) -> Iterator[Path]:
    """Existing files and folders that a string of an experiment may mean; absolute paths are not taken along."""
    target = _TARGET.fullmatch(text)
    if target is not None:
        for base in (project, file.parent):
            module = base / target[1]
            yield from (path for path in (module.with_suffix(".py"), module) if path.exists())
        return
    if text.strip("./") and not text.startswith(("/", "~")):
        bases = (project, Path.cwd())
        yield from [base / name for base in bases for name in _spellings(text) if os.path.exists(base / name)][:1]


def _spellings(text: str) -> list[str]:
    """A path as an experiment writes it, and, for data like `reviews.csv?text=Review`, without the columns."""
    try:
        plain, columns = divided(text)
    except DataError:  # the plan says what is wrong with them
        return [text]
    return [text, plain] if columns else [text]


def outside(spec: Mapping[str, Any]) -> list[str]:
    """Absolute paths that an experiment names and that exist here: on the cluster they have to be there too."""
    named = {name for text in _texts(spec["trials"]) if text.startswith(("/", "~")) for name in _spellings(text)}
    return sorted(name for name in named if os.path.exists(os.path.expanduser(name)))
