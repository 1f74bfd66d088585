#!/usr/bin/env bash
# torch 2.13.0 with onnxscript 0.7.2: a module that writes `x.reshape(len(x), ...)` gets a fixed batch in its ONNX file, although
# the export was asked for a dynamic one; `x.reshape(x.shape[0], ...)` keeps it dynamic.
#
# Seen: torch.onnx.export(..., dynamo=True, dynamic_shapes={"x": {0: torch.export.Dim("rows")}}) succeeds for both. With len() the
# file's first input dimension is the constant 2 of the example, and no error or warning names it; onnxruntime then refuses
# every other batch.
# Output seen on 2026-12-01: "len(x): first dimension 2" and "x.shape[0]: first dimension rows".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "torch==2.13.0" "onnx==1.23.2" "onnxscript==0.7.2" "numpy==2.4.6" 2>/dev/null
"$work/venv/bin/python" - "$work" <<'PY' 2>"$work/err" || { cat "$work/err"; exit 1; }
import contextlib
import io
import sys

import onnx
import torch


class ByLen(torch.nn.Module):
    def forward(self, x):
        return x.reshape(len(x), -1) * 2


class ByShape(torch.nn.Module):
    def forward(self, x):
        return x.reshape(x.shape[0], -1) * 2


def first_dimension(module):
    path = f"{sys.argv[1]}/{type(module).__name__}.onnx"
    rows = torch.export.Dim("rows")
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(
            module.eval(), (torch.randn(2, 3, 4),), path, dynamo=True, dynamic_shapes={"x": {0: rows}}, input_names=["x"]
        )
    dim = onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0]
    return dim.dim_param or dim.dim_value


found = first_dimension(ByLen()), first_dimension(ByShape())
print(f"torch {torch.__version__.partition('+')[0]}")
print(f"len(x): first dimension {found[0]}")
print(f"x.shape[0]: first dimension {found[1]}")
assert found == (2, "rows"), "the behaviour has changed"
PY
if grep -qi "rows.*constant\|specializ" "$work/err"; then
  echo "it says so now: the behaviour has changed"
  cat "$work/err"
  exit 1
fi
