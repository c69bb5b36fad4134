"""LangSmith on 127.0.0.1, as far as its client speaks to it: what would have been sent, without a network."""

from __future__ import annotations

import io
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import zstandard
from langsmith import Client

PATIENCE_S = 20.0
# The client dies without any one of these.
INGEST = {
    "size_limit": 100,
    "size_limit_bytes": None,
    "scale_up_nthreads_limit": 1,
    "scale_up_qsize_trigger": 1000,
    "scale_down_nempty_trigger": 4,
}


class Loopback:
    """The runs that arrived, each put together from its parts."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = self.new_client()
        self.requests: Counter[str] = Counter()
        """Requests by method and path."""
        self.posts: Counter[str] = Counter()
        """How often each run was begun, by its id."""
        self._runs: dict[str, dict[str, Any]] = {}
        self._arrived = threading.Condition()

    def new_client(self, **settings: Any) -> Client:
        client = Client(api_url=self.url, api_key="none", **settings)
        assert client.info.batch_ingest_config  # asked now: its thread would ask when the server may be gone
        return client

    def runs(self, client: Client | None = None) -> list[dict[str, Any]]:
        """Every run, parents first, once all that were begun have ended."""
        (client or self.client).flush(timeout=PATIENCE_S)
        with self._arrived:
            done = self._arrived.wait_for(
                lambda: all(run.get("end_time") for run in self._runs.values()), PATIENCE_S
            )
            assert done, f"runs that never ended: {self._runs}"
            assert set(self.posts.values()) <= {1}, f"runs that were sent twice: {self.posts}"
            return sorted(self._runs.values(), key=lambda run: run["dotted_order"])

    def take(self, operation: str, run_id: str, fields: dict[str, Any]) -> None:
        """Add to what is known of a run. A later part knows better, but forgets nothing."""
        with self._arrived:
            known = self._runs.setdefault(run_id, {"id": run_id})
            known |= {name: value for name, value in fields.items() if value is not None}
            self.posts[run_id] += operation == "post" and "trace_id" in fields
            self._arrived.notify_all()


@contextmanager
def loopback(*, multipart: bool = True) -> Iterator[Loopback]:
    """A server that takes runs as multipart (compressed), or else plain, as older LangSmiths do."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.multipart = multipart
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        server.smith = smith = Loopback(f"http://127.0.0.1:{server.server_port}")
        try:
            yield smith
        finally:
            smith.client.close(timeout=PATIENCE_S)
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def do_GET(self) -> None:
        ingest = INGEST | {"use_multipart_endpoint": self.server.multipart}
        flags = {"zstd_compression_enabled": True}
        self._answer(200, {"batch_ingest_config": ingest, "instance_flags": flags})

    def do_POST(self) -> None:
        body = self._body()
        smith: Loopback = self.server.smith
        smith.requests[f"{self.command} {self.path}"] += 1
        if self.path == "/runs/multipart" and self.server.multipart:
            for operation, run_id, fields in _parts(body, self.headers["Content-Type"]):
                smith.take(operation, run_id, fields)
        elif self.path == "/runs/batch":
            for operation, runs in json.loads(body).items():
                for run in runs or ():
                    smith.take(operation, run["id"], run)
        elif self.path == "/runs":
            run = json.loads(body)
            smith.take("post", run["id"], run)
        elif self.command == "PATCH":
            smith.take("patch", self.path.rpartition("/")[2], json.loads(body))
        else:
            self._answer(404, {"detail": self.path})
            return
        self._answer(202, {})

    def do_PATCH(self) -> None:
        self.do_POST()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "zstd":
            return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body)).read()
        return body

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """A test's output is its own."""


def _parts(body: bytes, content_type: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Operation, run and fields of each part: a part `post.<id>` is a run, `post.<id>.outputs` a field."""
    boundary = re.search(r"boundary=\"?([^\";]+)", content_type)
    assert boundary, content_type
    for part in body.split(b"--" + boundary[1].encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]+)"', head)
        assert name, head
        operation, run_id, *field = name[1].decode().split(".")
        if operation in ("post", "patch"):
            value = json.loads(content)
            yield operation, run_id, {field[0]: value} if field else value
