"""Write for one, run for many: functions of ONE trial, executed for K trials side by side.

Networks are ordinary `nn.Module`s and losses are functions of one trial with no lane axis. Only this module knows how
lanes are executed: vmapped eagerly, vmapped and compiled, or one after another, and on which device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

__all__ = ["Execution", "Mode", "Tree", "call", "module_of"]

Tree = Any  # a tensor, or nested dicts / tuples of tensors
Mode = Literal["eager", "compiled", "loop"]


@dataclass(frozen=True)
class Execution:
    """How the lanes of a cohort are executed.

    Attributes:
        mode: "eager" (vmap), "compiled" (vmap, torch.compile) or "loop" (one lane after another).
        device: "cpu", "cuda" or "cuda:INDEX".
        dtype: floating-point type of parameters and noise.
    """

    mode: Mode = "eager"
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    def tensor(self, array: Any) -> Tensor:
        """An array as a tensor on the device; floats take the execution's dtype."""
        t = torch.as_tensor(np.asarray(array))
        return t.to(device=self.device, dtype=self.dtype) if t.is_floating_point() else t.to(self.device)

    def stack(self, build: Callable[[], nn.Module], seeds: Sequence[int]) -> tuple[nn.Module, Tree, Tree]:
        """K networks, initialised one by one: lane k equals `build()` under `torch.manual_seed(seeds[k])`.

        Returns:
            (skeleton, params, buffers): a network without weights (on "meta") for `call`, and dicts of [K, ...] tensors.
        """
        networks = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                networks.append(build().to(device=self.device, dtype=self.dtype))
        params, buffers = stack_module_state(networks)
        params = {name: p.detach().clone() for name, p in params.items()}
        return networks[0].to("meta"), params, dict(buffers)

    def each(self, function: Callable, in_dims: int | tuple[int | None, ...] = 0) -> Callable:
        """Turns a function of one trial into one of K: every argument and result gains a leading lane axis.

        Args:
            function: of trees of tensors; returns a tree of tensors.
            in_dims: 0 for arguments with a lane axis, None for those all lanes share (one entry an argument).
        """
        if self.mode == "loop":
            return _one_after_another(function, in_dims)
        batched = torch.vmap(function, in_dims=in_dims)
        if self.mode == "compiled":
            return torch.compile(batched, fullgraph=True, dynamic=False)
        return batched


def call(net: nn.Module, params: Tree, buffers: Tree, *inputs: Any) -> tuple[Any, Tree]:
    """Calls one network functionally: (output, new buffers)."""
    return functional_call(net, (params, buffers), inputs), buffers


def module_of(build: Callable[[], nn.Module], params: Tree, buffers: Tree, lane: int) -> nn.Module:
    """One ordinary network on the CPU with a lane's weights."""
    net = build()
    weights = {**params, **buffers}
    net.load_state_dict({name: t[lane].detach().cpu() for name, t in weights.items()})
    return net


def _one_after_another(function: Callable, in_dims: int | tuple[int | None, ...]) -> Callable:
    def looped(*args: Any) -> Any:
        dims = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
        count = next(_leaf(a).shape[0] for a, d in zip(args, dims, strict=True) if d is not None)
        rows = []
        for k in range(count):
            row = [a if d is None else torch.utils._pytree.tree_map(lambda t, k=k: t[k], a) for a, d in zip(args, dims, strict=True)]
            rows.append(function(*row))
        return torch.utils._pytree.tree_map(lambda *ts: torch.stack(ts), *rows)

    return looped


def _leaf(tree: Tree) -> Tensor:
    return torch.utils._pytree.tree_leaves(tree)[0]
