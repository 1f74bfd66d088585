#!/usr/bin/env bash
# wandb 0.31.0: a table of more than 10,000 rows that is logged to an offline run keeps 10,000, without a word.
#
# Seen: `run.log({"trials": wandb.Table(...)})` with 10,002 rows writes a table file of 10,000 rows into the run's folder. The
# table itself holds all rows, nothing is printed and nothing raised: Table.MAX_ROWS is applied with its warning turned off
# when the table is bound to the run. Raising wandb.Table.MAX_ROWS before logging keeps every row.
# Output seen on 2026-12-01: "rows logged: 10002, rows written: 10000, said: nothing".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "wandb==0.31.0" 2>/dev/null
cat >"$work/log.py" <<'PY'
import json
import os
import pathlib
import sys

import wandb

assert wandb.__version__ == "0.31.0"
rows = 10_002
os.environ["WANDB_SILENT"] = "false"
run = wandb.init(mode="offline", project="rows", dir=sys.argv[1])
table = wandb.Table(columns=["row"], data=[[n] for n in range(rows)])
run.log({"trials": table})
run.finish()
(file,) = pathlib.Path(sys.argv[1]).rglob("*.table.json")
written = len(json.loads(file.read_text())["data"])
print(f"wandb {wandb.__version__}: rows logged: {len(table.data)}, rows written: {written}")
assert (len(table.data), written) == (rows, 10_000), "the behaviour has changed"
PY
"$work/venv/bin/python" "$work/log.py" "$work" >"$work/out" 2>&1 || { cat "$work/out"; exit 1; }
cat "$work/out"
if grep -qiE "truncat|max_rows|10,?000 rows|too many rows" "$work/out"; then
  echo "it says so now: the behaviour has changed"
  exit 1
fi
echo "said: nothing"
