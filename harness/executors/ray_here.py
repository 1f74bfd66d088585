"""Ray on this machine: started by us, on the loopback interface, without what no run needs; ended without a rest.

Uses four private names of Ray's, where its public interface offers no way (see docs/security.md).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private import node, ray_constants, worker

from harness.executors.access import private_token

__all__ = ["QUIET", "RayHere", "places", "shut_down"]

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "seedbed"}
VITAL = ("gcs_server", "raylet")  # without which Ray does nothing
LOOK_SECONDS = 5.0  # between two looks for new processes
END_SECONDS = 2.0  # for Ray's processes to end by themselves
SHUTDOWN_SECONDS = 20.0  # for Ray's client to let go of a cluster that is gone


class RayHere:
    """One Ray of our own on this machine."""

    def __init__(self) -> None:
        self._roots: dict[str, psutil.Process] = {}
        self._family: set[psutil.Process] = set()
        self._folder = _folder()
        self._looked = 0.0

    def start(self) -> None:
        """Starts it; returns when it takes work."""
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        private_token()
        self._sweep()
        self._init()
        if ray.cluster_resources().get("CPU", 0.0) < 1:  # Ray counts none in a container with half a CPU
            self.stop()
            self._init(num_cpus=1)

    def _init(self, **more: Any) -> None:
        where: dict[str, Any] = {} if self._folder is None else {"_temp_dir": str(self._folder)}
        config = {"enable_metrics_collection": False}  # its port would answer without a token
        with _on_loopback():
            ray.init(address="local", include_dashboard=False, _system_config=config, **where, **QUIET, **more)
        started = _joined().all_processes
        self._roots = {name: psutil.Process(infos[0].process.pid) for name, infos in started.items()}
        self.look()

    def look(self) -> None:
        """Takes note of the processes there are: when one has died, its children can no longer be found."""
        self._looked = time.monotonic()
        for root in self._roots.values():
            with contextlib.suppress(psutil.Error):
                self._family.update([root, *root.children(recursive=True)])

    def dead(self) -> str:
        """Which of Ray's own processes has died; nothing as long as all run."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self.look()
        return next((name for name in VITAL if name in self._roots and not _runs(self._roots[name])), "")

    def stop(self) -> None:
        """Ends Ray, all its processes, and removes its session's folder."""
        self.look()
        if self.dead():
            self._kill()  # Ray would wait for them
        shut_down()
        self._kill(END_SECONDS)
        self._roots, self._family = {}, set()
        self._sweep()

    def _kill(self, patience: float = 0.0) -> None:
        _, left = psutil.wait_procs(list(self._family), timeout=patience)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=END_SECONDS)

    def _sweep(self) -> None:
        """Removes the folders of sessions whose driver is gone; Ray keeps them for ever."""
        for session in self._folder.glob("session_*_*") if self._folder else ():
            pid = re.search(r"_(\d+)$", session.name)
            if session.is_symlink() or pid is None:
                continue
            own = int(pid[1]) == os.getpid()
            if (own and not self._roots) or not psutil.pid_exists(int(pid[1])):
                shutil.rmtree(session, ignore_errors=True)


def places() -> list[str]:
    """Where the cluster that was joined must answer: its head, and the node on this machine."""
    return [_joined().gcs_address, _joined().raylet_socket_name]


def _joined() -> Any:
    """What Ray's client knows of the node that it uses."""
    return worker._global_node


def shut_down() -> bool:
    """Lets go of Ray; false where its client hangs, as it may when the cluster is gone."""
    thread = threading.Thread(target=ray.shutdown, daemon=True)
    thread.start()
    thread.join(SHUTDOWN_SECONDS)
    return not thread.is_alive()


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _folder() -> Path | None:
    """The folder for sessions, in a short path (sockets lie in it); None leaves the place to Ray.

    Ray opens its folder to all users whenever it starts, so it lies in one that is the user's own.
    """
    private = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / f"seedbed-{os.getuid()}"
    folder = private / "ray"
    if len(str(folder)) > 40:
        return None
    try:
        for place in (private, folder):
            place.mkdir(mode=0o700, exist_ok=True)
            if place.is_symlink() or place.stat().st_uid != os.getuid():
                return None
            place.chmod(0o700)
    except OSError:
        return None
    return folder


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """While Ray starts: its address is 127.0.0.1, as on other systems than Linux; no autoscaler, no dashboard."""
    starter: Any = node.Node
    saved = ray_constants.ENABLE_RAY_CLUSTER, starter.start_monitor, starter.start_api_server
    ray_constants.ENABLE_RAY_CLUSTER = False
    starter.start_monitor = starter.start_api_server = _nothing
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER, starter.start_monitor, starter.start_api_server = saved


def _nothing(*_: Any, **__: Any) -> None:
    """Starts nothing."""


worker.print_to_stdstream = _nothing  # even without log_to_driver Ray prints 20 lines of the log of a node that died
