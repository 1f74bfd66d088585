"""How this machine gets at a Ray cluster: the token, and whether one answers at all. Imports nothing of Ray.

Ray's own client tries for 40 s, with lines of its log, before it says that a token is missing or nobody answers; with
`RAY_AUTH_MODE=token` and no token it ends the process. So a child asks first.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.executors import ClusterError

__all__ = ["Probe", "check_cluster", "find_token", "private_token", "use_token"]

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 20.0
PROBE_SECONDS = 3.0  # between two looks at a cluster, and for one answer
GONE_SECONDS = 45.0  # without any answer; after 60 s Ray's client would end this process itself
_ASK = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1])"
WHERE_TOKENS_ARE = "set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or put it into ~/.ray/auth_token"


def find_token() -> str | None:
    """The cluster's token: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token."""
    token = os.environ.get("RAY_AUTH_TOKEN")
    if token:
        return token.strip()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def use_token() -> None:
    """Makes Ray's client send the token where there is one; a cluster without authentication does not mind it."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() not in ("", "token", "disabled"):
        return  # another way to authenticate, which the user chose
    os.environ["RAY_AUTH_MODE"] = "token" if find_token() else "disabled"  # else Ray makes a token of its own


def private_token() -> None:
    """Keeps the token of Ray on this machine to the user: file 0600, folder 0700; makes it where there is none.

    Ray would write it with the rights that the umask leaves. A token in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH is the
    user's own matter. Where the home cannot be written, a token for this run alone is put into the environment.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    path = Path("~/.ray/auth_token").expanduser()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        if find_token() is None:
            fresh = path.with_name(f".auth_token-{os.getpid()}")  # two first runs at once agree on one of the two
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
            _first_wins(fresh, path)
        path.chmod(0o600)
    except OSError:
        os.environ["RAY_AUTH_TOKEN"] = find_token() or secrets.token_hex(32)


def _first_wins(fresh: Path, path: Path) -> None:
    """Moves a file to its place unless another is there; an empty one gives way."""
    try:
        os.link(fresh, path)
        fresh.unlink()
    except FileExistsError:
        if path.stat().st_size:
            fresh.unlink()
        else:
            fresh.replace(path)


class Probe:
    """Whether a cluster still answers: its head, and this machine's node. Ray's own calls would block instead.

    Args:
        places: HOST:PORT, or the path of a socket.
        clock: seconds that only grow.
    """

    def __init__(self, places: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._places = places
        self._clock = clock
        self._looked = self._answered = clock()
        self._silent = ""

    def silent(self) -> str:
        """The place that gave no answer at the last look, or nothing; looks again every few seconds."""
        now = self._clock()
        if now - self._looked >= PROBE_SECONDS:
            self._silent = next((place for place in self._places if not _answers(place)), "")
            self._looked = now
            if not self._silent:
                self._answered = now
        return self._silent

    def gone(self) -> bool:
        """Whether it has been silent for so long that it is given up."""
        return bool(self.silent()) and self._clock() - self._answered > GONE_SECONDS


def _answers(place: str) -> bool:
    try:
        if place.startswith("/"):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PROBE_SECONDS)
                client.connect(place)
        else:
            host, _, port = place.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS).close()
    except OSError:
        return False
    return True


def check_cluster(address: str) -> None:
    """Asks whether a Ray cluster answers and takes our token.

    Args:
        address: HOST:PORT of its head; what has no port ("auto") is left to Ray.

    Raises:
        ClusterError: it does not.
    """
    if address.startswith(("http://", "https://")):
        text = f"--ray-address {address} is a dashboard's; give HOST:6379, or hand the file in by `seedbed submit`"
        raise ClusterError(text, usage=True)
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"no Ray cluster answers at {address}: {error}") from None
    silent = f"what answers at {address} is not the head of a Ray cluster, whose port is usually 6379"
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _ASK, address], capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(silent) from None
    if "AuthenticationError" in asked.stderr:
        wants = f"wants a token: {WHERE_TOKENS_ARE}" if find_token() is None else "refused the token"
        raise ClusterError(f"the Ray cluster at {address} {wants}", usage=True)
    if "RpcError" in asked.stderr:
        raise ClusterError(silent)
