"""Answers of a form that were cut off: an error, where a parser would give half of one or nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableGenerator

__all__ = ("uncut",)


def uncut() -> RunnableGenerator[AIMessage, AIMessage]:
    """Passes messages and their chunks on, and raises `OutputParserException` at one that was cut off."""
    return RunnableGenerator(_passed, _apassed)


def _passed(messages: Iterator[AIMessage]) -> Iterator[AIMessage]:
    for message in messages:
        _check(message)
        yield message


async def _apassed(messages: AsyncIterator[AIMessage]) -> AsyncIterator[AIMessage]:
    async for message in messages:
        _check(message)
        yield message


def _check(message: AIMessage) -> None:
    if message.response_metadata.get("finish_reason") != "length":
        return
    spent = message.usage_metadata["output_tokens"] if message.usage_metadata else "all"
    msg = (
        f"the answer was cut off after {spent} tokens, before its form was complete; allow more max_tokens, "
        "or bound the strings and numbers of the schema (maxLength, maximum)"
    )
    raise OutputParserException(msg, llm_output=message.text)
