"""Small examples of every registered block: what `tests/conformance/test_blocks.py` runs.

Each module here holds EXAMPLES, a list; a new block joins by one line in one of them.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["Example", "examples"]


@dataclass(frozen=True)
class Example:
    """A block in its smallest useful form.

    Attributes:
        config: {"kind": ..., fields}.
        input_shape: of one row, without the batch axis (None for layers and heads: give `inputs`).
        output: as `nets.registry.build` takes it.
        inputs: makes the network's inputs with torch's generator; default: torch.randn(3, *input_shape).
        smooth: whether its derivative is continuous (then gradcheck in float64 applies).
        unused: parameters that need not get a gradient, with the reason.
        tag: the variant, for the test's id.
    """

    config: dict[str, Any]
    input_shape: tuple[int, ...] | None = None
    output: Any = None
    inputs: Callable[[], tuple[Tensor, ...]] | None = None
    smooth: bool = True
    unused: dict[str, str] = field(default_factory=dict)
    tag: str = ""

    @property
    def id(self) -> str:
        """The kind and the tag."""
        return " ".join(filter(None, (self.config["kind"], self.tag)))

    def make_inputs(self, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, ...]:
        """The inputs for a seed, floats of the given type."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            found = self.inputs() if self.inputs else (torch.randn(3, *self.input_shape),)
        return tuple(t.to(dtype) if t.is_floating_point() else t for t in found)


def examples() -> list[Example]:
    """All examples of the modules of this package."""
    found: list[Example] = []
    for module in pkgutil.iter_modules(__path__):
        found += importlib.import_module(f"{__name__}.{module.name}").EXAMPLES
    return found
