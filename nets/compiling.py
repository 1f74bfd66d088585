"""Compiling functions of tensors with TorchInductor; only `nets.lanes` uses it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nets.compile_cache import NAMED, program_key, recall, remember, use_compile_cache

__all__ = ["Compiled", "has_compiler", "reset_compiler"]

Tree = Any  # a tensor, or nested dicts / tuples of tensors

NARROW = 16  # columns: the vector width for which products of matrices are made


class Compiled:
    """A vmapped function, compiled by TorchInductor once for every set of argument shapes.

    The function is traced to one graph of tensor operations, through vmap and grad, and handed to
    TorchInductor without Dynamo: functions of one trial are pure and have fixed shapes, so guards have
    nothing to guard. That saves most of the time to compile (Dynamo's walk through vmap) and about 0.5 ms of
    guards a call. Programs are kept on the disk by `nets.compile_cache`.
    """

    def __init__(self, batched: Callable) -> None:
        self.batched = batched
        self.programs: dict[tuple, tuple[Callable, Tree]] = {}

    def __call__(self, *args: Any) -> Any:
        flat = _leaves(args)
        program, template = self._program(args, flat)
        return _unflatten(template, iter(program(flat)))

    def scan(self, carry: Tree, xs: Iterable[Tree], *rest: Any) -> tuple[Tree, list[Tree]]:
        """(last carry, all y) of `carry, y = self(carry, x, *rest)` for every x; trees are taken apart once."""
        kept, shared, shapes, ys = _leaves(carry), _leaves(rest), None, []
        for x in xs:
            leaves = _leaves(x)
            flat = kept + leaves + shared
            if shapes != [t.shape for t in leaves]:
                shapes = [t.shape for t in leaves]
                program, template = self._program((carry, x, *rest), flat)
            found = program(flat)
            kept = [t if t.is_contiguous() else t.contiguous() for t in found[: len(kept)]]
            ys.append(_unflatten(template[1], iter(found[len(kept) :])))
        return _unflatten(carry, iter(kept)), ys

    def _program(self, args: Any, flat: list[Tensor]) -> tuple[Callable, Tree]:
        """The program for arguments of these shapes, and the structure of its result."""
        key = tuple((t.shape, t.dtype) for t in flat)
        found = self.programs.get(key)
        if found is None:
            found = self.programs[key] = _compile(self.batched, args, flat)
        return found


def _compile(batched: Callable, args: Any, flat: list[Tensor]) -> tuple[Callable, Tree]:
    """(program from a list of tensors to a list of tensors, the result's structure).

    `torch.compile` is built from the same parts; those used here have no public names, hence the pinned
    torch.
    """
    why = use_compile_cache()  # before torch names a folder of its own
    if not os.environ.get(NAMED):
        raise PermissionError(why)
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._inductor.decomposition import select_decomp_table
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    template: list[Tree] = []

    def listed(*tensors: Tensor) -> list[Tensor]:
        result = batched(*_unflatten(args, iter(tensors)))
        template[:] = [result]
        out: list[Tensor] = []
        _flatten(result, out)
        return out

    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    with mode:  # one for each argument: `from_tensor` would make one tensor given twice the same input for good
        fake = [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device) for t in flat]
    table = dict(select_decomp_table())
    table[torch.ops.aten.bmm.default] = partial(_product, otherwise=table[torch.ops.aten.bmm.default])
    with mode, torch.no_grad():
        functional = torch.func.functionalize(listed, remove="mutations")
        graph = make_fx(functional, decomposition_table=table)(*fake)
    settings = {"size_asserts": False, "alignment_asserts": False}  # the layout is checked by Compiled
    settings["fx_graph_cache"] = False  # it is made of pickles
    if knows_vector_instructions():
        settings["cpp.vec_isa_ok"] = True
        _ask_for_plain_vector_instructions()
    on_cpu = all(t.device.type == "cpu" for t in flat)
    settings["cpp_wrapper"] = on_cpu  # calls of kernels and products in C++: a rollout's are many and small
    with torch.no_grad(), tracing(TracingContext(mode)), config.patch(settings):
        program = _generate(graph, fake, {"is_inference": True, "cpp_wrapper": on_cpu})
    if flat and all(t.is_cuda for t in flat):
        return Captured(program, flat), template[0]
    return program, template[0]


def _generate(graph: Any, fake: list[Tensor], options: dict[str, Any]) -> Callable:
    """The program of a graph: the kept one, or a new one, which is kept."""
    from torch._inductor.compile_fx import compile_fx_inner

    key = program_key(graph, fake, options) if options["cpp_wrapper"] else ""
    if key and (kept := recall(key)):
        return kept
    program = compile_fx_inner(graph, fake, **options)
    if key:
        remember(key, program)
    return program


def _product(a: Tensor, b: Tensor, otherwise: Callable) -> Any:
    """Batched products with a narrow result, transposed: `torch.bmm` takes twice to nine times as long for a result of
    few columns as for one of few rows (measured with MKL: the gradient of a layer with 4 inputs, a head of 2 outputs).
    """
    rows, columns = a.shape[-2], b.shape[-1]
    if a.device.type == "cpu" and columns < NARROW and rows >= 2 * NARROW:
        return torch.bmm(b.mT, a.mT).mT
    return otherwise(a, b)


class Captured:
    """A compiled program on a GPU as one CUDA graph: a call copies its arguments in, replays, and copies the results.

    Launching a program's many small kernels one by one takes longer than running them; a replay is one launch.
    """

    def __init__(self, program: Callable, flat: list[Tensor]) -> None:
        self.inputs = [t.clone() for t in flat]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # a capture must not be the first call of any kernel
            for _ in range(3):
                program(list(self.inputs))
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = program(list(self.inputs))

    def __call__(self, flat: list[Tensor]) -> list[Tensor]:
        """The program's results; they are the caller's own."""
        for kept, given in zip(self.inputs, flat, strict=True):
            kept.copy_(given)
        self.graph.replay()
        return [t.clone() for t in self.outputs]


def _leaves(tree: Tree) -> list[Tensor]:
    """The tensors of a tree, with the memory layout that generated code assumes."""
    flat: list[Tensor] = []
    _flatten(tree, flat)
    return [t if t.is_contiguous() else t.contiguous() for t in flat]


def _flatten(tree: Tree, out: list[Tensor]) -> None:
    """Appends the tensors of nested dicts (by key) and tuples in order; pytree takes ten times as long."""
    if isinstance(tree, Tensor):
        out.append(tree)
    elif isinstance(tree, dict):
        for name in sorted(tree):
            _flatten(tree[name], out)
    else:
        for branch in tree:
            _flatten(branch, out)


def _unflatten(template: Tree, tensors: Iterator[Tensor]) -> Tree:
    """The same structure with the tensors of an iterator in the place of its own."""
    if isinstance(template, Tensor):
        return next(tensors)
    if isinstance(template, dict):
        found = {name: _unflatten(template[name], tensors) for name in sorted(template)}
        return {name: found[name] for name in template}
    branches = (_unflatten(branch, tensors) for branch in template)
    if hasattr(template, "_fields"):  # a named tuple
        return type(template)(*branches)
    return type(template)(branches)


@lru_cache(maxsize=1)
def has_compiler() -> bool:
    """Whether TorchInductor can build C++ here: a compiler and Python's headers."""
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    named = os.environ.get("CXX")
    return header.exists() and any(shutil.which(c) for c in ((named,) if named else ("g++", "clang++")))


@lru_cache(maxsize=1)
def _ask_for_plain_vector_instructions() -> None:
    """Leaves the instructions for 8-bit and tile products alone.

    TorchInductor tries them out with test programs: 9 s of compiling, and a second with a warm cache. Lanes are
    computed in float32 and bfloat16, which take none of them.
    """
    from torch._inductor import cpu_vec_isa

    special = (cpu_vec_isa.VecAVX512VNNI, cpu_vec_isa.VecAMX)
    known = cpu_vec_isa.supported_vec_isa_list
    known[:] = [isa for isa in known if not isinstance(isa, special)]


@lru_cache(maxsize=1)
def knows_vector_instructions() -> bool:
    """Whether the C++ compiler is a GCC of 2022 or later: it knows all the instructions that may be asked for."""
    compiler = os.environ.get("CXX") or shutil.which("g++")
    if not compiler:
        return False
    done = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=False, timeout=20)
    major = done.stdout.strip().partition(".")[0]
    return done.returncode == 0 and major.isdigit() and int(major) >= 12


def reset_compiler() -> None:
    """Forgets compiled code; called between the cohorts of one worker (the ninth shape would stop Dynamo)."""
    if "torch._dynamo" in sys.modules:  # importing it takes a second, and there would be nothing to forget
        torch._dynamo.reset()
