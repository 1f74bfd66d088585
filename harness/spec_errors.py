"""What is wrong with an experiment file, in sentences that name the file, the line, the field and the mend."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from harness.yaml_lines import Path, YamlError, scalar

__all__ = ["Problems", "SpecError", "nearest", "validate"]

MOST = 10  # problems shown at once
FOLLOWS = "default_factory_not_called"  # pydantic's error for a field whose default needs another, wrong one

Model = TypeVar("Model", bound=BaseModel)

_WORDS = {
    "Input should be": "expected",
    "String should": "the text should",
    "a valid string": "text",
    "a valid integer": "an integer",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid array": "a list",
    "a valid list": "a list",
    "a valid dictionary": "a mapping",
    "a valid tuple": "a list",
    "an object": "a mapping",
}


class SpecError(ValueError):
    """The experiment file or an override is wrong; str() is the complete message, one problem a line."""


class Problems:
    """Collects problems, so that a file with three mistakes is mended in one go.

    Args:
        file: as the user wrote it.
        places: path -> line number, or the text of an override that set this path.
    """

    def __init__(self, file: str, places: dict[Path, int | str]) -> None:
        self.file = file
        self.places = places
        self.found: list[str] = []

    def add(self, path: Path, what: str) -> None:
        """Notes a problem of the value at a path; the same sentence is noted once."""
        place = next(self.places[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.places)
        where = place if isinstance(place, str) else f"{self.file}:{place}"
        name = ".".join(str(part) for part in path)
        sentence = f"{where}: {name}: {what}" if name else f"{where}: {what}"
        if sentence not in self.found:
            self.found.append(sentence)

    @property
    def full(self) -> bool:
        """Whether there are more than anybody reads, so that looking for further ones is waste."""
        return len(self.found) > MOST

    def check(self) -> None:
        """Raises SpecError if anything was noted."""
        if self.found:
            raise SpecError("\n".join(self.found[:MOST] + (["... and more"] if self.full else [])))


def nearest(name: str, known: Iterable[str], noun: str) -> str:
    """ "unknown NOUN `name`; did you mean `x`?", or the known ones where nothing is near."""
    names = list(known)
    close = difflib.get_close_matches(name[:100], names, n=1, cutoff=0.6)
    mend = f"did you mean `{close[0]}`?" if close else f"known: {', '.join(names)}"
    return f"unknown {noun} {_quote(name)}; {mend}"


def validate(
    model: type[Model], value: dict[str, Any], also: Sequence[str] = ()
) -> tuple[Model | None, list[tuple[Path, str]]]:
    """Strict validation: no text for a number, no number for a truth value; 1e5 is fine where an integer is due.

    Args:
        model: a pydantic model.
        value: plain JSON values.
        also: further names that are known beside the model's fields, for suggestions.

    Returns:
        the object, or None and (path inside `value`, sentence) of every problem.
    """
    for last in (False, True):
        try:
            return model.model_validate_json(json.dumps(value), strict=True), []
        except ValidationError as error:
            errors = [e for e in error.errors(include_url=False) if e["type"] != FOLLOWS]
        mended = value if last else _with_integers(value, errors)
        if mended is value:
            break
        value = mended
    grouped: dict[Path, list[Any]] = {}
    for one in errors:
        grouped.setdefault(_path(one, value), []).append(one)
    first = itertools.islice(grouped.items(), MOST + 1)
    return None, [(path, _sentence(model, path, same, also)) for path, same in first]


def _with_integers(value: dict[str, Any], errors: Sequence[Any]) -> dict[str, Any]:
    """`value` with 100000.0 as 100000 where an integer was due; the same object if there is no such place."""
    places = [
        e["loc"]
        for e in errors
        if e["type"] == "int_type" and isinstance(e["input"], float) and e["input"].is_integer()
    ]
    if not places:
        return value
    copy = json.loads(json.dumps(value))
    for loc in places:
        path = _path({"loc": loc, "type": "int_type"}, copy)
        at = copy
        for part in path[:-1]:
            at = at[part]
        at[path[-1]] = int(at[path[-1]])
    return copy


def _path(error: Any, value: Any) -> Path:
    """pydantic's location without the tags of unions, which are no part of the file."""
    path: list[str | int] = []
    at = value
    for index, part in enumerate(error["loc"]):
        present = part in at if isinstance(at, dict) else isinstance(at, list) and isinstance(part, int)
        if present:
            at = at[part]
            path.append(part)
        elif error["type"] == "missing" and index == len(error["loc"]) - 1:
            path.append(part)
    if error["type"] == "union_tag_invalid":  # the field that tells the members of a union apart
        path.append(error["ctx"]["discriminator"].strip("'"))
    return tuple(path)


def _sentence(model: type[BaseModel], path: Path, errors: Sequence[Any], also: Sequence[str]) -> str:
    first = errors[0]
    fields, about = _fields_at(model, path)
    if first["type"] == "extra_forbidden":
        return nearest(str(path[-1]), [*fields, *(also if len(path) == 1 else ())], "field")
    if first["type"] == "union_tag_invalid":
        known = first["ctx"]["expected_tags"].replace("'", "").split(", ")
        return nearest(str(first["ctx"]["tag"]), known, str(path[-1]))
    if first["type"] == "missing":
        return f"is missing; add it{about}"
    if first["type"] == "too_short":
        return "the list is empty; give at least one entry"
    if first["type"] == "string_pattern_mismatch" and about:
        return f"does not fit, given {_given(first['input'])}; expected{about}"
    own = [e["msg"].removeprefix("Value error, ") for e in errors if e["type"] == "value_error"]
    if own:
        return own[0]
    accepted = " or ".join(dict.fromkeys(_plain(e["msg"]) for e in errors)).replace(" or expected ", " or ")
    return f"{accepted}, given {_given(first['input'])}{_unquote(first)}{about}"


def _plain(message: str) -> str:
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    return message


def _given(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _unquote(error: Any) -> str:
    """The mend for "1e-3", a number in quotes."""
    if error["type"] not in ("int_type", "float_type") or not isinstance(error["input"], str):
        return ""
    try:
        number = scalar(error["input"], 0)
    except YamlError:
        return ""
    return "; remove the quotes" if isinstance(number, int | float) else ""


def _fields_at(model: type[BaseModel], path: Path) -> tuple[list[str], str]:
    """Names known beside the value at `path`, and " (NAME: DESCRIPTION)" of its own field."""
    models: list[type[BaseModel]] = [model]
    names: list[str] = []
    about = ""
    for part in path:
        names = [name for m in models for name in m.model_fields]
        infos = [m.model_fields[str(part)] for m in models if str(part) in m.model_fields]
        if infos:
            models = [m for info in infos for m in _models_in(info.annotation)]
            about = f" ({part}: {infos[0].description})" if infos[0].description else ""
    return list(dict.fromkeys(names)), about


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for argument in get_args(annotation) for m in _models_in(argument)]


def _quote(name: str) -> str:
    return f"`{name if len(name) <= 60 else name[:57] + '...'}`"
