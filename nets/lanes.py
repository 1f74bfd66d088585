"""Write for one, run for many: functions of ONE trial, executed for K trials side by side.

Networks are ordinary `nn.Module`s and losses are functions of one trial with no lane axis. Only this module
knows how lanes are executed: vmapped eagerly, vmapped and compiled, or one after another, and on which
device.

    execution = Execution("eager")
    net, params, buffers = execution.stack(build, seeds)              # dicts of [K, ...] tensors
    update = execution.each(lambda params, x, y: grad_and_value(loss)(params, x, y))
    grads, losses = update(params, x, y)                              # K at once
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state
from torch.utils import _pytree as pytree

from nets.attend import transformed
from nets.compile_cache import cache_folder, use_compile_cache
from nets.compiling import Compiled, has_compiler, reset_compiler
from nets.noise import noise_from
from nets.transfer import load_encoders

__all__ = [
    "Execution",
    "Mode",
    "Tree",
    "Work",
    "call",
    "choose_mode",
    "grad_and_value",
    "gradients",
    "has_compiler",
    "keep",
    "module_of",
    "reset_compiler",
    "resolve_device",
    "scanned",
    "use_compile_cache",
    "why_not_compiled",
]

Tree = Any  # a tensor, or nested dicts / tuples of tensors
Mode = Literal["eager", "compiled", "loop"]
InDims = int | tuple[int | None, ...]  # as torch.vmap's: 0 for a lane axis, None for none


@dataclass(frozen=True)
class Execution:
    """How the lanes of a cohort are executed.

    Attributes:
        mode: "eager" (vmap), "compiled" (vmap, compiled by TorchInductor) or "loop" (one lane after another).
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

    def move(self, tree: Tree) -> Tree:
        """A tree of tensors on the device, each with the type it has."""
        return pytree.tree_map(lambda t: t.to(self.device), tree)

    def stack(
        self,
        build: Callable[[], nn.Module],
        seeds: Sequence[int],
        encoders: Sequence[Mapping[str, Tensor] | None] = (),
    ) -> tuple[nn.Module, Tree, Tree]:
        """K networks, initialised one by one: lane k equals `build()` under `torch.manual_seed(seeds[k])`.

        Args:
            build: one network.
            seeds: one a lane.
            encoders: for every lane the weights of a network whose encoder replaces that of `build()`, or None.

        Raises:
            ValueError: an encoder has other names or shapes.

        Returns:
            (skeleton, params, buffers): a network without weights (on "meta") for `call`, and dicts of [K,
            ...] tensors.
        """
        networks: list[nn.Module] = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                net = build()
            given = encoders[len(networks)] if encoders else None
            if given is not None:
                load_encoders(net, given)
            networks.append(net.to(device=self.device, dtype=self.dtype))
        params, buffers = stack_module_state(networks)
        params = {name: p.detach().clone() for name, p in params.items()}
        return networks[0].to("meta"), params, dict(buffers)

    def seconds(self, action: Callable[[], Any]) -> float:
        """How long an action takes: CPU seconds of this process, or on a GPU seconds until its work is done."""
        if self.device == "cpu":
            began = time.process_time()
            action()
            return time.process_time() - began
        torch.cuda.synchronize(self.device)
        began = time.perf_counter()
        action()
        torch.cuda.synchronize(self.device)
        return time.perf_counter() - began

    def each(self, function: Callable, in_dims: InDims = 0, rare: bool = False) -> Callable:
        """Turns a function of one trial into one of K: every argument and result gains a leading lane axis.

        The function is pure: it changes none of its arguments and draws no random numbers. Call `each` once
        and keep what it returns: in the mode "compiled" every call of `each` compiles anew.

        Args:
            function: of trees of tensors; returns a tree of tensors.
            in_dims: 0 for arguments with a lane axis, None for those all lanes share (one entry an argument).
            rare: called too seldom to be worth compiling (evaluation).
        """
        if self.mode == "loop":
            return _one_after_another(function, in_dims)
        batched = torch.vmap(function, in_dims=in_dims)
        if self.mode == "compiled" and not rare:
            return Compiled(batched)
        return batched

    def scan(self, function: Callable, in_dims: InDims = 0) -> Callable:
        """As `each`, for a function that is applied again and again to its own result.

        Compiled lanes then pay once for taking their trees of tensors apart, and a single lane of "loop" once for being
        taken out, not at every call.

        Args:
            function: (carry, x, ...) to (carry, y), carry a tree of the same names, shapes and types before and after.
            in_dims: as of `each`.

        Returns:
            A function (carry, [x, ...], ...) to (the last carry, [y, ...]).
        """
        step = self.each(function, in_dims)
        if self.mode == "loop":
            return partial(_scanned_alone, function, step, in_dims)
        return step.scan if isinstance(step, Compiled) else partial(scanned, step)


