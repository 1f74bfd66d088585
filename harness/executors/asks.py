"""What a slot asks of a node, how many fit, and how that is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Ask", "amounts", "room", "told"]


@dataclass(frozen=True)
class Ask:
    """What a slot needs: `workers` workers of `cpus` CPUs and `gpus` GPUs each, each within one node."""

    cpus: int = 1
    gpus: float = 0.0
    workers: int = 1

    def __str__(self) -> str:
        each = amounts(self.bundle).removesuffix(" and no GPU")
        return f"{self.workers} workers of {each} each" if self.workers > 1 else f"a worker of {each}"

    @property
    def bundle(self) -> dict[str, float]:
        """One worker's resources, as Ray calls them."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}


def room(nodes: Sequence[Mapping[str, float]], ask: Ask) -> int:
    """How many slots fit into nodes that are otherwise empty.

    Args:
        nodes: each node's resources; a resource that is not named there is not there.
        ask: what one slot needs.
    """
    slack = 1e-6  # shares of a GPU are sums of binary fractions
    fits = [min(int(node.get(name, 0.0) / need + slack) for name, need in ask.bundle.items()) for node in nodes]
    return sum(fits) // ask.workers


def amounts(resources: Mapping[str, float]) -> str:
    """2 CPUs and 1 GPU."""
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    text = f"{cpus:g} CPU" + ("" if cpus == 1 else "s")
    return text + f" and {gpus:g} GPU" + ("" if 0 < gpus <= 1 else "s") if gpus else text + " and no GPU"


def told(nodes: Sequence[Mapping[str, float]]) -> str:
    """What one node has, or how many nodes have what."""
    each = [amounts(node) for node in nodes]
    if len(each) == 1:
        return each[0]
    return f"{len(each)} nodes (" + ", ".join(f"{each.count(text)} x {text}" for text in dict.fromkeys(each)) + ")"
