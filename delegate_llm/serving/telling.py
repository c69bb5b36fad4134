"""Puts what was decided into an answer of vLLM's: one key more in its JSON, or in chunks of its stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final

from fastapi.responses import StreamingResponse

from delegate_llm.serving.answers import KEY, Record

__all__ = ("tell",)

_DATA: Final = "data: "
_END: Final = f"{_DATA}[DONE]"


def tell(response: Any, record: Record, put: Callable[[bytes], None]) -> Any:
    """Keep the trace of a response, and tell of it in the response if the client wants that.

    Args:
        response: JSON, or a stream of events; it is changed.
        record: What is decided for it, by the time it is written.
        put: Keeps the trace.

    Returns:
        The response.
    """
    if isinstance(response, StreamingResponse):
        response.body_iterator = _chunks(response.body_iterator, record, put)
        return response
    text = record.delegation().model_dump_json()
    put(text.encode())
    if record.told:
        response.body = _with_key(response.body.decode(), text).encode()
        response.headers["content-length"] = str(len(response.body))
    return response


async def _chunks(events: Any, record: Record, put: Callable[[bytes], None]) -> AsyncIterator[Any]:
    async with aclosing(events):
        async for event in events:
            text = event if isinstance(event, str) else bytes(event).decode()
            if text.startswith(_END):
                put(record.delegation().model_dump_json().encode())
            elif record.told and text.startswith(_DATA):
                yield _chunk(text, record)
                continue
            yield event


def _chunk(event: str, record: Record) -> str:
    """An event with the decisions that are new in it, and the whole trace with a choice's last."""
    document = event.removeprefix(_DATA).rstrip()
    said = []
    for choice in json.loads(document).get("choices") or ():
        log = record.logs[choice["index"]]
        news: dict[str, Any] = {"index": choice["index"]}
        if choice.get("finish_reason") is not None:
            news = json.loads(record.choice(choice["index"]).model_dump_json())
        if fresh := log.fresh():
            news["decisions"] = [json.loads(each.model_dump_json()) for each in fresh]
        if len(news) > 1:
            said.append(news)
    if not said:
        return event
    return f"{_DATA}{_with_key(document, json.dumps({'version': 1, 'choices': said}))}\n\n"


def _with_key(document: str, value: str) -> str:
    """A JSON object that is not empty, with one key more."""
    return f'{document.rstrip()[:-1]},"{KEY}":{value}}}'