def call(
    net: nn.Module,
    params: Tree,
    buffers: Tree,
    *inputs: Any,
    noise: Tensor | None = None,
    training: bool | None = None,
) -> tuple[Any, Tree]:
    """Calls one network functionally: (output, new buffers).

    Layers that change their state (batch norm, spectral norm) assign new tensors to their buffers; these are what is
    returned, and the network itself keeps nothing.

    Args:
        net: the skeleton that `Execution.stack` gave.
        params: of one trial.
        buffers: of one trial.
        inputs: of the network.
        noise: int64, 0-dim: the key of this trial and step from which dropout draws (`nets.noise`).
        training: whether layers behave as in training; None: exactly if there is noise.
    """
    training = noise is not None if training is None else training
    if net.training != training:
        net.train(training)
    weights = {**params, **buffers}
    with noise_from(noise):
        output = functional_call(net, weights, inputs)
    return output, {name: weights[name] for name in buffers}


def gradients(function: Callable) -> Callable:
    """As `grad_and_value(function, has_aux=True)`, for a function that takes no gradient itself.

    Outside of vmap and compilation it is torch's autograd: layers then run torch's fused kernels (`nets.attend`), and
    one lane is as fast as an ordinary loop.
    """

    def found(params: Tree, *args: Any) -> Any:
        if transformed(*params.values()):
            return grad_and_value(function, has_aux=True)(params, *args)
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        with torch.enable_grad():
            value, aux = function(leaves, *args)
        grads = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
        detached = pytree.tree_map(lambda t: t.detach(), (value, aux))
        return dict(zip(leaves, grads, strict=True)), detached

    return found


def keep(alive: Tensor, new: Tree, old: Tree) -> Tree:
    """`new` where a lane is alive and `old` where it has ended; NaN in `new` does not reach an ended lane.

    Args:
        alive: bool [K] (or a 0-dim bool inside a function of one trial).
        new: a tree of [K, ...] tensors (or of one trial's tensors).
        old: the same tree before.
    """

    if alive.dim() == 0 and alive.device.type == "cpu" and not transformed(alive):
        return new if alive else old  # one lane after another: nothing to be mixed

    def one(n: Tensor, o: Tensor) -> Tensor:
        return torch.where(alive.reshape(alive.shape + (1,) * (n.dim() - alive.dim())), n, o)

    return pytree.tree_map(one, new, old)


def module_of(build: Callable[[], nn.Module], params: Tree, buffers: Tree, lane: int) -> nn.Module:
    """One ordinary network on the CPU with a lane's weights."""
    weights = {name: t[lane].detach().cpu() for name, t in {**params, **buffers}.items()}
    with torch.random.fork_rng(devices=[]):  # initialising must not move the caller's generator
        net = build()
    net.load_state_dict(weights)
    return net


def scanned(step: Callable, carry: Tree, xs: Iterable[Tree], *rest: Any) -> tuple[Tree, list[Tree]]:
    """(last carry, all y) of `carry, y = step(carry, x, *rest)` for every x."""
    ys = []
    for x in xs:
        carry, y = step(carry, x, *rest)
        ys.append(y)
    return carry, ys


def _scanned_alone(
    function: Callable, step: Callable, in_dims: InDims, carry: Tree, xs: Iterable[Tree], *rest: Any
) -> tuple[Tree, list[Tree]]:
    """As `scanned`; of one lane by `function` itself, with one view of it for all steps."""
    dims = in_dims if isinstance(in_dims, tuple) else (in_dims,) * (2 + len(rest))
    if dims[0] is None or _lanes((carry,)) != 1:
        return scanned(step, carry, xs, *rest)
    fixed = [a if d is None else _row(a, 0) for a, d in zip(rest, dims[2:], strict=True)]
    rows = (x if dims[1] is None else _row(x, 0) for x in xs)
    return _mapped(lambda t: t.unsqueeze(0), scanned(function, _row(carry, 0), rows, *fixed))


