"""Networks for other runtimes, as ONNX: encoders, policies, classifiers, generators.

    to_onnx(net, "net.onnx")
    session = onnxruntime.InferenceSession("net.onnx")
    session.run(None, {"input": rows})                # any number of rows

Needs the extra packages of `pip install "seedbed[onnx]"`.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nets.describe import example_inputs
from nets.lora import merged
from nets.outputs import output_file

__all__ = ["to_onnx"]

PACKAGES = ("onnx", "onnxscript")
ROWS = 2  # a batch of one would be taken for a constant
BATCHES = (1, 2, 5)  # that a file is tried at
MOST_DIFFERENCE = 1e-3


class _Flat(nn.Module):
    """Returns a tuple of tensors whatever the network returns."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(t for t in pytree.tree_leaves(self.net(*inputs)) if isinstance(t, Tensor))


def to_onnx(
    net: nn.Module,
    path: str | Path,
    input_shape: Sequence[int] | None = None,
    inputs: Sequence[Tensor] | None = None,
) -> None:
    """Writes a network as ONNX, in evaluation mode, with a batch axis of any length; adapters are merged.

    What was written is tried before it counts: with onnxruntime, where that is installed, at batches of 1, 2 and 5,
    whose outputs are compared with the network's own.

    The inputs are called "input", "input_1", ..., labels (one integer a row) "labels"; the outputs "output",
    "output_1", ... in the order in which the network returns its tensors.

    Args:
        net: the network; it is left as it is.
        path: of the file, replaced at once or not at all.
        input_shape: of one row, without the batch axis; None: as the network was built.
        inputs: instead, example inputs of at least two rows, batch axis first.

    Raises:
        ImportError: the packages for ONNX are not installed.
        ValueError: the path is not that of a regular file, it is not known what the network takes, it does something
            that ONNX has no operator for, or what was written takes one length of batch alone or gives other numbers.
    """
    if any(importlib.util.find_spec(name) is None for name in PACKAGES):
        raise ImportError('ONNX needs more packages: pip install "seedbed[onnx]"')
    path = output_file(path)
    given = tuple(inputs) if inputs is not None else example_inputs(net, input_shape, ROWS)
    flat = _Flat(merged(net)).eval()
    with torch.no_grad():
        count = len(flat(*given))
    rows = torch.export.Dim("rows")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _silence():
            torch.onnx.export(
                flat,
                given,
                str(partial),
                dynamo=True,
                verbose=False,
                external_data=False,
                dynamic_shapes=(tuple({0: rows} for _ in given),),
                input_names=_input_names(given),
                output_names=[_name("output", i) for i in range(count)],
            )
        _try(flat, given if inputs is not None else tuple(map(_varied, given)), partial)
        os.replace(partial, path)
    except torch.onnx.errors.OnnxExporterError as error:
        raise ValueError(f"{type(net).__name__} cannot be written as ONNX: {_first_line(error)}") from error
    finally:
        partial.unlink(missing_ok=True)


def _input_names(given: Sequence[Tensor]) -> list[str]:
    one_integer = [t.dim() == 1 and not t.is_floating_point() for t in given]  # the noise's level is not one
    return ["labels" if i and one else _name("input", i) for i, one in enumerate(one_integer)]


def _try(flat: _Flat, given: Sequence[Tensor], file: Path) -> None:
    """Refuses a file whose batch is fixed, or whose outputs are not the network's.

    Raises:
        ValueError: says which batch, and what is wrong with it.
    """
    import onnx

    kind = type(flat.net).__name__
    fixed = [axes[0].dim_value for i in onnx.load(str(file)).graph.input if (axes := i.type.tensor_type.shape.dim)]
    if any(fixed):
        mend = "take the length of the batch as x.shape[0] (not len(x)) in its forward pass"
        raise ValueError(f"{kind} would be written as ONNX with a fixed batch of {max(fixed)} rows; {mend}")
    half = any(t.dtype in (torch.float16, torch.bfloat16) for t in (*given, *flat.parameters()))
    if half or importlib.util.find_spec("onnxruntime") is None:  # few CPUs compute in half precision
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    for rows in BATCHES:
        batch = tuple(t.repeat(rows, *[1] * (t.dim() - 1))[:rows] for t in given)
        fed = {n: t.numpy() for n, t in zip(_input_names(given), batch, strict=True) if n in wanted}
        try:
            found = session.run(None, fed)
        except Exception as error:  # the runtime's own classes; the first line says it
            raise ValueError(f"{kind}, written as ONNX, refuses {rows} rows: {_first_line(error)}") from None
        with torch.no_grad():
            expected = flat(*batch)
        for ours, theirs in zip(expected, found, strict=True):
            _compare(ours, torch.as_tensor(theirs), f"{kind}, written as ONNX, at {rows} rows")


def _varied(tensor: Tensor) -> Tensor:
    """Numbers that differ in place of the zeros of an example; integers stay."""
    if not tensor.is_floating_point():
        return tensor
    return torch.linspace(-1, 1, tensor.numel(), dtype=tensor.dtype).reshape(tensor.shape)


def _compare(ours: Tensor, theirs: Tensor, what: str) -> None:
    if ours.shape != theirs.shape:
        raise ValueError(f"{what} gives the shape {list(theirs.shape)} instead of {list(ours.shape)}")
    if not ours.is_floating_point():
        return  # a choice between equals may fall either way
    if not torch.allclose(theirs.double(), ours.double(), MOST_DIFFERENCE, MOST_DIFFERENCE, equal_nan=True):
        apart = float((theirs.double() - ours.double()).abs().max())
        raise ValueError(f"{what} gives other numbers than the network: up to {apart:.2g} apart")


@contextmanager
def _silence() -> Iterator[None]:
    """The exporter speaks of packages that nobody needs, and of its own deprecations."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _name(word: str, place: int) -> str:
    return f"{word}_{place}" if place else word


def _first_line(error: Any) -> str:
    cause = error.__cause__ or error
    return next(iter(str(cause).strip().splitlines()), type(cause).__name__)
