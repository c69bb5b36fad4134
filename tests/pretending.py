"""A server that pretends to carry a pair, and says what it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from delegate_llm import Generation, Trace, Usage

ABOUT = {"base": "b", "reasoner": "r", "context": 100, "size": 50, "stops": [], "policy": {}}
ANSWER = Generation(text="x", token_ids=(1,), finish_reason="stop", trace=Trace(), usage=Usage())
EVENT = f'data: {{"generation": {ANSWER.to_json()}}}\n\n'
Said = tuple[int, dict[str, str], str]


class Server(ThreadingHTTPServer):
    request_queue_size = 256


@contextmanager
def serving(say: Callable[[str, Any], Said]) -> Iterator[str]:
    """A server that answers a path and what is asked there with a status, headers and a body."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, body = say(self.path, json.loads(asked or "null"))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):  # of who has left
                self.wfile.write(body.encode())

        do_GET = do_POST = answer  # noqa: N815 - the library's names

        def log_message(self, *_: Any) -> None: ...

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
