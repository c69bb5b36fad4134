"""Listening: a socket that says its port before anything runs, and a server that ends quietly."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Final

from delegate_llm.errors import RequestError, require
from delegate_llm.playground.pairs import Offer

__all__ = ("bound", "serve", "server_of", "url_of")

_BACKLOG: Final = 128
_GRACE: Final = 1
"""Seconds that answers under way get when the server ends."""


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: A name or an address.
        port: 0 takes a free one.

    Raises:
        RequestError: If one cannot listen there.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        msg = f"host: {host!r:.80} cannot be listened at ({error}); leave --host out for this machine alone"
        raise RequestError(msg) from None
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        where = f"{host}:{port} ({error.strerror})"
        msg = f"port: cannot listen at {where}; give another --port, or 0 for a free one"
        raise RequestError(msg) from None
    return listening


def url_of(host: str, listening: socket.socket) -> str:
    """Where a browser on this machine finds the page."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{name}:{listening.getsockname()[1]}/"


def server_of(app: Any) -> Any:
    """A server for an app that says nothing by itself: uvicorn's, to be run on a socket.

    Raises:
        MissingExtraError: If uvicorn is not installed.
    """
    uvicorn = require("uvicorn", "playground")
    config = uvicorn.Config(
        app,
        lifespan="off",
        access_log=False,  # what is asked is the asker's own
        log_level="critical",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE,
    )
    return uvicorn.Server(config)


def serve(app: Any, listening: socket.socket, offers: Sequence[Offer]) -> None:
    """Answer requests until Ctrl-C or a signal to end; then the models stop, too.

    Raises:
        MissingExtraError: If uvicorn is not installed.
        KeyboardInterrupt: After Ctrl-C.
    """
    try:
        server_of(app).run(sockets=[listening])
    finally:
        listening.close()
        for each in offers:
            each.close()
