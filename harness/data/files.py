"""Where the files of data sets lie: in installed packages (found, never imported), or in folders the user names."""

from __future__ import annotations

import gzip
import importlib.util
import os
import sys
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.data.cards import Card, DataError

__all__ = ["FOLDER", "debian_folders", "own_folders", "packaged", "stored", "unpacked"]

FOLDER = "SEEDBED_DATA"  # environment variable: a folder of data sets


def own_folders(*paths: str) -> list[Path]:
    """These folders inside the one that the environment variable names, if it names one."""
    named = os.environ.get(FOLDER)
    return [Path(named) / path for path in paths] if named else []


def packaged(card: Card, package: str, path: str) -> Path:
    """A file or folder inside an installed package.

    Raises:
        DataError: the package is not installed, or has no such file.
    """
    found = importlib.util.find_spec(package)
    for folder in found.submodule_search_locations or () if found else ():
        if (Path(folder) / path).exists():
            return Path(folder) / path
    raise DataError(f"data set {card.name!r} needs {path} of the Python package {package}: {card.get}")


def debian_folders(package: str, path: str) -> list[Path]:
    """Where a folder of a Debian package lies: where `make data` unpacks it, and where apt installs it."""
    return [root / path for root in (Path(sys.prefix) / "data" / package, Path("/"))]


def stored(card: Card, folders: Sequence[Path], name: str) -> Path:
    """A file in the first of these folders that has it, as it is or compressed (.gz).

    Raises:
        DataError: none has it.
    """
    for folder in folders:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    places = " or ".join(str(folder) for folder in folders)
    raise DataError(f"data set {card.name!r} needs the file {name}, plain or .gz, in {places}: {card.get}")


def unpacked(paths: Iterable[Path]) -> bytes:
    """The bytes of files, one after the other; those that end in .gz decompressed.

    Raises:
        DataError: a file cannot be read.
    """
    parts = []
    for path in paths:
        try:
            raw = path.read_bytes()
            parts.append(gzip.decompress(raw) if path.suffix == ".gz" else raw)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} cannot be read, get it again: {error}") from None
    return b"".join(parts)
