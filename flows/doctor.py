"""`seedbed doctor`: what is installed, reachable and authorised, and whether another package shadows one of ours."""

from __future__ import annotations

import importlib.util
import json
import netrc
import os
import platform
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.prefect_server import api_url_of_user
from harness.executors.access import find_token

__all__ = ["Check", "examine", "shadowed"]

DISTRIBUTIONS = ("torch", "ray", "prefect", "wandb", "gymnasium", "stable-baselines3", "pydantic", "sqlalchemy")
OUR_PACKAGES = ("flows", "agents", "generative", "supervised", "harness", "nets")
LEAST_DISK = 2 * 2**30
SECONDS = 3.0


@dataclass(frozen=True)
class Check:
    """One finding: ok, worth a look ("note"), or a fault that stops runs ("fault")."""

    name: str
    state: Literal["ok", "note", "fault"]
    text: str


def examine(root: Path, ray_address: str | None, *, as_json: bool) -> int:
    """Prints all findings; returns 1 if one is a fault."""
    checks = [*_installed(), *shadowed(), *_machine(root.resolve()), _prefect(), _ray(ray_address), _wandb()]
    if as_json:
        print(json.dumps({"checks": [asdict(c) for c in checks]}), flush=True)
    else:
        table = Table(box=None, show_header=False, pad_edge=False)
        for check in checks:
            style = {"ok": "green", "note": "yellow", "fault": "red"}[check.state]
            table.add_row(Text(check.state, style=style), check.name, Text(check.text))
        Console(highlight=False).print(table)
    return int(any(check.state == "fault" for check in checks))


def _installed() -> list[Check]:
    checks = [Check("python", "ok", f"{platform.python_version()}, {platform.platform()}")]
    for name in DISTRIBUTIONS:
        try:
            checks.append(Check(name, "ok", version(name)))
        except PackageNotFoundError:
            checks.append(Check(name, "fault", "not installed"))
    return checks


def shadowed(find: Callable[[str], Path | None] | None = None) -> list[Check]:
    """Whether each of our top-level packages is ours: another distribution may have one of the same name.

    Args:
        find: package -> the folder that `import` would take.
    """
    find = find or _imported_from
    ours = Path(__file__).resolve().parents[1]
    checks = []
    for package in OUR_PACKAGES:
        folder = find(package)
        if folder is None:
            checks.append(Check(package, "fault", f"cannot be imported; expected {ours / package}"))
        elif folder.resolve() != ours / package:
            checks.append(Check(package, "fault", f"`import {package}` takes {folder}, which is not ours; remove that"))
        else:
            checks.append(Check(package, "ok", str(folder)))
    return checks


def _imported_from(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


def _machine(root: Path) -> list[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    place = next(p for p in (root, *root.parents) if p.exists())
    free = shutil.disk_usage(place).free
    writable = os.access(place, os.W_OK)
    disk = f"{free / 2**30:.1f} GiB free at {root}" + ("" if writable else ", but it cannot be written")
    compiler = next((c for c in (os.environ.get("CXX"), "g++", "clang++", "c++") if c and shutil.which(c)), None)
    return [
        Check("threads", "ok", f"{cores} cores usable, OMP_NUM_THREADS {threads}"),
        Check("disk", "ok" if free > LEAST_DISK and writable else "fault", disk),
        Check("C++ compiler", "ok" if compiler else "note", compiler or "none: lanes run eagerly, which is slower"),
        _gpu(),
    ]


def _gpu() -> Check:
    if shutil.which("nvidia-smi") is None:
        return Check("GPU", "note", "none found: everything runs on CPUs")
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("GPU", "note", f"nvidia-smi failed: {error}")
    import torch

    names = "; ".join(done.stdout.strip().splitlines()) or "none"
    if not torch.cuda.is_available():
        return Check("GPU", "note", f"{names}, but this torch ({torch.__version__}) cannot use it")
    return Check("GPU", "ok", names)


def _answers(url: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """HTTP status of a GET (0: no answer) and what went wrong."""
    if urlsplit(url).scheme not in ("http", "https"):
        return 0, "no http address"
    request = urllib.request.Request(url, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            return response.status, ""
    except urllib.error.HTTPError as error:
        return error.code, str(error)
    except (urllib.error.URLError, OSError, ValueError) as error:
        return 0, str(getattr(error, "reason", error))


def _prefect() -> Check:
    url = api_url_of_user()
    if url is None:
        return Check("Prefect API", "ok", "none set: each run starts its own server")
    status, why = _answers(f"{url.rstrip('/')}/health")
    if status == 200:
        return Check("Prefect API", "ok", f"{url} answers")
    return Check("Prefect API", "note", f"{url} does not answer ({why or status}): runs go on without it")


def _ray(address: str | None) -> Check:
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None:
        return Check("Ray", "ok", "no address set: each run starts Ray here")
    if not address.startswith("http"):
        return Check("Ray", "note", f"{address}: give the dashboard's http address to have it checked")
    token = find_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    status, why = _answers(f"{address.rstrip('/')}/api/version", headers)
    jobs, _ = _answers(f"{address.rstrip('/')}/api/jobs/", headers)
    if 401 in (status, jobs) or 403 in (status, jobs):
        return Check("Ray", "fault", f"{address} refuses us: {'the token is wrong' if token else 'it wants a token'}")
    if status != 200:
        return Check("Ray", "fault", f"{address} does not answer ({why or status})")
    open_to_all = "" if token else "; it takes jobs from anybody, switch token authentication on"
    return Check("Ray", "ok" if token else "note", f"{address} answers{open_to_all}")


def _wandb() -> Check:
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or "api.wandb.ai"
    if os.environ.get("WANDB_API_KEY"):
        return Check("W&B", "ok", f"logged in at {host} (WANDB_API_KEY)")
    try:
        entry = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        entry = None
    if entry:
        return Check("W&B", "ok", f"logged in at {host} (netrc)")
    return Check("W&B", "note", "not logged in: runs are kept offline until `seedbed sync`")
