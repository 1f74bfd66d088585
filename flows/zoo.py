"""The command `seedbed zoo`: hyper-parameter files of rl-baselines3-zoo as experiment files."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.errors import UserError
from flows.zoo_translation import ALGORITHMS, OWN, Untranslatable, translate

__all__ = ["experiment_text", "import_zoo", "read_zoo"]

FAMILIES = ("default", "atari")  # entries that stand for many environments
ATARI = re.compile(r"ALE/.+|.+(NoFrameskip|Deterministic)-v\d+")
LONG = 80
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
WORDS = ("true", "false", "null", "yes", "no", "on", "off")


def import_zoo(file: Path, algo: str, env: str | None, own: bool, output: Path) -> int:
    """Writes the experiment file and prints its path.

    Args:
        file: a YAML file of the zoo: ids of environments, and under each its hyper-parameters.
        algo: the algorithm that they are for, as the zoo names it.
        env: whose to take; None takes all that are listed by name.
        own: for our learner instead of stable-baselines3's.
        output: where to write.

    Returns:
        0, or 1 where some of several entries cannot be translated: they are named, the others are written.

    Raises:
        UserError: the file cannot be read, or nothing that was asked for can be said in an experiment file.
    """
    known = OWN if own else ALGORITHMS
    if algo not in known:
        raise UserError(f"--algo {algo}: {'we have' if own else 'known are'} {', '.join(known)}", usage=True)
    entries, lines = read_zoo(file)
    names = [env] if env else [name for name in entries if name not in FAMILIES]
    trials: list[dict[str, Any]] = []
    notes: list[str] = []
    refused: list[str] = []
    for name in names:
        key = _entry_of(name, entries, file)
        try:
            found = translate(name, entries[key], algo, own)
        except Untranslatable as error:
            line = lines.get((key, error.key)) or lines.get((key,), 0)
            refused.append(f"{file}:{line}: {name}: {error}")
            continue
        trials.append(found.trial)
        notes += [f"{name}: {note}" for note in found.notes]
    if not trials:
        raise UserError("\n".join(refused) or _only_families(file, entries), usage=True)
    _write(output, trials, [f"from {file.name} for {algo}, by `seedbed zoo`", *notes])
    print(output)
    families = [] if env else [name for name in FAMILIES if name in entries]
    if families:
        notes.append(f"skipped {' and '.join(families)} (for any environment); name one with --env ID")
    if refused:
        refused.append(f"{len(refused)} of {len(names)} entries were left out of {output}")
    for text in (*notes, *refused):
        print(text, file=sys.stderr)
    return 1 if refused else 0


def _only_families(file: Path, entries: Mapping[str, Any]) -> str:
    return f"{file} has only {' and '.join(entries)} (for any environment); name one with --env ID"


def _write(output: Path, trials: list[dict[str, Any]], comments: list[str]) -> None:
    try:
        output.write_text(experiment_text(output.stem, trials, comments), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror or error}") from None


def read_zoo(file: Path) -> tuple[dict[str, dict[str, Any]], Mapping[Any, Any]]:
    """(entries with `<<` merged, lines of all values).

    Raises:
        UserError: it is no such file.
    """
    from harness import yaml_lines

    try:
        with file.open("rb") as handle:
            text = handle.read(yaml_lines.MAX_BYTES + 1).decode("utf-8-sig")
        values, lines = yaml_lines.parse(text)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}", usage=True) from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8 text", usage=True) from None
    except yaml_lines.YamlError as error:
        raise UserError(error.at(str(file)), usage=True) from None
    if not isinstance(values, dict) or not values or not all(isinstance(v, dict) for v in values.values()):
        raise UserError(f"{file}: expected ids of environments, and hyper-parameters under each", usage=True)
    return {name: _merged(entry) for name, entry in values.items()}, lines


def _merged(entry: dict[str, Any]) -> dict[str, Any]:
    """YAML's merge key: its values count where the entry has none of its own."""
    defaults = entry.get("<<", [])
    merged: dict[str, Any] = {}
    for one in reversed(defaults if isinstance(defaults, list) else [defaults]):
        merged |= _merged(one)
    return merged | {key: value for key, value in entry.items() if key != "<<"}


def _entry_of(name: str, entries: Mapping[str, Any], file: Path) -> str:
    """The key that holds an environment's hyper-parameters, as the zoo looks it up."""
    if name in FAMILIES:
        of, example = ("game of Atari", "ALE/Pong-v5") if name == "atari" else ("environment", "CartPole-v1")
        raise UserError(f"--env {name}: it is for any {of}; name one, as in --env {example}", usage=True)
    if name in entries:
        return name
    if "atari" in entries and ATARI.fullmatch(name):
        return "atari"
    if "default" in entries:
        return "default"
    some = [key for key in entries if key not in FAMILIES]
    shown = ", ".join(some[:12]) + ", ..." * (len(some) > 12)
    raise UserError(f"{file} has no entry {name}; it has {shown}", usage=True)


def experiment_text(name: str, trials: list[dict[str, Any]], comments: list[str]) -> str:
    """An experiment file: comments, the name, and one entry a trial, a field a line, in long mappings a key a line."""
    lines = [f"# {comment}" for comment in comments] + [f"name: {_flow(name)}", "trials:"]
    for trial in trials:
        fields = [line for key, value in trial.items() for line in _field(key, value)]
        lines += [f"  - {fields[0]}", *(f"    {line}" for line in fields[1:])]
    return "\n".join(lines) + "\n"


def _field(key: str, value: Any) -> list[str]:
    line = f"{key}: {_flow(value)}"
    if isinstance(value, dict) and len(line) > LONG:
        return [f"{key}:", *(f"  {_flow(name)}: {_flow(item)}" for name, item in value.items())]
    return [line]


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:_}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    return json.dumps(value)
