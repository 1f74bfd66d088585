"""A worker process: `python -m agents.envs.serving SOCKET LIFELINE [SHARED]`, all three file descriptors.

One line of JSON comes for every command and one goes for every answer; observations and actions stand in shared
memory. Nothing of torch is imported, and the process ends when the other end of the lifeline does.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import sys
import threading
from functools import partial
from typing import Any

__all__: list[str] = []


def main(argv: list[str]) -> None:
    """Serves until it is told to close."""
    lifeline = int(argv[1])
    threading.Thread(target=lambda: (os.read(lifeline, 1), os._exit(0)), daemon=True).start()
    stream = socket.socket(fileno=int(argv[0])).makefile("rwb")
    first = json.loads(stream.readline())
    if first["do"] == "describe":
        _answer(stream, _described(first))
        return
    from agents.envs.making import make_gym
    from agents.envs.stepping import Layout, Slot, arrays_in

    layout = Layout.from_json(first["layout"])
    arrays = arrays_in(mmap.mmap(int(argv[2]), 0), layout)
    of = (first["env"], first["options"], first["wrappers"])
    slots = {
        row: Slot(partial(make_gym, *of, evaluating=evaluating), arrays, row, autoreset=not evaluating, watched=True)
        for row, evaluating in first["rows"]
    }
    while line := stream.readline():
        command = json.loads(line)
        if command["do"] == "close":
            for slot in slots.values():
                slot.close()
            return
        wrong = {}
        for row in command["rows"]:
            what = slots[row].run(command["do"])
            if what is not None:
                wrong[row] = what
        _answer(stream, {"wrong": wrong})


def _answer(stream: Any, answer: dict[str, Any]) -> None:
    stream.write(json.dumps(answer).encode() + b"\n")
    stream.flush()


def _described(first: dict[str, Any]) -> dict[str, Any]:
    from agents.envs.describing import check, describe
    from agents.envs.making import is_trusted

    try:
        found = describe(first["env"], first["options"], first["wrappers"])
        if not is_trusted(first["env"]):
            check(first["env"], first["options"])
        return found
    except ValueError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    main(sys.argv[1:])
