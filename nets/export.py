"""Networks as files that outlive the code that trained them: safetensors with a description.

    save(net, "net.safetensors")
    net = load("net.safetensors")       # needs Seedbed's blocks and nothing else of ours

The file's metadata holds one JSON text: the format's version, the recipe that `nets.registry.build` was given, the
parameters' type. Loading runs no code from the file: a recipe can only name registered blocks and their fields.
For other runtimes there is `nets.onnx_export`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor, nn

from nets.lora import merged
from nets.outputs import output_file
from nets.registry import build

__all__ = ["FORMAT", "KEY", "ExportError", "describe_file", "load", "metadata_of", "recipe_of", "save"]

FORMAT = 1  # raised when a reader of the format before could not read it
KEY = "seedbed"  # of the description in the file's metadata
MOST_CHARACTERS = 1_000_000
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
DTYPES |= {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8}
DTYPES |= {"BOOL": torch.bool}
Facts = tuple[tuple[int, ...], torch.dtype]


class ExportError(ValueError):
    """A network that cannot be saved, or a file that cannot be loaded; the message says why."""


def save(net: nn.Module, path: str | Path) -> None:
    """Writes a network to a file; one that is there is replaced at once or not at all.

    Adapters (`nets.lora`) are merged; another head (`nets.transfer.swap_head`) is part of the recipe.

    Raises:
        ExportError: the network was not made by `nets.registry.build`, or its parts were exchanged since.
        ValueError: the path is that of a folder, a device, a link: nothing that is not a regular file is replaced.
        OSError: the file cannot be written.
    """
    path = output_file(path)
    net = merged(net)
    metadata = metadata_of(net)
    tensors = _tensors(net)
    description = json.loads(metadata[KEY])
    expected = _facts(_tensors(_blank(description["recipe"], description["dtype"])))
    problem = _difference(_facts(tensors), expected)
    if problem:
        raise ExportError(f"the network is not what its recipe builds, so it could not be loaded again: {problem}")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        data = {n: _plain(t) for n, t in tensors.items()}
        partial.write_bytes(serialised(data, metadata=metadata))  # save_file would hide it from other users
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: str | Path) -> nn.Module:
    """The network in a file, on the CPU, in evaluation mode.

    Names, shapes and types of all weights are compared with what the recipe builds before the first is read.

    Raises:
        FileNotFoundError: there is no such file.
        ExportError: it is damaged, not of ours, of a later format, names a block that is not known here, or holds
            other weights than its recipe's network has.
    """
    path = Path(path)
    description = describe_file(path)
    recipe, dtype = description["recipe"], description["dtype"]
    with safe_open(path, framework="pt", device="cpu") as stored:
        try:
            blank = _blank(recipe, dtype)
            expected = _facts(_tensors(blank))
            # a run folder's file has tied weights under each of their names
            again = blank.state_dict().keys() - expected.keys()
            found = {name: facts for name, facts in _stored_facts(stored).items() if name not in again}
            problem = _difference(found, expected)
        except Exception as error:  # a recipe from anywhere may be wrong in any way
            raise ExportError(f"{path} cannot be rebuilt here: {error}") from None
        if problem:
            raise ExportError(f"{path} holds other weights than its description says: {problem}")
        with torch.random.fork_rng(devices=[]):  # initialising must not move the caller's generator
            net = _built(recipe).to(getattr(torch, dtype))
        with torch.no_grad():
            for name, tensor in _tensors(net).items():
                tensor.copy_(stored.get_tensor(name))
    return net.eval()


def describe_file(path: str | Path) -> dict[str, Any]:
    """A file's description: {"format", "recipe", "dtype"}, with their types checked.

    Raises:
        FileNotFoundError: there is no such file.
        ExportError: it is damaged, not of ours or of a later format.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt", device="cpu") as stored:
            text = (stored.metadata() or {}).get(KEY)
    except SafetensorError as error:
        raise ExportError(f"{path} is no safetensors file, or a damaged one: {error}") from None
    if text is None:
        raise ExportError(f"{path} holds weights without Seedbed's description; nets.transfer.read_weights reads them")
    try:
        found = json.loads(text) if len(text) <= MOST_CHARACTERS else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("format"), int):
        raise ExportError(f"{path}: its description is damaged")
    if found["format"] != FORMAT:
        raise ExportError(f"{path} has format {found['format']}; this version of Seedbed reads format {FORMAT}")
    recipe, dtype = found.get("recipe"), found.get("dtype")
    if not _is_recipe(recipe) or f"torch.{dtype}" not in map(str, DTYPES.values()):
        raise ExportError(f"{path}: its description is damaged")
    return {"format": FORMAT, "recipe": recipe, "dtype": dtype}


