"""The process that runs wandb: `python -m harness.tracking.feeder MODE ROOT`.

MODE is "offline" or "online" (fed by a driver: one JSON object a line on standard input), "sync" (deliver
what is left: one JSON object a run on standard output), or "login" (is there one?). Standard output carries
the protocol alone; whatever wandb prints goes to runs/wandb/feeder.log.

Messages: open {run: RunState}, commit {run: id, upto}, close {run: id, upto, final}, finish. Without
"finish", the end of standard input means that the driver died: this process then ends too.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.files import make_folder

__all__ = ["main"]

ORPHAN_SECONDS = 4.0
# What another W&B tool may have left in the environment; it would redirect or rename our runs.
FOREIGN = (
    "WANDB_CONFIG_PATHS",
    "WANDB_DIR",
    "WANDB_JOB_TYPE",
    "WANDB_LAUNCH",
    "WANDB_LAUNCH_CONFIG_PATH",
    "WANDB_MODE",
    "WANDB_NAME",
    "WANDB_RESUME",
    "WANDB_RUN_GROUP",
    "WANDB_RUN_ID",
    "WANDB_SERVICE",
    "WANDB_SWEEP_ID",
    "WANDB_SWEEP_PARAM_PATH",
)

PLACES = (  # wandb's variable, the folder of the user's that it stands for, the one in wandb's folder of the run root
    ("WANDB_DATA_DIR", os.environ.get("XDG_DATA_HOME") or "~/.local/share", "data"),
    ("WANDB_CACHE_DIR", os.environ.get("XDG_CACHE_HOME") or "~/.cache", "cache"),
)


def _read_messages(messages: queue.Queue[dict[str, Any]], finishing: threading.Event) -> None:
    """Move standard input into the queue, so that the driver's pipe never fills."""
    for line in sys.stdin:
        if not line.endswith("\n"):
            break  # the driver died while it wrote
        message = json.loads(line)
        if message["op"] == "finish":
            finishing.set()
        messages.put(message)
    messages.put({"op": "end"})
    if not finishing.is_set():
        time.sleep(ORPHAN_SECONDS)
        os._exit(3)


def _watch_parent() -> None:
    """End soon after the driver, also where a process it forked keeps the pipe to us open."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1.0)
    time.sleep(ORPHAN_SECONDS)
    os._exit(3)


def _quiet(log_path: Path) -> Any:
    """Send standard output and error to the feeder's log; return what was standard output."""
    protocol = os.fdopen(os.dup(1), "w", buffering=1)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    return protocol


def _clean_environment() -> None:
    """Keep the login, drop what would redirect our runs, and switch off wandb's own reports home."""
    for name in FOREIGN:
        os.environ.pop(name, None)
    os.environ.update(WANDB_SILENT="true", WANDB_CONSOLE="off")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")


def _make_places(root: Path) -> None:
    """wandb copies what it sends into folders of the user's; where they cannot be written, into the run root's."""
    for name, usual, own in PLACES:
        place = os.environ.get(name) or os.path.join(os.path.expanduser(usual), "wandb")
        try:
            os.makedirs(place, exist_ok=True)
            if os.access(place, os.W_OK | os.X_OK):
                continue
        except OSError:
            pass
        os.environ[name] = str((root / "wandb" / own).resolve())


def main(argv: list[str]) -> int:
    """Run the feeder; see the module's text."""
    if argv == ["login"]:
        return _login()
    mode, root = argv[0], Path(argv[1])
    make_folder(root / "wandb")
    protocol = _quiet(root / "wandb" / "feeder.log")
    _clean_environment()
    _make_places(root)
    os.nice(10)
    answers = _sync(root, float(argv[2])) if mode == "sync" else [_feed(mode, root)]
    for answer in answers:
        print(json.dumps(answer), file=protocol)
    protocol.flush()
    os._exit(0)  # wandb's own exit hook waits for the network; what matters was finished above


def _login() -> int:
    protocol = _quiet(Path(os.devnull))
    from harness.tracking.runs import log_in

    print(json.dumps({"login": log_in()}), file=protocol, flush=True)
    return 0


def _sync(root: Path, timeout: float) -> Iterator[dict[str, Any]]:
    from harness.tracking.deliver import deliver

    return deliver(root, timeout)


def _feed(mode: str, root: Path) -> dict[str, Any]:
    # The pipe is read before wandb is imported, which takes most of a second.
    messages: queue.Queue[dict[str, Any]] = queue.Queue()
    finishing = threading.Event()
    threading.Thread(target=_read_messages, args=(messages, finishing), daemon=True).start()
    threading.Thread(target=_watch_parent, daemon=True).start()
    from harness.tracking.feeding import OfflineFeeding, OnlineFeeding
    from harness.tracking.state import hold

    with hold(root, alone=False, give_up=finishing.is_set) as free:
        if not free:
            raise SystemExit("`seedbed sync` was at work on this run root all the time: nothing was fed")
        return (OnlineFeeding if mode == "online" else OfflineFeeding)(root, messages).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
