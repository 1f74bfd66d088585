"""What every benchmark shares: its flags, its progress on standard error, its one JSON object at the end."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from typing import Any

__all__ = ["arguments", "emit", "machine", "progress"]


def arguments(description: str | None) -> tuple[bool, bool]:
    """Parses `--quick` (within 5 minutes on 2 cores) and `--json`; returns both."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: within 5 minutes on 2 cores")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object (it always is)")
    given = parser.parse_args()
    return given.quick, given.json


def progress(text: str) -> None:
    """One line on standard error."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "load": list(os.getloadavg()),
    }


def _cpuinfo() -> list[str]:
    try:
        with open("/proc/cpuinfo") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _commit() -> str | None:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def emit(benchmark: str, ratios: dict[str, float], details: dict[str, Any]) -> None:
    """Prints the benchmark's result as the last line of standard output."""
    result = {
        "benchmark": benchmark,
        "ratios": ratios,
        "details": details,
        "machine": machine(),
        "commit": _commit(),
    }
    print(json.dumps(result, allow_nan=False), flush=True)
