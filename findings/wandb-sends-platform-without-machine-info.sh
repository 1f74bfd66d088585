#!/usr/bin/env bash
# wandb 0.31.0: a run that asks for no machine information still records the platform and the Python version.
#
# `wandb.Settings(x_disable_meta=True, x_disable_machine_info=True, disable_code=True, disable_git=True, console="off")` keeps
# wandb-metadata.json out of the run. The run's record for the server holds them all the same, as telemetry: platform and
# Python version. No setting that we found leaves them out.
# Output seen on 2026-12-01 (Linux, Python 3.11): "telemetry: platform 'linux-x86_64', python '3.11.7'; metadata file: none".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "wandb==0.31.0" 2>/dev/null
cat >"$work/log.py" <<'PY'
import pathlib
import platform
import struct
import sys

import wandb
from wandb.proto import wandb_internal_pb2

assert wandb.__version__ == "0.31.0"
settings = wandb.Settings(
    x_disable_meta=True, x_disable_machine_info=True, disable_code=True, disable_git=True, console="off", silent=True
)
run = wandb.init(mode="offline", project="quiet", dir=sys.argv[1], settings=settings)
run.log({"score": 1.0})
run.finish()
(file,) = pathlib.Path(sys.argv[1]).rglob("*.wandb")


def records(data):
    """The file's records: blocks of 32 KiB hold pieces, each with a checksum, a length and a kind (1 whole, 2 first, 4 last)."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole = (b"" if kind in (1, 2) else whole) + data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield whole


platforms, pythons = set(), set()
for data in records(file.read_bytes()):
    record = wandb_internal_pb2.Record()
    record.ParseFromString(data)
    for telemetry in (record.telemetry, record.run.telemetry):
        platforms |= {telemetry.platform} - {""}
        pythons |= {telemetry.python_version} - {""}
metadata = [path.name for path in pathlib.Path(sys.argv[1]).rglob("wandb-metadata.json")]
print(f"telemetry: platform {sorted(platforms)}, python {sorted(pythons)}; metadata file: {metadata or 'none'}")
assert pythons == {platform.python_version()}, "the behaviour has changed"
assert platforms and not metadata, "the behaviour has changed"
PY
"$work/venv/bin/python" "$work/log.py" "$work"
