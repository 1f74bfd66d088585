#!/usr/bin/env bash
# safetensors 0.8.0: a file that cannot be written to its end raises SafetensorError, which is neither an OSError nor has an errno.
#
# Code that stops a training on `except OSError` with errno ENOSPC, EDQUOT or EFBIG therefore does not see that a checkpoint did not
# fit. The number stands in the message alone, as "(os error N)". Here a limit on the size of files stands in for the full disk.
# Output seen on 2026-12-01: "open().write: OSError, errno 27; save_file: SafetensorError, OSError: False, errno: None".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "safetensors==0.8.0" "numpy==2.2.6" 2>/dev/null
cat >"$work/save.py" <<'PY'
import errno
import os
import resource
import signal
import sys

import numpy as np
import safetensors
from safetensors.numpy import save_file

assert safetensors.__version__ == "0.8.0"
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, 64 * 1024))
tensors = {"weight": np.zeros(1024 * 1024, np.float32)}
try:
    with open(os.path.join(sys.argv[1], "plain"), "wb", buffering=0) as file:
        while True:
            file.write(tensors["weight"].tobytes())
except OSError as error:
    assert error.errno == errno.EFBIG
    print(f"open().write: OSError, errno {error.errno}; ", end="")
try:
    save_file(tensors, os.path.join(sys.argv[1], "weights.safetensors"))
    raise AssertionError("it fitted")
except Exception as error:
    number = getattr(error, "errno", None)
    print(f"save_file: {type(error).__name__}, OSError: {isinstance(error, OSError)}, errno: {number}")
    assert type(error).__name__ == "SafetensorError" and not isinstance(error, OSError), "the behaviour has changed"
    assert number is None and f"(os error {errno.EFBIG})" in str(error), "the behaviour has changed"
PY
"$work/venv/bin/python" "$work/save.py" "$work"
