"""What a network is made of: a table of its modules, their outputs' shapes, parameters and FLOPs.

    print(describe(build({"kind": "cnn"}, (1, 28, 28), 10)))

The network runs once on torch's "meta" device: shapes without numbers, so neither memory nor time.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from nets.mlp import Embedding
from nets.registry import resolve

__all__ = ["Description", "Row", "describe", "example_inputs"]

COUNTS = (
    "FLOPs: of matrix products and convolutions in one forward pass of this input, a multiply-add as 2; "
    "a module's row includes the modules inside it."
)


@dataclass(frozen=True)
class Row:
    """One module.

    Attributes:
        path: its name in the network; "" is the network itself.
        type: its class.
        output: shapes of the tensors that it returned last; empty if it was never called as a module.
        parameters: numbers in its parameters and its submodules'; a tied one counts where it comes first.
        flops: of all its calls.
    """

    path: str
    type: str
    output: tuple[tuple[int, ...], ...]
    parameters: int
    flops: int


@dataclass(frozen=True)
class Description:
    """A network's table; `print` it, or take `to_dict()`.

    Attributes:
        inputs: shapes that the network was described with.
        rows: one a module, the network itself first.
        parameters: numbers in all parameters, tied ones once.
        trainable: those that require a gradient.
        frozen: the others.
        buffers: numbers in all buffers: running moments, tables.
        flops: of one forward pass of these inputs.
    """

    inputs: tuple[tuple[int, ...], ...]
    rows: tuple[Row, ...]
    parameters: int
    trainable: int
    frozen: int
    buffers: int
    flops: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts, for JSON."""
        return _listed(asdict(self))

    def __str__(self) -> str:
        head = ("module", "type", "output", "parameters", "FLOPs")
        table = [head] + [
            (r.path or "(network)", r.type, _shapes(r.output), f"{r.parameters:,}", f"{r.flops:,}") for r in self.rows
        ]
        widths = [max(len(line[i]) for line in table) for i in range(len(head))]
        lines = []
        for line in table:
            left = [cell.ljust(width) for cell, width in zip(line[:3], widths, strict=False)]
            right = [cell.rjust(width) for cell, width in zip(line[3:], widths[3:], strict=True)]
            lines.append("  ".join(left + right).rstrip())
        lines.append("-" * max(map(len, lines)))
        lines.append(f"input {_shapes(self.inputs)}: {self.flops:,} FLOPs")
        parts = f"{self.trainable:,} trainable, {self.frozen:,} frozen; {self.buffers:,} numbers in buffers"
        lines.append(f"{self.parameters:,} parameters: {parts}")
        return "\n".join([*lines, COUNTS])


def describe(
    net: nn.Module, input_shape: Sequence[int] | None = None, inputs: Sequence[Tensor] | None = None
) -> Description:
    """The table of a network, in the mode (training or evaluation) that it is in; the network is left as it is.

    Args:
        net: any module.
        input_shape: of one row, without the batch axis; None: as the network was built (`net.recipe`).
        inputs: instead, the inputs themselves (several, tokens, a part of a network); only their shapes and types
            matter.

    Raises:
        ValueError: neither is given and the network does not say what it takes.
    """
    given = tuple(inputs) if inputs is not None else example_inputs(net, input_shape)
    on_meta = tuple(torch.empty_like(t, device="meta") for t in given)
    parameters, buffers = dict(net.named_parameters()), dict(net.named_buffers())
    weights = {name: torch.empty_like(t, device="meta") for name, t in {**parameters, **buffers}.items()}
    outputs: dict[str, Any] = {}
    flops = dict.fromkeys((name for name, _ in net.named_modules()), 0)
    with torch.no_grad(), FlopCounterMode(display=False) as counter, _watched(net, counter, outputs, flops):
        functional_call(net, weights, on_meta)
    rows = []
    for path, module in net.named_modules():
        within = [p.numel() for name, p in parameters.items() if not path or name.startswith(f"{path}.")]
        rows.append(Row(path, type(module).__name__, _output(outputs.get(path)), sum(within), flops[path]))
    total = sum(p.numel() for p in parameters.values())
    trainable = sum(p.numel() for p in parameters.values() if p.requires_grad)
    return Description(
        inputs=tuple(tuple(t.shape) for t in given),
        rows=tuple(rows),
        parameters=total,
        trainable=trainable,
        frozen=total - trainable,
        buffers=sum(b.numel() for b in buffers.values()),
        flops=flops[""],
    )


