"""Blocks by name: what there is, which fields it has, and how it is built from a configuration.

    net = build({"kind": "cnn", "hidden_features": 16}, input_shape=(1, 28, 28), output=10)
    net.encoder, net.head           # the same encoder is a policy's eyes, a discriminator and a classifier's trunk

A block joins by `@register`. Its fields, their types and defaults are its constructor's, their descriptions the
"Args:" of its docstring: one source for the code, `seedbed blocks` and every error message.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from torch import Tensor, nn

import nets

__all__ = ["ROLES", "Block", "Field", "Network", "Role", "blocks", "build", "register", "resolve"]

Role = Literal["encoder", "generator", "denoiser", "head", "model", "layer"]
M = TypeVar("M", bound=type[nn.Module])
ROLES: dict[Role, tuple[str, ...]] = {  # what `build` passes first, by position; the rest are fields
    "encoder": ("in_shape",),  # [B, *in_shape] to [B, out_features]; has the attribute out_features
    "generator": ("in_features", "out_shape"),  # noise [B, in_features] to samples [B, *out_shape]
    "denoiser": ("in_shape",),  # [B, *in_shape] and the noise's level [B] to [B, *in_shape]
    "head": ("in_features", "out_features"),  # features [..., in_features] to what a loss or distribution takes
    "model": ("in_shape", "out_features"),  # a whole network
    "layer": (),  # a part: all its arguments are fields
}
_BLOCKS: dict[str, Block] = {}


@dataclass(frozen=True)
class Field:
    """One field of a block: its name, type, default (`inspect.Parameter.empty` where it must be given), meaning."""

    name: str
    type: Any
    default: Any
    description: str

    @property
    def required(self) -> bool:
        """Whether a configuration must name it."""
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True)
class Block:
    """A registered block."""

    kind: str
    role: Role
    cls: type[nn.Module]
    summary: str
    fields: tuple[Field, ...]


class Network(nn.Module):
    """An encoder and a head.

    Args:
        encoder: [B, *in_shape] to [B, features].
        head: [B, features] to the output; further inputs (labels) go to the head.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, x: Tensor, *rest: Tensor) -> Any:
        """The head's output for the encoder's features."""
        return self.head(self.encoder(x), *rest)


def register(kind: str, role: Role) -> Callable[[M], M]:
    """Class decorator: the block is known as `kind` from now on.

    Raises:
        ValueError: the kind is taken, or a field has no description in the docstring.
    """

    def decorate(cls: M) -> M:
        if kind in _BLOCKS and _BLOCKS[kind].cls.__qualname__ != cls.__qualname__:
            raise ValueError(f"two blocks are called '{kind}'")
        _BLOCKS[kind] = Block(kind, role, cls, _summary(cls), _fields(kind, role, cls))
        return cls

    return decorate


@lru_cache(maxsize=1)
def _load() -> None:
    for module in pkgutil.iter_modules(nets.__path__):
        importlib.import_module(f"nets.{module.name}")


def blocks() -> dict[str, Block]:
    """All registered blocks by kind, in alphabetical order."""
    _load()
    return dict(sorted(_BLOCKS.items()))


def build(
    config: Mapping[str, Any],
    input_shape: int | Sequence[int] | None = None,
    output: int | Sequence[int] | Mapping[str, Any] | None = None,
) -> nn.Module:
    """A network from its configuration; it remembers it as `net.recipe`, from which `nets.export` rebuilds it.

    Args:
        config: {"kind": ..., and that block's fields}.
        input_shape: of one row: (features,), (time, features), (channels, height, width); a generator's noise width.
        output: of an encoder: None leaves it bare, a number adds a linear head, {"kind": ..., "out_features": ...}
            another head. Of a generator: the shape of a sample. Of a model: its out_features. Of a denoiser, a head or
            a layer: None (a head takes in_features and out_features as fields).

    Raises:
        ValueError: unknown kind or field, a value of the wrong type, a field that is missing; the message names the
            field and what there is.
    """
    block, fields = resolve(config)
    shape = (input_shape,) if isinstance(input_shape, int) else tuple(input_shape or ())
    args: tuple[Any, ...] = ()
    if block.role in ("encoder", "denoiser"):
        args = (shape,)
    elif block.role == "generator":
        args = (shape[0], tuple(output) if isinstance(output, Sequence) else output)
    elif block.role == "model":
        args = (shape, output)
    elif block.role == "head":
        args = (fields.pop("in_features"), fields.pop("out_features"))
    net: Any = block.cls(*args, **fields)
    if block.role == "encoder" and output is not None:
        net = Network(net, _head(output, net.out_features))
    net.recipe = {"config": dict(config), "input_shape": list(shape), "output": _plain(output)}
    return net


