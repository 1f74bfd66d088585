"""A W&B server on 127.0.0.1 from the standard library: what wandb 0.31 needs of one, a store to look into,
and faults.

History is assigned by offset, as W&B does it: a repeated request changes nothing, and a gap shows as a
missing line.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Run", "Server", "serve"]

_OPERATION = re.compile(r"^\s*(?:#.*\n\s*)*(?:query|mutation)\s+(\w+)", re.M)
_STREAM = re.compile(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream")


@dataclass
class Run:
    """What arrived of one run."""

    id: str
    fields: dict[str, Any] = field(default_factory=dict)  # the last UpsertBucket
    history: dict[int, dict[str, Any]] = field(default_factory=dict)  # offset -> line
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None
    overwritten: int = 0  # lines that came twice with other content

    @property
    def lines(self) -> list[dict[str, Any]]:
        """History in order, without wandb's own columns."""
        rows = [self.history[offset] for offset in sorted(self.history)]
        return [{k: v for k, v in row.items() if not k.startswith(("_", "media/"))} for row in rows]

    @property
    def config(self) -> dict[str, Any]:
        """Configuration without wandb's own entry."""
        raw = json.loads(self.fields.get("config") or "{}")
        return {key: value["value"] for key, value in raw.items() if key != "_wandb"}


@dataclass
class Server:
    """The store and its faults.

    Attributes:
        fault: "" works; "500" answers every request so; "hole" accepts and never answers; "forget" says
            yes to every upload and keeps nothing of history and summary.
    """

    url: str = ""
    fault: str = ""
    runs: dict[str, Run] = field(default_factory=dict)
    unhandled: list[str] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    authorizations: set[str] = field(default_factory=set)
    received: list[bytes] = field(default_factory=list)  # heads and bodies of all requests
    lock: threading.RLock = field(default_factory=threading.RLock)
    stopping: threading.Event = field(default_factory=threading.Event)

    def graphql(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Answer one GraphQL operation with its `data`."""
        self.operations.append(operation)
        answer = getattr(self, f"_on_{operation}", None)
        if answer is None:
            self.unhandled.append(operation)
            return {}
        with self.lock:
            return answer(variables)

    def _on_Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        teams: dict[str, Any] = {"edges": []}
        viewer = {"id": "V", "entity": "test", "username": "test", "email": "", "flags": "{}", "teams": teams}
        return {"viewer": viewer}

    def _on_ServerFeaturesQuery(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _on_OrganizationCoreWeaveOrganizationID(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"entity": None}

    def _on_XXHashDigestsEnabled(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"entity": {"xxhashDigestsEnabled": False}}

    def _on_FetchArtifactDigestAlgorithm(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"project": None}

    def _on_ArtifactType(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def _on_CreateArtifact(self, _: dict[str, Any]) -> dict[str, Any]:
        sequence = {"latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": "A1", "state": "COMMITTED", "artifactSequence": sequence}}}

    def _on_RunResumeStatus(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(variables["name"])
        bucket = None
        if run is not None:
            tail = [json.dumps(run.history[max(run.history)])] if run.history else []
            bucket = {
                "id": f"S-{run.id}",
                "name": run.id,
                "displayName": run.fields.get("displayName"),
                "summaryMetrics": json.dumps(run.summary),
                "logLineCount": 0,
                "historyLineCount": len(run.history),
                "eventsLineCount": 0,
                "historyTail": json.dumps(tail),
                "eventsTail": "[]",
                "config": run.fields.get("config") or "{}",
                "tags": [],
                "notes": "",
                "wandbConfig": '{"t": {}}',
            }
        entity = {"id": "E", "name": variables.get("entity") or "test"}
        return {"model": {"id": "P", "name": variables["project"], "entity": entity, "bucket": bucket}}

    def _on_UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables["name"]
        new = name not in self.runs
        run = self.runs.setdefault(name, Run(name))
        run.fields.update({key: value for key, value in variables.items() if value is not None})
        entity = {"id": "E", "name": variables.get("entity") or "test"}
        bucket = {
            "id": f"S-{name}",
            "name": name,
            "displayName": run.fields.get("displayName") or name,
            "description": None,
            "config": run.fields.get("config"),
            "sweepName": None,
            "historyLineCount": len(run.history),
            "project": {"id": "P", "name": run.fields.get("project") or "p", "entity": entity},
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def _on_CreateRunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = variables.get("run") or variables.get("runName") or variables.get("name")
        files = [{"name": f, "uploadUrl": f"{self.url}/storage/{run}/{f}"} for f in variables["files"]]
        return {"createRunFiles": {"runID": f"S-{run}", "uploadHeaders": [], "files": files}}

    def stream(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """Take one file-stream request."""
        with self.lock:
            run = self.runs.setdefault(name, Run(name))
            if self.fault != "forget":
                self._take(run, body.get("files") or {})
            if body.get("complete"):
                run.exit_code = body.get("exitcode")
        return {}

    @staticmethod
    def _take(run: Run, files: dict[str, Any]) -> None:
        history = files.get("wandb-history.jsonl") or {}
        for number, text in enumerate(history.get("content") or []):
            line, offset = json.loads(text), history["offset"] + number
            run.overwritten += run.history.get(offset, line) != line
            run.history[offset] = line
        for text in (files.get("wandb-summary.json") or {}).get("content") or []:
            run.summary = json.loads(text)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def _body(self) -> bytes:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        raw = gzip.decompress(raw) if self.headers.get("Content-Encoding") == "gzip" else raw
        self.server.store.received.append(f"{self.path}\n{self.headers}".encode() + raw)
        return raw

    def _json(self, value: Any, status: int = 200) -> None:
        raw = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _faulty(self) -> bool:
        store = self.server.store
        if store.fault == "500":
            self._json({"error": "down"}, 500)
        elif store.fault == "hole":
            while store.fault == "hole" and not store.stopping.is_set():
                time.sleep(0.1)
            self.close_connection = True
        return store.fault in ("500", "hole") or self.close_connection

    def do_POST(self) -> None:
        raw, store = self._body(), self.server.store
        self.close_connection = False
        if self._faulty():
            return
        store.authorizations.add(self.headers.get("Authorization") or "")
        if self.path == "/graphql":
            body = json.loads(raw)
            match = _OPERATION.search(body["query"])
            operation = body.get("operationName") or (match[1] if match else "")
            data = store.graphql(operation, body.get("variables") or {})
            self._json({"data": data} if data else {"data": None, "errors": [{"message": operation}]})
        elif match := _STREAM.fullmatch(self.path):
            self._json(store.stream(match[3], json.loads(raw)))
        else:
            self._json({}, 404)

    def do_PUT(self) -> None:
        raw, store = self._body(), self.server.store
        self.close_connection = False
        if self._faulty():
            return
        _, _, run, name = self.path.split("/", 3)
        with store.lock:
            store.runs.setdefault(run, Run(run)).files[name] = raw
        self._json({})

    def log_message(self, format: str, *args: Any) -> None:
        """Silence: the store is what tests look at."""


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, store: Server) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = store

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed in the middle are part of the tests."""


@contextmanager
def serve() -> Iterator[Server]:
    """A running server on a free port."""
    server = Server()
    http = _Http(server)
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        http.shutdown()
        http.server_close()
        thread.join(5)
