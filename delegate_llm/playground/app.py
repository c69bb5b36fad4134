"""The app: one page, the pairs on offer, and answers that stream as lines of JSON.

Requests are small and checked before anything runs. The models work in each pair's own thread; a browser
that goes away stops them within a step.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from delegate_llm.errors import DelegateError, RequestError, require
from delegate_llm.playground.ask import Question
from delegate_llm.playground.guard import Guard, failure
from delegate_llm.playground.line import BusyError
from delegate_llm.playground.page import ASSETS, asset, page
from delegate_llm.playground.pairs import Offer, offer_at
from delegate_llm.playground.stream import streamed

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ("make_app",)

_MOST_BYTES: Final = 256 * 1024
"""Of a request."""


class _RefusedError(Exception):
    """A request that cannot be answered, with its status."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def make_app(offers: Sequence[Offer], *, names: frozenset[str] | None, api_key: str | None = None) -> Any:
    """The ASGI app.

    Args:
        offers: The pairs that may be picked, in the order of the page.
        names: Hosts that it answers to, see `guard.names_of`.
        api_key: What requests must bring; None for nothing.

    Raises:
        MissingExtraError: If starlette is not installed.
    """
    applications = require("starlette.applications", "playground")
    routing = require("starlette.routing", "playground")
    routes = [
        routing.Route("/", _page),
        routing.Route("/assets/{name}", _asset),
        routing.Route("/api/pairs", partial(_pairs, offers)),
        routing.Route("/api/load", _guarded(partial(_load, offers)), methods=["POST"]),
        routing.Route("/api/ask", _guarded(partial(_ask, offers)), methods=["POST"]),
    ]
    inner = applications.Starlette(routes=routes, exception_handlers={404: _unknown, 405: _unknown})
    return Guard(inner, names=names, api_key=api_key)


# --- Routes ---


async def _page(_: Request) -> Response:
    return _responses().HTMLResponse(page())


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in ASSETS:
        return failure(HTTPStatus.NOT_FOUND, f"there is no {name!r:.80} here")
    body, kind = asset(name)
    return _responses().Response(body, media_type=kind)


async def _pairs(offers: Sequence[Offer], _: Request) -> Response:
    return _json({"pairs": [each.about() for each in offers]})


async def _load(offers: Sequence[Offer], request: Request) -> Response:
    offer = _offer(offers, await _body(request))
    offer.begin_loading()
    return _json(offer.about(), HTTPStatus.ACCEPTED)


async def _ask(offers: Sequence[Offer], request: Request) -> Response:
    body = await _body(request)
    offer = _offer(offers, body)
    question = await asyncio.to_thread(Question.of, body)  # the first brings torch
    return streamed(offer, question)


async def _unknown(_: Request, error: Any) -> Response:
    return failure(HTTPStatus(error.status_code), f"{error.detail}; the page is at /")


def _guarded(route: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """A route whose errors are told as JSON."""

    async def answered(request: Request) -> Response:
        try:
            return await route(request)
        except _RefusedError as error:
            return failure(error.status, str(error))
        except BusyError as error:
            return failure(HTTPStatus.TOO_MANY_REQUESTS, str(error), "BusyError")
        except DelegateError as error:
            return failure(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), type(error).__name__)

    return answered


# --- Requests ---


async def _body(request: Request) -> dict[str, Any]:
    text = b""
    async for chunk in request.stream():
        text += chunk
        if len(text) > _MOST_BYTES:
            msg = f"the request has more than {_MOST_BYTES} bytes, the most that is read; ask for less"
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, msg)
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"the body of the request is no JSON: {error}"
        raise _RefusedError(HTTPStatus.BAD_REQUEST, msg) from None
    if not isinstance(body, dict):
        msg = f"the body of the request is no JSON object, but {body!r:.80}"
        raise _RefusedError(HTTPStatus.BAD_REQUEST, msg)
    return body


def _offer(offers: Sequence[Offer], body: Mapping[str, Any]) -> Offer:
    try:
        return offer_at(offers, body.get("pair"))
    except RequestError as error:
        raise _RefusedError(HTTPStatus.NOT_FOUND, str(error)) from None


def _json(content: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return _responses().JSONResponse(content, status)


def _responses() -> Any:
    return require("starlette.responses", "playground")
