"""Headless Chromium over the DevTools protocol, just enough to look at one page.

`python -m tests.browser.chromium PAGE OUT.png [--dark] [--width N] [--height N]` takes a screenshot.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from websockets.sync.client import ClientConnection, connect

__all__ = ["Tab", "browser", "find_chromium", "visit"]

T = TypeVar("T")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-renderer-backgrounding",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--hide-scrollbars",
    "--remote-debugging-address=127.0.0.1",
    "--remote-debugging-port=0",
)
START_SECONDS = 30.0
REPLY_SECONDS = 20.0
ATTEMPTS = 5


def find_chromium() -> str | None:
    """The path of an installed Chromium or Chrome, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """One page in the browser.

    Attributes:
        requests: URLs of every request, the page itself among them.
        problems: console errors and warnings, uncaught exceptions, log entries of level error.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._last = 0
        self.requests: list[str] = []
        self.problems: list[str] = []
        self._loaded = False
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends one command and returns its result; events that come meanwhile are recorded."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": params}))
        while True:
            message = self._receive(REPLY_SECONDS)
            if message.get("id") == self._last:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]

    def _receive(self, seconds: float) -> dict[str, Any]:
        message = json.loads(self._socket.recv(timeout=seconds))
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"])[:1000])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(json.dumps(params["args"])[:1000])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(params["entry"]["text"])
        return message

    def emulate(self, width: int, height: int, scheme: str, scale: float = 1.0) -> None:
        """Sets the window's size in CSS pixels, its pixel ratio and the preferred colour scheme."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale}
        self.call("Emulation.setDeviceMetricsOverride", mobile=False, **size)  # mobile=True hangs some screenshots
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, page: Path) -> None:
        """Loads a file and waits for its load event."""
        self._loaded = False
        self.call("Page.navigate", url=page.resolve().as_uri())
        end = time.monotonic() + REPLY_SECONDS
        while not self._loaded:
            self._receive(max(0.01, end - time.monotonic()))

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression (a promise is awaited)."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:1000])
        return result["result"].get("value")

    def scroll_through(self) -> None:
        """Scrolls the whole page, so that everything drawn late is drawn, and returns to its top."""
        self.run(
            """(async () => {
              const pause = () => new Promise((done) => setTimeout(done, 60));
              document.documentElement.style.scrollBehavior = "auto";
              for (let y = 0; y < document.documentElement.scrollHeight; y += 400) { scrollTo(0, y); await pause(); }
              scrollTo(0, 0); await pause(); await pause();
            })()"""
        )
        left = "[...document.querySelectorAll('.plotly')].filter((p) => !p.querySelector('.main-svg')).length"
        if self.run(left):
            raise TimeoutError("Chromium shows no new frames")

    def screenshot(self, out: Path, full: bool = False) -> Path:
        """Writes a PNG of the window, or of the whole page."""
        extra: dict[str, Any] = {}
        if full:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            extra = {"captureBeyondViewport": True, "clip": {**size, "scale": 1}}
        out.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", **extra)["data"]))
        return out


def visit(executable: str, look: Callable[[Tab], T]) -> T:
    """`look` in a fresh browser; again in another one where the compositor stood still.

    Headless Chromium 156 without a GPU stops making frames in about one of seven sessions on a busy machine:
    requestAnimationFrame never fires again, while scripts go on. That is the browser's, whatever the page.

    Raises:
        TimeoutError: it stood still every time.
    """
    for attempt in range(ATTEMPTS):
        try:
            with browser(executable) as tab:
                return look(tab)
        except TimeoutError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


@contextmanager
def browser(executable: str) -> Iterator[Tab]:
    """Starts Chromium with a profile of its own, gives its first tab, and leaves nothing behind."""
    profile = tempfile.mkdtemp(prefix="seedbed-chromium-")
    command = [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = _port(Path(profile) / "DevToolsActivePort", process)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=START_SECONDS) as answer:
            pages = [target for target in json.load(answer) if target["type"] == "page"]
        with connect(pages[0]["webSocketDebuggerUrl"], max_size=2**28, proxy=None) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        shutil.rmtree(profile, ignore_errors=True)


def _port(file: Path, process: subprocess.Popen) -> int:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"Chromium ended with {process.returncode} before it was ready")
        if file.is_file() and (lines := file.read_text().splitlines()):
            return int(lines[0])
        time.sleep(0.05)
    raise TimeoutError("Chromium did not open its DevTools port")


def main() -> None:
    """Takes one screenshot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1400)
    parser.add_argument("--height", type=int, default=1000)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--full", action="store_true", help="the whole page, not only the window")
    parser.add_argument("--scroll", default="", help="CSS selector to scroll to")
    parser.add_argument("--script", default="", help="JavaScript to run first")
    options = parser.parse_args()
    executable = find_chromium()
    if executable is None:
        raise SystemExit("no Chromium was found on PATH")

    def look(tab: Tab) -> None:
        tab.emulate(options.width, options.height, "dark" if options.dark else "light", options.scale)
        tab.open(options.page)
        tab.scroll_through()
        if options.script:
            tab.run(options.script)
        if options.scroll:
            tab.run(f"document.querySelector({json.dumps(options.scroll)}).scrollIntoView()")
        time.sleep(0.3)
        print(tab.screenshot(options.out, options.full), *tab.problems)

    visit(executable, look)


if __name__ == "__main__":
    main()
