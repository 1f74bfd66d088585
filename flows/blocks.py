"""The command `seedbed blocks`: what networks are made of. Loads torch and `nets`, nothing else of ours."""

from __future__ import annotations

import difflib
import inspect
import json
import textwrap
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from rich.console import Console
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.errors import UserError
from nets.describe import Description, describe
from nets.registry import ROLES, Block, blocks, build

__all__ = ["parse_shape", "show_blocks", "type_name"]

TITLES = {
    "encoder": "Encoders: [B, *input] to [B, out_features]",
    "generator": "Generators: noise [B, Z] to samples [B, *output]",
    "denoiser": "Denoisers: [B, *input] and the noise's level [B] to [B, *input]",
    "head": "Heads: features to what a loss or a distribution takes",
    "model": "Models: whole networks",
    "layer": "Layers: parts",
}


def show_blocks(
    kind: str | None, input_: str | None, output: str | None, settings: Sequence[str], *, as_json: bool
) -> int:
    """Prints all blocks, or one; with an input shape also the table of the network that it makes.

    Args:
        kind: of one block; None: all.
        input_: "1,28,28": the shape of one row (a generator's noise width).
        output: "10": how many outputs; a generator's sample shape.
        settings: "field=value" for the table's network.
        as_json: one JSON object instead.

    Raises:
        UserError: there is no such block, or the network cannot be built.
    """
    chosen = [_block(kind)] if kind else list(blocks().values())
    if not kind and (input_ or output or settings):
        raise UserError("--input, --output and --set describe one block: name it", usage=True)
    if kind and input_ is None and (output or settings):
        raise UserError("--output and --set need an input shape: --input 1,28,28", usage=True)
    table = _example(chosen[0], input_, output, settings) if kind and input_ else None
    if as_json:
        from flows.cli import print_json

        found: dict[str, Any] = {"blocks": [_plain(block) for block in chosen]}
        print_json(found | ({"description": table.to_dict()} if table else {}))
        return 0
    console = Console(highlight=False, soft_wrap=True)
    for role in ROLES:
        members = [block for block in chosen if block.role == role]
        if members:
            console.print(f"[bold]{TITLES[role]}[/bold]")
        for block in members:
            _print(console, block)
    if table:
        console.print(str(table), markup=False)
    return 0


def parse_shape(text: str, option: str) -> tuple[int, ...]:
    """The shape in "1,28,28" or "1x28x28".

    Raises:
        UserError: it is no such thing.
    """
    parts = text.replace("x", ",").split(",")
    if not all(p.strip().isascii() and p.strip().isdigit() and int(p) > 0 for p in parts):
        raise UserError(f"{option} {text}: a shape is written like 1,28,28", usage=True)
    return tuple(int(p) for p in parts)


def type_name(hint: Any) -> str:
    """A type as a configuration's author thinks of it: "int", "none | batch", "list of int"."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " | ".join(str(a) for a in args)
    if origin in (Union, UnionType):
        return " | ".join(type_name(a) for a in args)
    if hint in (None, NoneType):
        return "null"
    if origin is not None and issubclass(origin, Mapping):
        return "mapping"
    if origin is not None and issubclass(origin, Sequence):
        return f"list of {type_name(args[0])}"
    return "any" if hint is Any else getattr(hint, "__name__", str(hint))


def _block(kind: str) -> Block:
    known = blocks()
    if kind in known:
        return known[kind]
    near = difflib.get_close_matches(kind, known, n=1)
    hint = f": did you mean {near[0]}?" if near else "; `seedbed blocks` lists them"
    raise UserError(f"there is no block called {kind}{hint}", usage=True)


def _example(block: Block, input_: str, output: str | None, settings: Sequence[str]) -> Description:
    shape = parse_shape(input_, "--input")
    out = parse_shape(output, "--output") if output else None
    config = {"kind": block.kind, **dict(_setting(text) for text in settings)}
    if out is None and block.role in ("generator", "head", "model"):
        raise UserError(f"a {block.role} needs --output", usage=True)
    if out is not None and block.role in ("denoiser", "layer"):
        raise UserError(f"a {block.role} takes no --output", usage=True)
    wanted = out[0] if out and len(out) == 1 and block.role != "generator" else out
    if block.role == "head":
        config, wanted = {**config, "in_features": shape[-1], "out_features": wanted}, None
    try:
        return describe(build(config, shape, wanted), shape)
    except ValueError as error:
        raise UserError(str(error), usage=True) from None
    except (TypeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{block.kind} cannot be built for --input {input_}: {reason}", usage=True) from None


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UserError(f"--set {text}: write field=value", usage=True)
    try:
        return name, YAML(typ="safe").load(value)
    except YAMLError:
        raise UserError(f"--set {text}: {value} is no YAML value", usage=True) from None


def _print(console: Console, block: Block) -> None:
    console.print(f"  [bold]{block.kind}[/bold]")
    console.print(_wrapped(block.summary, console.width, "    "), markup=False)
    for field in block.fields:
        default = "must be given" if field.required else _shown(field.default)
        text = f"{field.name}: {type_name(field.type)} = {default}. {field.description}"
        console.print(_wrapped(text, console.width, "      ", "        "), markup=False)


def _wrapped(text: str, width: int, first: str, rest: str | None = None) -> str:
    return textwrap.fill(text, max(width, 40), initial_indent=first, subsequent_indent=rest or first)


def _plain(block: Block) -> dict[str, Any]:
    fields = [
        {
            "name": f.name,
            "type": type_name(f.type),
            "required": f.required,
            "default": _json(f.default),
            "description": f.description,
        }
        for f in block.fields
    ]
    return {"kind": block.kind, "role": block.role, "summary": block.summary, "fields": fields}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(_json(value))


def _json(value: Any) -> Any:
    if value is inspect.Parameter.empty:
        return None
    if isinstance(value, tuple):
        return [_json(v) for v in value]
    return dict(value) if isinstance(value, Mapping) else value
