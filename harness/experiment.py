"""Experiment files: one YAML file becomes a list of trials, or one SpecError that says where and how to mend it.

Top level: `name`, `seeds`, `trials`. An entry of `trials` has `learner`, `seeds`, `grid`, `resources`; everything else
in it is that learner's own configuration.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from ruamel.yaml import YAML

from harness import yaml_lines
from harness.expansion import Entry, ExperimentFile, expand
from harness.own_code import find_own_code, own_folders
from harness.spec import Trial
from harness.spec_errors import Problems, SpecError, nearest
from harness.yaml_lines import Path

__all__ = ["Entry", "Experiment", "ExperimentFile", "SpecError", "load_experiment", "override"]


@dataclass(frozen=True)
class Experiment:
    """A sound experiment file.

    Attributes:
        name: also the folder under `runs/experiments` and the W&B group.
        spec: the file as plain values, overrides applied.
        path: where it was read.
        trials: all trials in the file's order; ids are unique.
        text: what to keep as `experiment.yaml`: the file, or `spec` written out where overrides changed it.
    """

    name: str
    spec: dict[str, Any]
    path: FilePath
    trials: list[Trial]
    text: str


def load_experiment(path: str | FilePath, overrides: Sequence[str] = ()) -> Experiment:
    """Reads, overrides, validates and expands an experiment file.

    Args:
        path: the YAML file.
        overrides: "trials.0.lr=1e-3" and the like; the value is YAML.

    Raises:
        SpecError: anything is wrong; nothing was written or started.
    """
    file = FilePath(path)
    text = _read(file)
    try:
        spec, lines = yaml_lines.parse(text)
    except yaml_lines.YamlError as error:
        raise SpecError(error.at(str(file))) from None
    places: dict[Path, int | str] = dict(lines)
    if not isinstance(spec, dict):
        raise SpecError(f"{file}:{lines[()]}: expected a mapping with `name` and `trials` at the top")
    for one in overrides:
        override(spec, places, one)
    find_own_code(own_folders(file))
    trials = expand(spec, Problems(str(file), places))
    if overrides:
        text = _written(spec, f"{file} with " + " ".join(f"--set {one}" for one in overrides))
    return Experiment(spec["name"], spec, file, trials, text)


def _read(file: FilePath) -> str:
    try:
        if not file.is_file():
            what = "is a folder, not a file" if file.is_dir() else "there is no such file"
            raise SpecError(f"{file}: {what}; give the path of an experiment file")
        with file.open("rb") as handle:
            data = handle.read(yaml_lines.MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"{file}: cannot be read: {error}") from None
    if len(data) > yaml_lines.MAX_BYTES:
        raise SpecError(f"{file}: larger than {yaml_lines.MAX_BYTES:,} bytes; an experiment is a page or two")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SpecError(f"{file}:{line}: not UTF-8 text; save the file as UTF-8") from None


def _written(spec: dict[str, Any], origin: str) -> str:
    out = io.StringIO()
    out.write("# " + origin.replace("\n", " ") + "\n")
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(spec, out)
    return out.getvalue()


def override(spec: dict[str, Any], places: dict[Path, int | str], text: str) -> None:
    """Applies one "PATH=VALUE" to `spec`, and notes in `places` that the value came from there.

    Raises:
        SpecError: no "=", no YAML, or a path that leads nowhere.
    """
    where = f"--set {text}"
    name, equals, value_text = text.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise SpecError(f"{where}: write PATH=VALUE, for example --set trials.0.steps=1000")
    try:
        value = yaml_lines.parse(value_text)[0] if value_text.strip() else None
    except yaml_lines.YamlError as error:
        raise SpecError(f"{where}: {error.problem}") from None
    at: Any = spec
    path: Path = ()
    while True:
        if len(path) == 3 and path[2] == "grid":
            parts = [".".join(parts)]  # a grid's keys are dotted themselves
        key = _step(at, path, parts[0], where)
        path = (*path, key)
        if len(parts) == 1:
            break
        if isinstance(at, dict) and not isinstance(at.get(key), dict | list):
            if at.get(key) is not None:
                raise SpecError(f"{where}: `{'.'.join(map(str, path))}` is a plain value; nothing is inside it")
            at[key] = {}
        at = at[key]
        parts = parts[1:]
    at[key] = value
    for old in [p for p in places if p[: len(path)] == path]:
        del places[old]
    places[path] = where


def _step(at: Any, path: Path, part: str, where: str) -> str | int:
    """The key that `part` means inside the value `at` (found at `path`)."""
    if isinstance(at, dict):
        if not path and part not in ExperimentFile.model_fields:
            raise SpecError(f"{where}: {nearest(part, ExperimentFile.model_fields, 'field')}")
        return part
    if isinstance(at, list):
        if not (part.isascii() and part.isdigit() and len(part) < 9 and int(part) < len(at)):
            name = ".".join(map(str, path))
            raise SpecError(f"{where}: `{name}` has the entries 0 to {len(at) - 1}, not `{part[:40]}`")
        return int(part)
    raise SpecError(f"{where}: `{'.'.join(map(str, path))}` is a plain value; nothing is inside it")
