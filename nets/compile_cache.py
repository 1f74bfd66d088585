"""Where compiled code is kept: a private folder of the user's own, with program texts and libraries, never a pickle.

Code that is found here is executed, so the folder is neither part of a run root, which is copied and shared, nor
used where anybody else could have written into it. TorchInductor's own caches of graphs are pickles and stay off;
what they save, the way from a graph to C++, is saved by a text a program here.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["NAMED", "cache_folder", "program_key", "recall", "remember", "untrusted", "use_compile_cache"]

NAMED = "TORCHINDUCTOR_CACHE_DIR"  # a folder that the user names is taken as it is
FORMAT = "1"  # raised when texts of earlier versions must not be read


def use_compile_cache() -> str:
    """Keep compiled code in the folder of `cache_folder`, for this process and those it starts.

    Returns:
        "", or a sentence: the usual folder cannot be trusted, and what happens instead.
    """
    folder, why = cache_folder()
    if folder is None:
        os.environ.pop(NAMED, None)
    else:
        os.environ[NAMED] = str(folder)
    return why


def cache_folder() -> tuple[Path | None, str]:
    """The folder for compiled code, created if it is missing, and why it is not the usual one ("" where it is).

    The user's own choice counts first; then `seedbed/compiled` in $XDG_CACHE_HOME or ~/.cache; where that belongs to
    somebody else or is open to others, a folder under $TMPDIR that carries the user's number; else None.
    """
    if named := _named():
        return Path(named), ""
    usual = _user_cache() / "seedbed" / "compiled"
    if not (why := untrusted(usual)):
        return usual, ""
    instead = Path(tempfile.gettempdir()) / f"seedbed-{os.getuid()}" / "compiled"
    if also := untrusted(instead):
        return None, f"no private folder for compiled code: {why}; {also}; or set {NAMED}"
    return instead, f"compiled code is kept in {instead}: {why}"


def _named() -> str:
    """The folder that the user names. torch sets the variable too, to a folder of its own where all users write."""
    named = os.environ.get(NAMED, "")
    return "" if named.startswith(os.path.join(tempfile.gettempdir(), "torchinductor_")) else named


def _user_cache() -> Path:
    named = Path(os.environ.get("XDG_CACHE_HOME") or "")
    return named if named.is_absolute() else Path(os.path.expanduser("~/.cache"))


def untrusted(folder: Path) -> str:
    """Why code from a folder must not be executed, with the mend; "" where this user alone can write there.

    The folder and its parent are created for this user alone where they are missing.
    """
    if not folder.is_absolute():  # "~" stays where a user has no home
        return f"{folder} is not an absolute path"
    for place in (folder.parent, folder):
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            owners = {place.lstat().st_uid, place.stat().st_uid}
            rights = stat.S_IMODE(place.stat().st_mode)
            if owners != {os.geteuid()}:
                return f"{place} belongs to another user; remove it"
            if rights & (stat.S_IWGRP | stat.S_IWOTH):
                return f"others may write to {place}; remove it, or chmod 700 if nobody did"
            if rights & 0o077:
                place.chmod(0o700)
            if not os.access(place, os.W_OK | os.X_OK):
                return f"{place} cannot be written; chmod 700"
        except OSError as error:
            return f"{place} cannot be used ({error})"
    return ""


def program_key(graph: Any, fake: Sequence[Any], options: dict[str, Any]) -> str:
    """A name for what TorchInductor would generate: of the graph, its inputs, settings, versions and the CPU.

    Args:
        graph: of tensor operations.
        fake: its inputs.
        options: how it is going to be compiled.

    Returns:
        "" where a program depends on what no name can tell, such as constants.
    """
    from torch._inductor.codecache import FxGraphCache
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    settings: Any = dict(options)
    found, _ = FxGraphCache.prepare_key(graph, fake, settings, (), remote=False)
    if found is None:
        return ""
    return hashlib.sha256(f"{FORMAT} {found[0]} {pick_vec_isa()}".encode()).hexdigest()


def recall(key: str) -> Callable | None:
    """The program of a key, or None where it is not kept or its text is damaged."""
    from torch._inductor.codecache import PyCodeCache

    try:
        digest, _, text = _file(key).read_text().partition("\n")
    except (OSError, ValueError):
        return None
    if digest != hashlib.sha256(text.encode()).hexdigest():
        return None
    return PyCodeCache.load(text).call


def remember(key: str, program: Any) -> None:
    """Keep the text of a program that consists of nothing else; a disk that takes none costs the next start time."""
    beside = ("constants", "torchbind_constants", "opaque_value_type_classes", "frozen_param_names", "inputs_to_check")
    text = getattr(program, "source_code", "")
    if not text or any(getattr(program, name, None) for name in beside) or program.device_types != {"cpu"}:
        return
    file = _file(key)
    own = file.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            own.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
            own.replace(file)
        finally:
            own.unlink(missing_ok=True)


def _file(key: str) -> Path:
    return Path(os.environ[NAMED]) / "programs" / key[:2] / f"{key}.txt"
