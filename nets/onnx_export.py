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

__all__ = ["to_onnx"]

PACKAGES = ("onnx", "onnxscript")
ROWS = 2  # a batch of one would be taken for a constant


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

    The inputs are called "input", "input_1", ..., labels (one integer a row) "labels"; the outputs "output",
    "output_1", ... in the order in which the network returns its tensors.

    Args:
        net: the network; it is left as it is.
        path: of the file, replaced at once or not at all.
        input_shape: of one row, without the batch axis; None: as the network was built.
        inputs: instead, example inputs of at least two rows, batch axis first.

    Raises:
        ImportError: the packages for ONNX are not installed.
        ValueError: it is not known what the network takes, or it does something that ONNX has no operator for.
    """
    if any(importlib.util.find_spec(name) is None for name in PACKAGES):
        raise ImportError('ONNX needs more packages: pip install "seedbed[onnx]"')
    given = tuple(inputs) if inputs is not None else example_inputs(net, input_shape, ROWS)
    flat = _Flat(merged(net)).eval()
    with torch.no_grad():
        count = len(flat(*given))
    rows = torch.export.Dim("rows")
    path = Path(path)
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
                input_names=["labels" if i and t.dim() == 1 else _name("input", i) for i, t in enumerate(given)],
                output_names=[_name("output", i) for i in range(count)],
            )
        os.replace(partial, path)
    except torch.onnx.errors.OnnxExporterError as error:
        raise ValueError(f"{type(net).__name__} cannot be written as ONNX: {_first_line(error)}") from error
    finally:
        partial.unlink(missing_ok=True)


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