def _mapped(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """`pytree.tree_map`, in half its time for what networks' trees are made of."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {name: _mapped(function, part) for name, part in tree.items()}
    if type(tree) in (tuple, list):
        return type(tree)(_mapped(function, part) for part in tree)
    return pytree.tree_map(function, tree)


def _row(tree: Tree, k: int) -> Tree:
    return _mapped(lambda t: t.select(0, k), tree)


def _lanes(trees: Sequence[Tree]) -> int:
    """Length of the lane axis of the first tensor in these trees, each of which may be empty; 0 if all are."""
    return next((leaf.shape[0] for tree in trees for leaf in pytree.tree_leaves(tree)), 0)


def _one_after_another(function: Callable, in_dims: InDims) -> Callable:
    def looped(*args: Any) -> Any:
        dims = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
        pairs = list(zip(args, dims, strict=True))
        count = _lanes([a for a, d in pairs if d is not None])
        if count == 0:
            raise ValueError("no tensor among the arguments has a lane axis, so nothing says how many lanes there are")
        rows = [function(*(a if d is None else _row(a, k) for a, d in pairs)) for k in range(count)]
        if count == 1:
            return _mapped(lambda t: t.unsqueeze(0), rows[0])  # as stacking, without a copy
        return pytree.tree_map(lambda *ts: torch.stack(ts), *rows)

    return looped


# How to execute: chosen once per cohort


@dataclass(frozen=True)
class Work:
    """What a learner expects a cohort to cost on one CPU: the input of `choose_mode`.

    Attributes:
        eager_seconds: of the whole cohort, all its lanes, vmapped eagerly.
        compile_seconds: to compile the learner's functions with an empty cache.
        speedup: compiled over eager.
        loop_on_cpu: True for large convolutions, for which lanes and compiling gain nothing that is known on a CPU.
        loop_seconds: of the whole cohort, one lane after another, where that was measured.
        compiled_seconds: of the whole cohort, compiled, where that was measured; `speedup` then says nothing.
    """

    eager_seconds: float
    compile_seconds: float = 60.0
    speedup: float = 3.0
    loop_on_cpu: bool = False
    loop_seconds: float = math.inf
    compiled_seconds: float = math.inf


def choose_mode(requested: Literal["auto"] | Mode, work: Work, device: str = "cpu") -> tuple[Mode, str]:
    """How to execute a cohort, and why in one sentence.

    The rule reads no clock and no load. What was measured comes in through `work` (`harness.modes`).

    Args:
        requested: "auto", or the mode that the experiment file asks for.
        work: the learner's own estimate.
        device: "cpu", "cuda" or "cuda:INDEX".
    """
    if requested == "compiled" and (why := why_not_compiled()):
        return "eager", f"{why}: lanes run eagerly instead of compiled"
    if requested != "auto":
        return requested, f"the experiment file asks for {requested}"
    if work.loop_on_cpu and device == "cpu" and math.isinf(work.loop_seconds):
        return "loop", "convolutions on a CPU gain nothing from lanes"
    unhelped = work.loop_on_cpu and device == "cpu"
    compiled = work.eager_seconds / (1.0 if unhelped else work.speedup)
    worthwhile = work.eager_seconds - compiled >= 2 * work.compile_seconds
    if math.isfinite(work.compiled_seconds):
        compiled = work.compiled_seconds + work.compile_seconds
        worthwhile = compiled < work.eager_seconds
    saved = max(0.0, work.eager_seconds - compiled)
    if work.loop_seconds < (compiled if worthwhile else work.eager_seconds):
        return "loop", f"one after another takes {work.loop_seconds:.0f} s, side by side {work.eager_seconds:.0f} s"
    if unhelped and not worthwhile:
        return "eager", f"side by side takes {work.eager_seconds:.0f} s, one after another {work.loop_seconds:.0f} s"
    if not worthwhile:
        return "eager", f"compiling would take {work.compile_seconds:.0f} s and save {saved:.0f} s"
    if why := why_not_compiled():
        return "eager", f"{why}: compiling would save {saved:.0f} s"
    return "compiled", f"compiling takes {work.compile_seconds:.0f} s and saves {saved:.0f} s"


def why_not_compiled() -> str:
    """Why lanes cannot be compiled here; "" where they can."""
    if not has_compiler():
        return "no C++ compiler with Python headers on this machine"
    folder, why = cache_folder()
    return "" if folder else why


def resolve_device(requested: str) -> str:
    """The device that "auto", "cpu", "cuda" or "cuda:INDEX" stands for here.

    Raises:
        ValueError: a CUDA device was asked for and there is none.
    """
    if requested == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if requested.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"resources.device is {requested}, but torch sees no CUDA device here; use auto or cpu")
    return requested
