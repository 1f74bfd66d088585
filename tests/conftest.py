"""Every test runs with a home, caches and services of its own, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

_SECRETS = ("WANDB_API_KEY", "PREFECT_API_URL", "PREFECT_API_KEY", "RAY_ADDRESS", "SEEDBED_ROOT", "WANDB_MODE")

# Tests that start servers, Ray or a browser: where tests run side by side these stay in one process, one by one.
_SERVICES = ("tests/flows", "tests/faults", "tests/browser", "tests/harness/tracking")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with services come first and in one group (`pytest -n 2 --dist loadgroup`, as `make test` has it)."""

    def has_services(item: pytest.Item) -> bool:
        return item.path.relative_to(item.config.rootpath).as_posix().startswith(_SERVICES)

    for item in items:
        if has_services(item):
            item.add_marker(pytest.mark.xdist_group("services"))
    items.sort(key=has_services, reverse=True)


@pytest.fixture(autouse=True, scope="session")
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """HOME, caches, PREFECT_HOME, W&B's folders and Ray's token lie in a temporary folder for the whole session."""
    home = tmp_path_factory.mktemp("home")
    patch = pytest.MonkeyPatch()
    patch.setenv("HOME", str(home))
    patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    patch.setenv("PREFECT_HOME", str(home / "prefect"))
    patch.setenv("WANDB_DIR", str(home / "wandb"))
    patch.setenv("WANDB_CACHE_DIR", str(home / "wandb-cache"))
    patch.setenv("WANDB_CONFIG_DIR", str(home / "wandb-config"))
    patch.setenv("RAY_AUTH_MODE", "token")
    patch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "ray-token"))
    (home / "ray-token").write_text("0123456789abcdef" * 4)
    os.chmod(home / "ray-token", 0o600)
    ray_folder = tempfile.mkdtemp(prefix="sb-", dir="/tmp")  # short: sockets lie in it, and their paths are limited
    patch.setenv("RAY_TMPDIR", ray_folder)
    patch.setenv("NO_PROXY", "127.0.0.1,localhost")
    for name in _SECRETS:
        patch.delenv(name, raising=False)
    yield home
    patch.undo()
    shutil.rmtree(ray_folder, ignore_errors=True)
