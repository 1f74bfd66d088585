"""Runs commands under an audit hook that hears what is unpickled: `python -m tests.pickle_watch JSON`.

JSON is a list of steps, each {"argv": of `seedbed`} or {"argv": ..., "kill_after": number of checkpoints}. Every step
is a fork of this process, which has imported everything, and ends by `os._exit`; one line of JSON a step is printed.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import sys
from typing import Any

HEARD: dict[str, int] = {}


def hear(event: str, args: tuple[Any, ...]) -> None:
    """Counts what an unpickler looks up; a pickle of plain numbers looks up nothing, hence `wrap`."""
    if event == "pickle.find_class":
        name = f"{args[0]}.{args[1]}"
        HEARD[name] = HEARD.get(name, 0) + 1


def wrap(name: str) -> None:
    """Counts the calls of one of pickle's functions."""
    real = getattr(pickle, name)

    def counted(*args: Any, **options: Any) -> Any:
        HEARD[name] = HEARD.get(name, 0) + 1
        return real(*args, **options)

    setattr(pickle, name, counted)


def kill_after(count: int) -> None:
    """Ends this process, as a kill does, when so many checkpoints are written."""
    from harness import checkpoint

    real, written = checkpoint.save, [0]

    def save(*args: Any, **options: Any) -> Any:
        path = real(*args, **options)
        written[0] += 1
        if written[0] == count:
            leave(9)
        return path

    checkpoint.save = save


def leave(status: int) -> None:
    """Prints what was heard, and ends at once."""
    print(json.dumps({"status": status, "heard": HEARD}), flush=True)
    os._exit(status)


def run(argv: list[str], kill: int) -> None:
    """Runs one command in this process."""
    import flows.cli

    if kill:
        kill_after(kill)
    sys.argv = ["seedbed", *argv]
    status: Any = 0
    try:
        flows.cli.main()
    except SystemExit as error:
        status = error.code or 0
    leave(int(status))


def main() -> None:
    """See the module's text."""
    sys.addaudithook(hear)
    wrap("load")
    wrap("loads")
    pickle.loads(pickle.dumps(os.getcwd))  # noqa: S301 - a deaf hook would find nothing below
    assert HEARD == {"loads": 1, "posix.getcwd": 1}, HEARD
    HEARD.clear()
    import torch

    for name in ("flows.steps", "harness.driver", "harness.report.page"):
        importlib.import_module(name)

    torch.set_num_threads(1)
    for step in json.loads(sys.argv[1]):
        child = os.fork()
        if not child:
            run(step["argv"], step.get("kill_after", 0))
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