def example_inputs(net: nn.Module, input_shape: Sequence[int] | None = None, rows: int = 1) -> tuple[Tensor, ...]:
    """Zeros that the network can take: what its recipe says, or one tensor [rows, *input_shape].

    What has a `vocabulary` takes tokens, int64, and so does a model with an embedding that takes (T,): of a sequence to
    a sequence, two. A denoiser takes the noise's level too, what has `classes` labels, and what has
    `beside_features` a vector.

    Args:
        net: any module.
        input_shape: of one row; None: the recipe's.
        rows: the batch.

    Raises:
        ValueError: there is neither a recipe with an input shape nor `input_shape`.
    """
    recipe: Any = getattr(net, "recipe", None)
    role, fields = _fields(recipe) if recipe else ("", {})
    shape = tuple(input_shape or (recipe or {}).get("input_shape") or ())
    if not shape and role == "head":
        shape = (fields["in_features"],)
    if not shape:
        raise ValueError(
            f"{type(net).__name__} does not say what it takes (it was not built with an input shape): "
            "give input_shape, without the batch axis, or inputs"
        )
    if len(shape) == 1 and (_embeds(net) if role == "model" else fields.get("vocabulary")):
        wanted = inspect.signature(net.forward).parameters.values() if role == "model" else [None]
        count = sum(p is None or p.default is inspect.Parameter.empty for p in wanted)
        return tuple(torch.zeros(rows, *shape, dtype=torch.int64) for _ in range(count))
    some = next((p for p in net.parameters() if p.is_floating_point()), torch.zeros(()))
    x = torch.zeros(rows, *shape, dtype=some.dtype)
    level = (torch.zeros(rows, dtype=some.dtype),) if role == "denoiser" else ()
    labels = (torch.zeros(rows, dtype=torch.int64),) if fields.get("classes") else ()
    beside = (torch.zeros(rows, fields["beside_features"], dtype=some.dtype),) if "beside_features" in fields else ()
    return (x, *level, *labels, *beside)


def _embeds(net: nn.Module) -> bool:
    return any(isinstance(module, nn.Embedding | Embedding) for module in net.modules())


def _fields(recipe: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A recipe's role, and all fields of its block and its head, defaults too."""
    block, given = resolve(recipe["config"])
    head = recipe["output"] if isinstance(recipe["output"], Mapping) else {}
    return block.role, {**head, **{field.name: field.default for field in block.fields if not field.required}, **given}


@contextmanager
def _watched(
    net: nn.Module, counter: FlopCounterMode, outputs: dict[str, Any], flops: dict[str, int]
) -> Iterator[None]:
    """Within it, every module's last output and the FLOPs of its calls are noted by path."""
    before: list[int] = []
    handles = []

    def watch(path: str, module: nn.Module) -> None:
        def enter(*_: Any) -> None:
            before.append(counter.get_total_flops())

        def leave(_module: nn.Module, _inputs: Any, output: Any) -> None:
            outputs[path] = output
            flops[path] += counter.get_total_flops() - before.pop()

        handles.extend([module.register_forward_pre_hook(enter), module.register_forward_hook(leave)])

    for path, module in net.named_modules():
        watch(path, module)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _output(tree: Any) -> tuple[tuple[int, ...], ...]:
    leaves = pytree.tree_leaves(tree)
    return tuple(tuple(t.shape) for t in leaves if isinstance(t, Tensor))


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(f"[{', '.join(map(str, shape))}]" for shape in shapes) or "-"


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _listed(v) for name, v in value.items()}
    return [_listed(v) for v in value] if isinstance(value, tuple | list) else value
