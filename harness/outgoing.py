"""What is sent to others says nothing about this machine: of an absolute path only its last part is left."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from typing import Any

__all__ = ["shorten", "without_machine"]

_START = r"(?<![\w/.~+-])(?:~|[A-Za-z]:)?[/\\]"
_QUOTED = re.compile(r"(['\"`])(?:~|[A-Za-z]:)?[/\\][^'\"`\n]*[/\\]([^'\"`/\\\n]*)\1")
_ALONE = re.compile(r"(?:~|[A-Za-z]:)?[/\\](?:[^:\n]*[/\\])?([^:/\\\n]*)")  # blanks belong to it: there is nothing else
_AMONG_WORDS = re.compile(_START + r"(?:[^\s/\\'\"`<>|:,;()\[\]{}]+[/\\])+")
_OPAQUE = ("bdata", "texts", "reference")  # keys of numbers in base 64, and of texts that a network wrote


def shorten(text: str) -> str:
    """A text whose absolute paths are cut down to ".../NAME", and in which this host has no name."""
    if text.startswith(("data:image/", "data:video/")):
        return text
    text = text.replace("file:///", "/")
    if alone := _ALONE.fullmatch(text):
        return f".../{alone[1]}"
    text = _AMONG_WORDS.sub(".../", _QUOTED.sub(r"\1.../\2\1", text))
    host = socket.gethostname()
    return re.sub(rf"\b{re.escape(host)}\b", "this host", text) if len(host) > 3 and " " in text else text


def without_machine(value: Any) -> Any:
    """The same dicts, lists and tuples with their texts shortened; what is no plain text stays as it is."""
    if type(value) is str:
        return shorten(value)
    if isinstance(value, Mapping):
        return {k: v if k in _OPAQUE else without_machine(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(without_machine(item) for item in value)
    return value
