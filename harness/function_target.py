"""A user's training function by its name, "package.module:name", or one sentence that says where its code is wrong."""

from __future__ import annotations

import importlib
import inspect
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.spec_errors import nearest

__all__ = ["load_target"]


def load_target(call: str) -> Callable[..., Any]:
    """Imports a training function.

    Args:
        call: "package.module:name".

    Raises:
        ValueError: the module is missing, raises or exits when it is imported, or what it calls by that name is not a
            function of one argument; names the file and line of the user's code.
    """
    module, _, name = call.partition(":")
    try:
        found = importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a script without `if __name__ == "__main__":`
        raise ValueError(_import_failed(module, error)) from None
    where = getattr(found, "__file__", None) or f"the folder of `{module}`"
    if not hasattr(found, name):
        known = [n for n, v in vars(found).items() if inspect.isfunction(v) and v.__module__ == found.__name__]
        raise ValueError(f"{where}: {nearest(name, known or ['no function at all'], 'function')}")
    function = getattr(found, name)
    problem = _problem(function)
    if problem:
        raise ValueError(f"{_place(function, where)}: `{name}` {problem}; write def {name}(run): ...")
    return function


def _problem(function: Any) -> str:
    """Why something cannot be called with a run's handle and train; "" if it can."""
    if not callable(function):
        return f"is a {type(function).__name__}, not a function"
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_kind(function) for is_kind in kinds):
        return "is a coroutine or a generator, which a call does not run"
    try:
        inspect.signature(function).bind(object())
    except TypeError as error:
        return f"does not take the one argument that it is called with ({error})"
    except ValueError:  # a builtin tells nothing
        return ""
    return ""


def _place(function: Any, where: str) -> str:
    try:
        return f"{inspect.getsourcefile(function) or where}, line {inspect.getsourcelines(function)[1]}"
    except (OSError, TypeError):
        return where


def _is_own(file: str) -> bool:
    """Whether a line of a traceback is the user's: not Python's, a package's or this module's."""
    path = Path(file)
    outside = "site-packages" in path.parts or path.is_relative_to(sysconfig.get_path("stdlib"))
    return not (file.startswith("<") or outside or path == Path(__file__))


def _import_failed(module: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        return f"there is no module `{error.name}` beside the experiment file, in the working folder or installed"
    what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(": ")
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {what}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_own(f.filename)]
    where = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else f"`{module}`"
    if isinstance(error, SystemExit):
        return f'{where}: the module exits when it is imported; put what runs it under `if __name__ == "__main__":`'
    return f"{where}: {what}, while `{module}` was imported"
