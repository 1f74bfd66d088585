"""How this machine gets at a Ray cluster: the token, and whether one answers at all. Imports nothing of Ray.

Ray's own client tries for 40 s, with lines of its log, before it says that a token is missing or nobody answers; with
`RAY_AUTH_MODE=token` and no token it ends the process. So a child asks first.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from harness.executors import ClusterError

__all__ = ["check_cluster", "find_token", "use_token"]

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 20.0
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
