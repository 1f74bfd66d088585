"""The embedded Prefect server: a process of ours, on 127.0.0.1, that ends with us.

Nothing here imports prefect: the server starts while everything else is still being imported.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

from harness.files import make_folder, room_for

__all__ = ["PrefectServer", "api_url_of_user", "client_settings", "quiet_environment"]

START_SECONDS = 120.0
STOP_SECONDS = 6.0
HANG_SECONDS = 12.0  # without an answer, until the server counts as hanging; its clients give up after 10
ANSWER_SECONDS = 4.0
USER = "seedbed"


def api_url_of_user() -> str | None:
    """The Prefect API that the user chose: PREFECT_API_URL, or else the active profile of `prefect config`."""
    url = os.environ.get("PREFECT_API_URL")
    if url:
        return url
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    try:
        profiles = tomllib.loads((home / "profiles.toml").read_text())
        active = os.environ.get("PREFECT_PROFILE", profiles.get("active", ""))
        chosen = profiles["profiles"][active].get("PREFECT_API_URL")
    except (OSError, KeyError, AttributeError, tomllib.TOMLDecodeError):
        return None
    return chosen if isinstance(chosen, str) else None


def quiet_environment(*, ours: bool = False) -> dict[str, str]:
    """What keeps Prefect from calling home and from waiting for minutes; a user's own settings win.

    Args:
        ours: the server is on this machine and ends with us: where it does not answer, it will not do so later.
    """
    wanted = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_CLIENT_MAX_RETRIES": "0"
        if ours
        else "2",  # a dead server is noticed in seconds; five retries are minutes
        "PREFECT_API_REQUEST_TIMEOUT": "10",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",  # our logs are files
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        "PREFECT_CLI_COLORS": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # never a second server behind our back
    }
    return {key: value for key, value in wanted.items() if key not in os.environ}


class PrefectServer:
    """Starts and stops one server.

    Args:
        home: its PREFECT_HOME: the database lives there. A PREFECT_HOME of the user's wins.
        log: file that takes all it prints.
        schedules: also run the services that start scheduled flows (`seedbed serve`).
    """

    def __init__(self, home: Path, log: Path, *, schedules: bool = False) -> None:
        self.home = Path(os.environ.get("PREFECT_HOME", home)).expanduser().resolve()
        self.log = log
        self.auth = f"{USER}:{secrets.token_urlsafe(24)}"
        self.api_url = ""
        self._schedules = schedules
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id, None before `start` and after `stop`."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Starts the process and returns at once; `wait` tells when it answers."""
        make_folder(self.home)
        make_folder(self.log.parent)
        launcher = Path(__file__).with_name("prefect_launcher.py")
        with socket.socket() as bound, room_for(self.log), self.log.open("ab") as log:
            bound.bind(("127.0.0.1", 0))  # the server inherits the socket: no other process can take the port
            self.api_url = f"http://127.0.0.1:{bound.getsockname()[1]}/api"
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(launcher), str(bound.fileno())],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment(),
                pass_fds=(bound.fileno(),),
                start_new_session=True,  # Ctrl-C in the terminal is for us alone
            )

    def _environment(self) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if key not in _CLIENT_ONLY}
        services = {} if self._schedules else {"PREFECT__SERVER_EPHEMERAL": "1"}
        return {
            **clean,
            **quiet_environment(),
            **services,
            "PREFECT__SERVER_FINAL": "1",
            "PREFECT_HOME": str(self.home),
            "PREFECT_UI_ENABLED": "0",
            "PREFECT_SERVER_API_AUTH_STRING": self.auth,
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        }

    def wait(self, timeout: float = START_SECONDS) -> bool:
        """Waits until the server answers; False if it ended or did not answer in time."""
        end = time.monotonic() + timeout
        while time.monotonic() < end and self.alive():
            if _healthy(f"{self.api_url}/health"):
                return True
            time.sleep(0.1)
        return False

    def watch(self) -> None:
        """Kills the server when it hangs, from a thread: whoever waits for it is then told at once that it is gone."""
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        answered = time.monotonic()
        while (process := self._process) is not None and process.poll() is None:
            if _healthy(f"{self.api_url}/health", ANSWER_SECONDS):
                answered = time.monotonic()
            elif time.monotonic() - answered > HANG_SECONDS - ANSWER_SECONDS:
                process.kill()
            time.sleep(1.0)

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ends the server; does nothing where none runs."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()  # the launcher takes this as the end of its starter
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_CLIENT_ONLY = ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_PROFILE")


def client_settings(server: PrefectServer) -> dict[str, str]:
    """What a client in this process (or a child that runs a scheduled flow) needs to reach the server."""
    return {
        "PREFECT_API_URL": server.api_url,
        "PREFECT_API_AUTH_STRING": server.auth,
        "PREFECT_HOME": str(server.home),
        "PREFECT_CLIENT_MAX_RETRIES": os.environ.get("PREFECT_CLIENT_MAX_RETRIES", "0"),  # one process, one machine
    }


def _healthy(url: str, timeout: float = 2.0) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback never goes through a proxy
    try:
        with opener.open(url, timeout=timeout) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False