def metadata_of(net: nn.Module) -> dict[str, str]:
    """The metadata of a file of a network's weights from which `load` rebuilds it.

    Raises:
        ExportError: it was not made by `nets.registry.build`, or its parameters are of several types.
    """
    recipe = recipe_of(net)
    kinds = {t.dtype for t in net.parameters() if t.is_floating_point()} or {torch.float32}
    if len(kinds) > 1:
        raise ExportError(f"the network's parameters are of several types: {', '.join(sorted(map(str, kinds)))}")
    dtype = str(kinds.pop()).removeprefix("torch.")
    try:
        return {KEY: json.dumps({"format": FORMAT, "recipe": recipe, "dtype": dtype}, allow_nan=False, sort_keys=True)}
    except (TypeError, ValueError) as error:
        raise ExportError(f"the network's recipe is not plain data: {error}") from None


def recipe_of(net: nn.Module) -> dict[str, Any]:
    """What `nets.registry.build` was given for this network.

    Raises:
        ExportError: it was made in another way.
    """
    recipe: Any = getattr(net, "recipe", None)
    if not _is_recipe(recipe):
        raise ExportError(
            f"this {type(net).__name__} was not made by nets.registry.build, so a file could not say how to rebuild it"
        )
    return recipe


def _is_recipe(value: Any) -> bool:
    if not isinstance(value, Mapping) or set(value) != {"config", "input_shape", "output"}:
        return False
    shape = value["input_shape"]
    return isinstance(value["config"], Mapping) and isinstance(shape, list) and all(type(n) is int for n in shape)


def _built(recipe: Mapping[str, Any]) -> nn.Module:
    return build(recipe["config"], recipe["input_shape"] or None, recipe["output"])


def _blank(recipe: Mapping[str, Any], dtype: str) -> nn.Module:
    """The network without numbers: names, shapes and types cost no memory."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _built(recipe).to(getattr(torch, dtype))


def _tensors(net: nn.Module) -> dict[str, Tensor]:
    """What a file holds: parameters and lasting buffers; a tied one under its first name only."""
    first: dict[int, str] = {}
    for name, tensor in net.state_dict(keep_vars=True).items():
        first.setdefault(id(tensor), name)
    everything = net.state_dict(keep_vars=True)
    return {name: everything[name] for name in first.values()}


def _plain(tensor: Tensor) -> Tensor:
    """Its numbers in rows on the CPU, whatever its memory format and if it is a view."""
    numbers = tensor.detach().resolve_conj().resolve_neg().cpu()
    return numbers.clone(memory_format=torch.contiguous_format)


def _facts(tensors: Mapping[str, Tensor]) -> dict[str, Facts]:
    return {name: (tuple(t.shape), t.dtype) for name, t in tensors.items()}


def _stored_facts(stored: Any) -> dict[str, Facts]:
    slices = {name: stored.get_slice(name) for name in stored.keys()}  # noqa: SIM118
    return {name: (tuple(s.get_shape()), DTYPES.get(s.get_dtype(), torch.complex128)) for name, s in slices.items()}


def _difference(found: Mapping[str, Facts], expected: Mapping[str, Facts]) -> str:
    """The first thing in which two sets of weights differ; "" if there is none."""
    for name in sorted(found.keys() ^ expected.keys()):
        return f"{name} is {'not part of the network' if name in found else 'missing'}"
    for name, (shape, dtype) in expected.items():
        if found[name][0] != shape:
            return f"{name} has the shape {list(found[name][0])}, not {list(shape)}"
        if found[name][1] != dtype:
            return f"{name} is {found[name][1]}, not {dtype}"
    return ""