def resolve(config: Mapping[str, Any]) -> tuple[Block, dict[str, Any]]:
    """A configuration's block and its checked fields (lists become tuples); see `build` for what is raised."""
    known = blocks()
    kind = config.get("kind")
    if kind not in known:
        raise ValueError(f"unknown block {kind!r}; known: {', '.join(known)}")
    block = known[kind]
    given = {name: value for name, value in config.items() if name != "kind"}
    fields = {f.name: f for f in block.fields}
    if block.role == "head":  # a head that is built alone has its widths among its fields
        for name in ROLES["head"]:
            fields[name] = Field(name, Any, inspect.Parameter.empty, "")
    for name in given:
        if name not in fields:
            raise ValueError(f"block '{kind}' has no field '{name}'; it has: {', '.join(fields) or 'none'}")
    for name, field in fields.items():
        if field.required and name not in given:
            raise ValueError(f"block '{kind}' needs the field '{name}': {field.description}")
    return block, {name: _checked(kind, fields[name], value) for name, value in given.items()}


def _head(output: Any, in_features: int) -> nn.Module:
    config = dict(output) if isinstance(output, Mapping) else {"kind": "linear", "out_features": output}
    block, fields = resolve({**config, "in_features": in_features})
    if block.role != "head":
        raise ValueError(f"output: block '{block.kind}' is no head but a {block.role}")
    return block.cls(fields.pop("in_features"), fields.pop("out_features"), **fields)


def _summary(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ")


def _fields(kind: str, role: Role, cls: type[nn.Module]) -> tuple[Field, ...]:
    hints = get_type_hints(cls.__init__)
    described = _descriptions(inspect.getdoc(cls) or "")
    found = []
    for name, parameter in list(inspect.signature(cls).parameters.items())[len(ROLES[role]) :]:
        if name not in described:
            raise ValueError(f"block '{kind}': its docstring says nothing about the argument '{name}'")
        found.append(Field(name, hints.get(name, Any), parameter.default, described[name]))
    return tuple(found)


def _descriptions(docstring: str) -> dict[str, str]:
    """Argument -> text of a Google-style docstring's "Args:"."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", docstring, re.MULTILINE)
    found: dict[str, str] = {}
    last = ""
    for line in section.group(1).splitlines() if section else ():
        start = re.match(r"    (\w+): (.*)", line)
        if start:
            last = start.group(1)
            found[last] = start.group(2)
        elif last and line.strip():
            found[last] += " " + line.strip()
    return found


def _checked(kind: str, field: Field, value: Any) -> Any:
    value = tuple(value) if isinstance(value, list) else value
    if not _fits(value, field.type):
        wanted = str(field.type) if get_origin(field.type) else getattr(field.type, "__name__", str(field.type))
        wanted = wanted.replace("typing.", "").replace("NoneType", "None")
        raise ValueError(f"block '{kind}', field '{field.name}': {value!r} is no {wanted}; {field.description}")
    return value


def _fits(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is Literal:
        return value in args
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (None, NoneType):
        return value is None
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if origin is not None and issubclass(origin, Sequence):
        return isinstance(value, tuple) and all(_fits(v, args[0]) for v in value)
    return isinstance(value, origin or hint)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
