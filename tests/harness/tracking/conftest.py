"""Everything of W&B below tmp_path: no login of the machine, no proxy, no file outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.tracking.loopback import Server, serve

KEY = "seedbedloopbackkey" + "0123456789" * 3


@pytest.fixture(autouse=True)
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pin every place W&B reads or writes, and keep proxies away from the loopback server."""
    for name in list(__import__("os").environ):
        if name.startswith("WANDB_") or name.lower() in ("http_proxy", "https_proxy", "all_proxy", "netrc"):
            monkeypatch.delenv(name)
    for name in ("HOME", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        (tmp_path / "home" / name.lower()).mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv(name, str(tmp_path / "home" / name.lower()))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # the discard port: nothing listens


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty run root."""
    path = tmp_path / "runs"
    path.mkdir()
    return path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A W&B server on 127.0.0.1 and a login for it."""
    with serve() as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield running
        assert running.unhandled == []
