"""The parts of an answer as messages: the same message however it is streamed."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core._api import LangChainBetaWarning
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from parsed import ADD, PIECES, parse

from delegate_llm.messages import to_chat
from delegate_llm.parsing import (
    AnswerParser,
    BrokenCall,
    Call,
    Text,
    answer_message,
    new_call_id,
    part_chunk,
)


class Writer(BaseChatModel):
    """Streams the chunks of a given text, a few characters at a time."""

    text: str

    @property
    def _llm_type(self) -> str:
        return "writer"

    def _generate(self, *_, **__) -> ChatResult:
        raise NotImplementedError

    def _stream(self, *_, **__) -> Iterator[ChatGenerationChunk]:
        for chunk in chunks(self.text):
            yield ChatGenerationChunk(message=chunk)
        end = AIMessageChunk(content="", chunk_position="last", response_metadata={"model_name": "writer"})
        yield ChatGenerationChunk(message=end)


def chunks(text: str, *, step: int = 5, new_id: Callable[[], str] = new_call_id) -> list[AIMessageChunk]:
    parser, made, number = AnswerParser(), [], 0
    pieces = [parser.push(text[at : at + step]) for at in range(0, len(text), step)]
    for part in itertools.chain(*pieces, parser.finish()):
        made.append(part_chunk(part, number, new_id=new_id))
        number += isinstance(part, Call | BrokenCall)
    return made


def by_chunks(text: str, version: str | None) -> AIMessage:
    """`_generate`, as the chat model will do it."""
    del version
    made = [*chunks(text), AIMessageChunk(content="", chunk_position="last")]
    return answer_message(made[0] + made[1:])


def by_chunks_without_end(text: str, version: str | None) -> AIMessage:
    del version
    first, *rest = chunks(text)
    for each in rest:
        first += each
    return answer_message(first)


def by_stream(text: str, version: str | None) -> AIMessage:
    first, *rest = Writer(text=text, output_version=version).stream("go")
    for each in rest:
        first += each
    return answer_message(first)


def by_astream(text: str, version: str | None) -> AIMessage:
    async def run() -> list[AIMessageChunk]:
        return [each async for each in Writer(text=text, output_version=version).astream("go")]

    first, *rest = asyncio.run(run())
    return answer_message(first + rest)


def by_invoke(text: str, version: str | None) -> AIMessage:
    return Writer(text=text, output_version=version).invoke("go", stream=True)


def by_events(text: str, version: str | None) -> AIMessage:
    return Writer(text=text, output_version=version).stream_events("go", version="v3").output


def by_aevents(text: str, version: str | None) -> AIMessage:
    async def run() -> AIMessage:
        return await (await Writer(text=text, output_version=version).astream_events("go", version="v3"))

    return asyncio.run(run())


ROUTES = [by_chunks, by_chunks_without_end, by_stream, by_astream, by_invoke, by_events, by_aevents]
BROKEN = '<tool_call>{"name": "add", "arguments": {"a": 1</tool_call>'
THOUGHT = "<think>\nadd them, I think\n</think>\n\n"
CALL_KINDS = {"tool_call", "invalid_tool_call", "tool_call_chunk"}


@pytest.mark.filterwarnings(f"ignore::{LangChainBetaWarning.__module__}.{LangChainBetaWarning.__qualname__}")
@pytest.mark.parametrize("version", [None, "v0", "v1"])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("text", "said", "thought", "calls", "broken"),
    [
        ("Three, surely.", "Three, surely.", "", 0, 0),
        (f"{THOUGHT}Three, surely.", "Three, surely.", "add them, I think", 0, 0),
        (ADD, "", "", 1, 0),
        (f"Let me see.\n{ADD}", "Let me see.", "", 1, 0),
        (f"{THOUGHT}{ADD}", "", "add them, I think", 1, 0),
        (f"{THOUGHT}Let me see.\n{ADD}\n{ADD}", "Let me see.", "add them, I think", 2, 0),
        (f"Let me see.\n{ADD}\n{ADD}\nSo.\n{ADD}", "Let me see.\nSo.", "", 3, 0),
        (BROKEN, "", "", 0, 1),
        (f"{THOUGHT}Let me see.\n{BROKEN}\n{ADD}\n{BROKEN}", "Let me see.", "add them, I think", 1, 2),
        ("<tool_call></tool_call>", "", "", 0, 1),
        ('<tool_call>{"name": 3}</tool_call>', "", "", 0, 1),
        ('<tool_call>{"name": "f", "arguments": {"a": ' + "9" * 5000 + "}}</tool_call>", "", "", 0, 1),
    ],
)
def test_every_route_gives_the_same_message(
    *,
    route: Callable[[str, str | None], AIMessage],
    version: str | None,
    text: str,
    said: str,
    thought: str,
    calls: int,
    broken: int,
) -> None:
    message = route(text, version)
    assert type(message) is AIMessage
    assert message.text == said
    assert [(each["name"], each["args"]) for each in message.tool_calls] == [
        ("add", {"a": 1, "b": 2})
    ] * calls
    assert len(message.invalid_tool_calls) == broken
    ids = [each["id"] for each in [*message.tool_calls, *message.invalid_tool_calls]]
    assert len(set(ids)) == calls + broken
    blocks = message.content_blocks
    assert "".join(each["reasoning"] for each in blocks if each["type"] == "reasoning") == thought
    assert "".join(each["text"] for each in blocks if each["type"] == "text") == said
    assert [each["args"] for each in blocks if each["type"] == "tool_call"] == [{"a": 1, "b": 2}] * calls
    kinds = [each["type"] for each in blocks]
    if text.count("So.") == 0:
        order = ["reasoning"] * bool(thought) + ["text"] * bool(said)
        assert kinds[: len(order)] == order
        assert set(kinds[len(order) :]) <= CALL_KINDS
    # And the message goes back to the model as it came.
    [turn] = to_chat([message])
    assert turn["content"] == said
    assert turn.get("reasoning_content", "") == thought
    assert sorted(each["id"] for each in turn.get("tool_calls", [])) == sorted(ids)


@pytest.mark.filterwarnings(f"ignore::{LangChainBetaWarning.__module__}.{LangChainBetaWarning.__qualname__}")
@pytest.mark.parametrize("route", ROUTES)
def test_every_route_tells_what_is_wrong(route: Callable[[str, str | None], AIMessage]) -> None:
    [call] = route(BROKEN, None).invalid_tool_calls
    errors = route(BROKEN, None).additional_kwargs["tool_call_errors"]
    [error] = errors.values()
    assert "cannot be read as JSON" in error
    if route not in {by_invoke, by_events, by_aevents}:  # LangChain's own assembly
        assert call["args"] == '{"name": "add", "arguments": {"a": 1'
        assert call["error"] == error
    else:
        assert call["args"] == ']{"name": "add", "arguments": {"a": 1'


def test_without_the_mark_langchain_would_run_a_broken_call() -> None:
    """The reason for the stray bracket; when this fails, it may go."""
    made = AIMessageChunk(
        content="", tool_call_chunks=[{"name": "f", "args": '{"a": 1', "id": "1", "index": 0}]
    )
    assert made.tool_calls


def test_names_of_calls() -> None:
    names = iter(["one", "two"])
    made = chunks(f"{ADD}{BROKEN}", new_id=lambda: next(names))
    message = answer_message(made[0] + made[1])
    assert [each["id"] for each in [*message.tool_calls, *message.invalid_tool_calls]] == ["one", "two"]
    made_up = {new_call_id() for _ in range(100)}
    assert len(made_up) == 100
    assert all(each.startswith("call_") and int(each[5:], 16) and len(each) == 29 for each in made_up)


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_no_answer_breaks_the_assembly(text: str) -> None:
    made = [*chunks(text, step=7), AIMessageChunk(content="", chunk_position="last")]
    parts = parse(text)
    for message in (answer_message(made[0] + made[1:]), answer_message(AIMessageChunk(content="") + made)):
        good = [each for each in parts if isinstance(each, Call)]
        assert [(each["name"], each["args"]) for each in message.tool_calls] == [
            (each.name, json.loads(each.arguments)) for each in good
        ]
        broken = [each for each in parts if isinstance(each, BrokenCall)]
        assert [(each["name"], each["args"], each["error"]) for each in message.invalid_tool_calls] == [
            (each.name, each.arguments, each.error) for each in broken
        ]
        assert message.content == "".join(each.text for each in parts if isinstance(each, Text))
