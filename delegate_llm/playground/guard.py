"""Who may ask, and what a browser may do with the page: checked before any route sees a request.

A page of another site must not reach this server by way of its visitor's browser: neither under a name that
was made to point here (DNS rebinding), nor by a form or script of its own.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from delegate_llm.errors import require
from delegate_llm.serving.addresses import is_loopback

__all__ = ("Guard", "failure", "names_of")

_App = Callable[[Any, Any, Any], Awaitable[None]]

_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{0,5})?")
_API: Final = "/api/"
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Guard:
    """An ASGI middleware."""

    def __init__(self, app: _App, *, names: frozenset[str] | None, api_key: str | None) -> None:
        """Stand before an app.

        Args:
            app: Gets what may pass.
            names: Hosts that the server answers to; None for any address, this machine's name and
                `localhost`.
            api_key: What requests to the API must bring; None for nothing.
        """
        self._app = app
        self._names = names
        self._key = api_key.encode() if api_key else None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or answer it with what is wrong."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refusal(scope["method"], scope["path"], headers)
        app = self._app if refused is None else failure(*refused)
        await app(scope, receive, _with_headers(send))

    def _refusal(self, method: str, path: str, headers: dict[str, str]) -> tuple[HTTPStatus, str] | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            msg = f"host: this server does not answer to {host!r:.80}; use the address that --host gave it"
            return HTTPStatus.MISDIRECTED_REQUEST, msg
        if method not in ("GET", "HEAD") and (refused := _from_elsewhere(host, headers)):
            return refused
        if self._key is not None and path.startswith(_API) and not self._has_key(headers):
            return HTTPStatus.UNAUTHORIZED, "api_key: it is missing or wrong; give the one the server has"
        return None

    def _is_ours(self, host: str) -> bool:
        name = _hostname(host)
        if name is None:
            return False
        if self._names is not None:
            return name in self._names
        # An address cannot be made to point elsewhere; a name can.
        return _is_address(name) or name in {"localhost", socket.gethostname().lower()}

    def _has_key(self, headers: dict[str, str]) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        said = given.strip().encode("latin-1")
        return scheme.lower() == "bearer" and secrets.compare_digest(said, self._key or b"")


def _from_elsewhere(host: str, headers: dict[str, str]) -> tuple[HTTPStatus, str] | None:
    """What is wrong with a request that does something, if another site may have sent it."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
    if origin is not None and _place(origin) != host.lower():
        return HTTPStatus.FORBIDDEN, f"origin: {origin!r:.80} is another site; ask from the server's own page"
    if site not in ("same-origin", "none"):
        return HTTPStatus.FORBIDDEN, "origin: the request comes from another site; ask from the server's page"
    # Browsers ask before they send JSON to another site, and are never allowed to.
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"content-type: {kind!r:.80} is not 'application/json'"
    return None


def failure(status: HTTPStatus, message: str, kind: str = "RequestError") -> _App:
    """A response that says what was wrong."""
    responses = require("starlette.responses", "playground")
    more = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else None
    body = {"error": {"type": kind, "message": message}}
    response: _App = responses.JSONResponse(body, status, headers=more)
    return response


def names_of(host: str) -> frozenset[str] | None:
    """The hosts that a server answers to which listens at `host`; None if that is everywhere."""
    name = host.lower()
    if is_loopback(name):
        return _LOCAL | {name}
    if _is_address(name) and ipaddress.ip_address(name).is_unspecified:
        return None
    return frozenset({name})


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _hostname(host: str) -> str | None:
    """Of a `Host` header, without the port: behind a tunnel it is another than ours."""
    found = _HOST.fullmatch(host)
    return (found[1] or found[2]).lower() if found else None


def _with_headers(send: Any) -> Any:
    extra: Iterable[tuple[bytes, bytes]] = [
        (name.lower().encode(), text.encode()) for name, text in _HEADERS.items()
    ]

    async def sent(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *extra]
        await send(message)

    return sent
