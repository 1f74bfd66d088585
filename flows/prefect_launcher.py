"""The process of the embedded Prefect server: serves on a socket handed down, and ends when its starter is gone.

Run by path (`python -P prefect_launcher.py FD`), never imported. The starter holds the other end of standard input;
however the starter dies, the pipe then reads as ended. That works alike on Linux and macOS and needs no pid.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

GRACE_SECONDS = 4.0


def _end_with_starter(server: object) -> None:
    os.read(0, 1)
    server.should_exit = True  # type: ignore[attr-defined]
    time.sleep(GRACE_SECONDS)
    os._exit(0)


def main() -> None:
    """Serves Prefect's API on the bound socket whose descriptor is the first argument."""
    bound = socket.socket(fileno=int(sys.argv[1]))
    import uvicorn  # slow, like all below: after the socket, so that a bad descriptor is told at once

    config = uvicorn.Config(
        "prefect.server.api.server:create_app",
        factory=True,
        lifespan="on",
        log_level="error",
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    threading.Thread(target=_end_with_starter, args=(server,), daemon=True).start()
    server.run(sockets=[bound])


if __name__ == "__main__":
    main()
