"""YAML 1.2 as plain values with the line of every value, read so that no text can hurt or surprise.

ruamel.yaml scans and parses; the tree is composed here from its events, in one pass without recursion, because its own
constructors keep no lines, resolve dates, and follow alias bombs. Plain scalars follow the YAML 1.2 core schema, with
underscores allowed between digits: `yes` is text, `1e-3` a number, `100_000` an integer.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml import events as ev
from ruamel.yaml.error import MarkedYAMLError, YAMLError

__all__ = ["MAX_BYTES", "Path", "YamlError", "parse", "scalar"]

Path = tuple[str | int, ...]  # from the document's root to a value

MAX_BYTES = 1_000_000
MAX_LINE = 10_000  # characters; the scanner is slow on endless lines
MAX_LINES = 20_000
MAX_DEPTH = 50
MAX_NODES = 10_000  # aliases count with everything they stand for
MAX_INT = 2**63 - 1

_INT = re.compile(r"[-+]?[0-9]+(_[0-9]+)*|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_CONTROL = re.compile("[^\\t\\n\\r\\x20-\\x7e\\x85\\xa0-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")  # as YAML 1.2
_CORE = "tag:yaml.org,2002:"
_SCALAR_TAGS = {"str": str, "int": int, "float": float, "bool": bool, "null": type(None)}


class YamlError(ValueError):
    """The text is not YAML that we accept.

    Attributes:
        line: 1-based, or 0 where the whole text is meant.
        problem: what is wrong and how to mend it.
        path: of the value, as far as it is known.
    """

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem
        self.path: Path = ()

    def at(self, file: str) -> str:
        """The complete message: "FILE:LINE: PATH: PROBLEM"."""
        place = f"{file}:{self.line}" if self.line else file
        name = ".".join(str(part) for part in self.path)
        return f"{place}: {name}: {self.problem}" if name else f"{place}: {self.problem}"


@dataclass(eq=False)
class _Node:
    """A composed value: a scalar, or children by key; lines are 1-based."""

    line: int
    value: Any = None  # of a scalar
    items: dict[str | int, _Node] | None = None  # of a collection
    mapping: bool = False
    size: int = 1  # nodes below and with it, aliases expanded
    height: int = 1  # levels below and with it, aliases expanded
    key: str | None = None  # the key that waits for its value
    key_line: int = 0
    key_lines: dict[str | int, int] = field(default_factory=dict)
    anchor: str | None = None


def parse(text: str) -> tuple[Any, dict[Path, int]]:
    """Reads one document.

    Returns:
        plain dicts, lists and scalars, and the 1-based line of every path (a mapping's entry stands where its key is).

    Raises:
        YamlError: no YAML, several documents, or anything we refuse: duplicate keys, keys that are not text, unknown
            tags, too deep, too large, numbers that are not finite, text with control characters.
    """
    if len(text) > MAX_BYTES:
        raise YamlError(0, f"the text is longer than {MAX_BYTES:,} bytes; an experiment is a page or two")
    for number, row in enumerate(text.split("\n"), 1):
        if number > MAX_LINES:
            raise YamlError(number, f"more than {MAX_LINES:,} lines; an experiment is a page or two")
        if len(row) > MAX_LINE:
            raise YamlError(number, f"a line of more than {MAX_LINE:,} characters; break it")
    control = _CONTROL.search(text)
    if control:
        line = text[: control.start()].count("\n") + 1
        raise YamlError(line, f"YAML allows no character U+{ord(control[0]):04X}; save the file as plain UTF-8 text")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of reused anchors, which YAML 1.2 allows
        return _flatten(_Composer().compose(text))


def _flatten(node: _Node) -> tuple[Any, dict[Path, int]]:
    lines: dict[Path, int] = {(): node.line}

    def plain(at: _Node, path: Path) -> Any:
        if at.items is None:
            return at.value
        for key, child in at.items.items():
            lines[(*path, key)] = at.key_lines.get(key, child.line)
        values = {key: plain(child, (*path, key)) for key, child in at.items.items()}
        return values if at.mapping else list(values.values())

    return plain(node, ()), lines


def scalar(text: str, line: int) -> Any:
    """A plain scalar by the YAML 1.2 core schema.

    Raises:
        YamlError: a number that is not finite or does not fit into 64 bits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return _integer(text, line)
    if _SPECIAL.fullmatch(text):
        raise YamlError(line, f"`{text}` is not a finite number; give a finite one")
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise YamlError(line, f"`{_short(text)}` is too large for a number; give a finite one")
        return number
    return _printable(text, line)


def _integer(text: str, line: int) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    number = int(text, base) if len(text) <= 40 else MAX_INT + 1
    if abs(number) > MAX_INT:
        raise YamlError(line, f"the integer `{_short(text)}` does not fit into 64 bits; give a smaller one")
    return number


def _printable(text: str, line: int) -> str:
    for character in text:
        if not character.isprintable() and character not in "\n\t":
            raise YamlError(line, f"the text holds the invisible character U+{ord(character):04X}; remove it")
    return text


def _short(text: str, length: int = 40) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


class _Composer:
    """Builds the tree from events with an explicit stack."""

    def __init__(self) -> None:
        self.stack: list[_Node] = []
        self.anchors: dict[str, _Node] = {}
        self.root: _Node | None = None

    def compose(self, text: str) -> _Node:
        try:
            return self._compose(text)
        except YamlError as error:
            open_keys = [node.key if node.mapping else len(node.items or ()) for node in self.stack]
            error.path = tuple(key for key in open_keys if key is not None)
            raise

    def _compose(self, text: str) -> _Node:
        for event in _events(text):
            line = event.start_mark.line + 1
            if isinstance(event, ev.DocumentStartEvent) and self.root is not None:
                raise YamlError(line, "a second document begins here; a file holds one experiment")
            if isinstance(event, ev.ScalarEvent):
                self._scalar(event, line)
            elif isinstance(event, ev.AliasEvent):
                self._alias(event, line)
            elif isinstance(event, ev.MappingStartEvent | ev.SequenceStartEvent):
                self._open(event, line)
            elif isinstance(event, ev.MappingEndEvent | ev.SequenceEndEvent):
                self._close()
        if self.root is None:
            raise YamlError(0, "the file is empty")
        return self.root

    def _scalar(self, event: Any, line: int) -> None:
        tag = self._tag(event, line, _SCALAR_TAGS)
        if self.stack and self.stack[-1].mapping and self.stack[-1].key is None:
            self._key(event.value, line)
            return
        plain = event.implicit[0] and not event.style
        value = scalar(event.value, line) if plain or tag not in (None, str) else _printable(event.value, line)
        if tag is float and type(value) is int:
            value = float(value)
        if tag is not None and type(value) is not tag:
            raise YamlError(line, f"`{_short(event.value)}` does not fit its tag; remove the tag")
        self._place(_Node(line, value=value, anchor=event.anchor))

    def _key(self, key: str, line: int) -> None:
        top = self.stack[-1]
        assert top.items is not None
        _printable(key, line)
        if key in top.items:
            first = top.key_lines[key]
            raise YamlError(line, f"duplicate key `{_short(key)}` (first on line {first}); keep one of them")
        top.key, top.key_line = key, line

    def _alias(self, event: Any, line: int) -> None:
        target = self.anchors.get(event.anchor)
        if target is None:
            raise YamlError(line, f"the alias `*{_short(event.anchor)}` has no anchor before it; write the value out")
        if target in self.stack:
            raise YamlError(line, f"the alias `*{_short(event.anchor)}` stands for itself; write the value out")
        self._place(replace(target, line=line, anchor=None))

    def _open(self, event: Any, line: int) -> None:
        mapping = isinstance(event, ev.MappingStartEvent)
        self._tag(event, line, {"map" if mapping else "seq": object})
        node = _Node(line, items={}, mapping=mapping, anchor=event.anchor)
        self._need_value(line)
        if event.anchor:
            self.anchors[event.anchor] = node
        self._check_depth(len(self.stack) + 1, line)
        self.stack.append(node)

    def _close(self) -> None:
        self._place(self.stack.pop())

    def _place(self, node: _Node) -> None:
        self._need_value(node.line)
        if node.anchor:
            self.anchors[node.anchor] = node
        if not self.stack:
            self._count(node)
            self.root = node
            return
        top = self.stack[-1]
        assert top.items is not None
        key: str | int = len(top.items)
        if top.mapping:
            assert top.key is not None
            key, top.key = top.key, None
            top.key_lines[key] = top.key_line
        top.items[key] = node
        top.size += node.size
        top.height = max(top.height, node.height + 1)
        self._check_depth(len(self.stack) + node.height, node.line)
        self._count(top)

    def _check_depth(self, depth: int, line: int) -> None:
        if depth > MAX_DEPTH:
            raise YamlError(line, f"nested deeper than {MAX_DEPTH} levels; write it flatter")

    def _count(self, node: _Node) -> None:
        if node.size > MAX_NODES:
            raise YamlError(node.line, f"more than {MAX_NODES:,} values, aliases counted; write fewer")

    def _need_value(self, line: int) -> None:
        if self.stack and self.stack[-1].mapping and self.stack[-1].key is None:
            raise YamlError(line, "a key must be plain text, not a list, a mapping or an alias")

    def _tag(self, event: Any, line: int, known: dict[str, Any]) -> Any:
        tag = event.tag
        if tag is None or tag == "!":
            return str if tag == "!" else None
        if tag.removeprefix(_CORE) not in known or not tag.startswith(_CORE):
            raise YamlError(line, f"the tag `{_short(str(tag))}` is not known here; remove it")
        return known[tag.removeprefix(_CORE)]


def _events(text: str) -> Iterator[Any]:
    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(str(part) for part in (error.context, error.problem) if part)
        if "\\t" in problem:
            problem = "a tab where YAML needs spaces; indent with spaces"
        raise YamlError(mark.line + 1 if mark else 0, f"not YAML: {problem}") from error
    except YAMLError as error:
        raise YamlError(0, "not YAML: " + str(error).splitlines()[0]) from error
    except Exception as error:  # ruamel's scanner raises stray errors on broken text; a user needs none of them
        raise YamlError(0, f"not YAML: {type(error).__name__}: {error}") from error
