"""An answer on its way to the browser: from the line's thread to the event loop, and out as lines of JSON.

Whatever ends the response, a browser that goes away included, takes the question out of the line or stops
the models within a step.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from delegate_llm.errors import CancelledError, DelegateError, require
from delegate_llm.playground.ask import Event, Question, answers
from delegate_llm.playground.line import Job
from delegate_llm.playground.pairs import Offer

__all__ = ("streamed",)

logger = logging.getLogger(__name__)

_MEDIA_TYPE: Final = "application/x-ndjson"
_Tell = Callable[[Event | None], None]


def streamed(offer: Offer, question: Question) -> Any:
    """The response to a question, as an ASGI app. Must be called in the event loop.

    Its events are `waiting` (with how many are before), `loading`, those of `ask.answers`, and `done` or
    `error`.

    Raises:
        BusyError: If too many wait for this pair already.
    """
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[Event | None] = asyncio.Queue()

    def tell(event: Event | None) -> None:
        # The server may end between the two.
        with contextlib.suppress(RuntimeError):
            if not job.stop.is_set():
                loop.call_soon_threadsafe(heard.put_nowait, event)

    job = Job(
        lambda: _work(offer, question, job, tell),
        lambda before: tell({"event": "waiting", "before": before}),
    )
    offer.line.enter(job)
    response = require("starlette.responses", "playground").StreamingResponse(
        _lines(heard), media_type=_MEDIA_TYPE
    )

    async def left_at_the_end(scope: Any, receive: Any, send: Any) -> None:
        try:
            await response(scope, receive, send)
        finally:
            offer.line.leave(job)

    return left_at_the_end


async def _lines(heard: asyncio.Queue[Event | None]) -> AsyncIterator[str]:
    while (event := await heard.get()) is not None:
        yield json.dumps(event, allow_nan=False, separators=(",", ":")) + "\n"


def _work(offer: Offer, question: Question, job: Job, tell: _Tell) -> None:
    """Answer a question in the line's thread."""
    try:
        for event in _told(offer, question, job):
            tell(event)
        tell({"event": "done"})
    except CancelledError:
        logger.debug("a question was taken back")
    except DelegateError as error:
        tell({"event": "error", "type": type(error).__name__, "message": str(error)})
    except Exception:
        logger.exception("a question could not be answered")
        tell({"event": "error", "type": "Error", "message": "the answer failed; the server's log says why"})
    tell(None)


def _told(offer: Offer, question: Question, job: Job) -> Iterator[Event]:
    def on_step() -> None:
        if job.stop.is_set():
            msg = "nobody waits for this answer any more"
            raise CancelledError(msg)

    on_step()
    if offer.state != "ready":
        yield {"event": "loading"}
    yield from answers(offer.pair(), question, on_step)
