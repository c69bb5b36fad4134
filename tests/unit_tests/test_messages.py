"""Conversations as chat templates take them."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)

from delegate_llm.errors import PromptError
from delegate_llm.messages import to_chat

ADD = {"name": "add", "args": {"a": 1}, "id": "1", "type": "tool_call"}
CALLED = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


def content_of(message: BaseMessage) -> Any:
    [turn] = to_chat([message])
    return turn["content"]


@pytest.mark.parametrize(
    ("message", "role"),
    [
        (SystemMessage("x"), "system"),
        (SystemMessageChunk(content="x"), "system"),
        (HumanMessage("x"), "user"),
        (HumanMessageChunk(content="x"), "user"),
        (AIMessage("x"), "assistant"),
        (AIMessageChunk(content="x"), "assistant"),
        (ChatMessage(role="system", content="x"), "system"),
        (ChatMessage(role="developer", content="x"), "system"),
        (ChatMessage(role="user", content="x"), "user"),
        (ChatMessage(role="human", content="x"), "user"),
        (ChatMessage(role="assistant", content="x"), "assistant"),
        (ChatMessage(role="ai", content="x"), "assistant"),
        (ChatMessage(role="tool", content="x"), "tool"),
    ],
)
def test_roles(message: BaseMessage, role: str) -> None:
    assert to_chat([message]) == [{"role": role, "content": "x"}]


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([], "there are none"),
        ([ChatMessage(role="narrator", content="x")], r"messages\[0\] .*'narrator' is none of system, user"),
        ([HumanMessage("x"), FunctionMessage(name="f", content="x")], r"messages\[1\].*give .* ToolMessage"),
        ([RemoveMessage(id="1")], r"\(RemoveMessage\): .* give SystemMessage, HumanMessage"),
        (["x"], r"\(str\)"),
        ([HumanMessage("x"), ToolMessage("3", tool_call_id="9")], r"messages\[1\]: .* call '9'"),
        ([ToolMessage("3", tool_call_id="1"), AIMessage("", tool_calls=[ADD])], "call '1'"),
        ([HumanMessage([{"type": "tool_result", "tool_use_id": "9", "content": ""}])], "call '9'"),
    ],
)
def test_what_cannot_be_put_before_a_model(messages: list[BaseMessage], error: str) -> None:
    with pytest.raises(PromptError, match=error):
        to_chat(messages)


def test_leading_system_messages_are_one() -> None:
    chat = to_chat(
        [SystemMessage("a"), SystemMessage(""), SystemMessage(["b"]), HumanMessage("c"), SystemMessage("d")]
    )
    assert [(each["role"], each["content"]) for each in chat] == [
        ("system", "a\n\nb"),
        ("user", "c"),
        ("system", "d"),
    ]
    assert to_chat([SystemMessage("a"), SystemMessage("b")]) == [{"role": "system", "content": "a\n\nb"}]
    assert to_chat([SystemMessage("a", name="n")]) == [{"role": "system", "content": "a", "name": "n"}]


def test_names() -> None:
    assert to_chat([HumanMessage("x", name="Ann")]) == [{"role": "user", "content": "x", "name": "Ann"}]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", ""),
        ([], ""),
        (["a", "b"], "ab"),
        ([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, "b"], "ab"),
        ([{"text": "a"}], "a"),
        ([{"type": "text-plain", "text": "a", "mime_type": "text/plain"}], "a"),
        ("\ud800", "\ud800"),  # the engine's to refuse
    ],
)
def test_text(content: Any, text: str) -> None:
    for kind in (HumanMessage, AIMessage, SystemMessage):
        assert content_of(kind(content)) == text


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image", "base64": "AAAA", "mime_type": "image/png"},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "audio", "url": "https://example.com/a.wav"},
        {"type": "video", "url": "https://example.com/a.mp4"},
        {"type": "file", "file": {"file_id": "1"}},
        {"type": "document", "source": {}},
    ],
)
@pytest.mark.parametrize("kind", [HumanMessage, AIMessage, SystemMessage, ToolMessage])
def test_media_are_refused(kind: type[BaseMessage], block: dict[str, Any]) -> None:
    message = kind(["see", block], tool_call_id="1")
    with pytest.raises(PromptError, match=f"block of type '{block['type']}', and the models read text only"):
        to_chat([AIMessage("", tool_calls=[ADD]), message])


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (HumanMessage([{"type": "non_standard", "value": {}}]), "'non_standard'"),
        (AIMessage([{"type": "non_standard", "value": {}}]), "'non_standard'"),
        (AIMessage([{"type": "tool_result", "content": ""}]), "'tool_result'"),
        (HumanMessage([{"type": "thinking", "thinking": "x"}]), "'thinking'"),
        (HumanMessage([{"type": "text", "text": 3}]), "'text'"),
        (HumanMessage([{"image": {}}]), "None"),
    ],
)
def test_unknown_blocks_are_refused(message: BaseMessage, kind: str) -> None:
    with pytest.raises(PromptError, match=rf"messages\[0\] .*type {kind} has no meaning"):
        to_chat([message])


@pytest.mark.parametrize(
    "message",
    [
        AIMessage("x", additional_kwargs={"reasoning_content": "hm"}),
        AIMessage([{"type": "reasoning", "reasoning": "hm"}, "x"]),
        AIMessage([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}, "x"]),
        AIMessage([{"type": "thinking", "thinking": "h", "signature": "s"},
                   {"type": "redacted_thinking", "data": "AAAA"},
                   {"type": "thinking", "thinking": "m"}, "x"]),
        # Both, as LangChain streams it with output_version="v1": said once.
        AIMessage([{"type": "reasoning", "reasoning": "hm"}, "x"],
                  additional_kwargs={"reasoning_content": "hm"}),
    ],
)  # fmt: skip
def test_reasoning(message: AIMessage) -> None:
    assert to_chat([message]) == [{"role": "assistant", "content": "x", "reasoning_content": "hm"}]


def test_tool_calls_and_their_results() -> None:
    more = {"name": "sub", "args": {}, "id": "2", "type": "tool_call"}
    chat = to_chat(
        [
            AIMessage("Let me see.", tool_calls=[ADD, more]),
            ToolMessage("3", tool_call_id="2"),
            ToolMessageChunk(content="4", tool_call_id="1", name="plus"),
        ]
    )
    called = {"id": "2", "type": "function", "function": {"name": "sub", "arguments": {}}}
    assert chat == [
        {"role": "assistant", "content": "Let me see.", "tool_calls": [CALLED, called]},
        {"role": "tool", "content": "3", "tool_call_id": "2", "name": "sub"},
        {"role": "tool", "content": "4", "tool_call_id": "1", "name": "plus"},
    ]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "tool_use", "id": "1", "name": "add", "input": {"a": 1}},
        {"type": "tool_use", "id": "1", "name": "add", "input": '{"a": 1}'},
        {"type": "tool_call", "id": "1", "name": "add", "args": {"a": 1}},
        {"type": "tool_call_chunk", "id": "1", "name": "add", "args": '{"a": 1}', "index": 3},
        {"type": "server_tool_call", "id": "1", "name": "add", "args": {"a": 1}},
        {"type": "function_call", "id": "fc", "call_id": "1", "name": "add", "arguments": '{"a": 1}'},
    ],
)
def test_calls_among_the_content(block: dict[str, Any]) -> None:
    known = AIMessage(["x", block], tool_calls=[ADD])
    alone = AIMessage(["x", block])
    for message in (known, alone):
        assert to_chat([message]) == [{"role": "assistant", "content": "x", "tool_calls": [CALLED]}]


def test_invalid_calls_stay_so_that_their_results_answer_something() -> None:
    invalid = {
        "name": None,
        "args": '{"a"',
        "id": "1",
        "error": "it is not JSON",
        "type": "invalid_tool_call",
    }
    message = AIMessage([{**invalid, "type": "invalid_tool_call"}], invalid_tool_calls=[invalid])
    assert to_chat([message, ToolMessage("it is not JSON", tool_call_id="1", status="error")]) == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "unknown", "arguments": {}}}],
        },
        {"role": "tool", "content": "it is not JSON", "tool_call_id": "1", "name": "unknown"},
    ]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", ""),
        (["a", {"type": "text", "text": "b"}], "ab"),
        ([{"type": "json", "json": {"a": "水"}}], '{"a": "水"}'),
        ([{"json": [1]}], "[1]"),
        ([{"type": "search_result", "n": 1, "cache_control": {}}], '{"type": "search_result", "n": 1}'),
        ([{"a": {1}}], '{"a": "{1}"}'),
    ],
)
def test_what_tools_return(content: Any, text: str) -> None:
    chat = to_chat([AIMessage("", tool_calls=[ADD]), ToolMessage(content, tool_call_id="1")])
    assert chat[1]["content"] == text


def test_anthropic_results() -> None:
    use = {"type": "tool_use", "id": "1", "name": "add", "input": {"a": 1}}
    result = {
        "type": "tool_result",
        "tool_use_id": "1",
        "content": [{"type": "text", "text": "3"}],
        "is_error": False,
    }
    answer = {"role": "tool", "content": "3", "tool_call_id": "1", "name": "add"}
    before = AIMessage([use])
    assert to_chat([before, HumanMessage(["Then ", result, "what?"])])[1:] == [
        answer,
        {"role": "user", "content": "Then what?"},
    ]
    assert to_chat([before, HumanMessage([{**result, "content": "3"}])])[1:] == [answer]
    assert to_chat([before, HumanMessage([{"type": "tool_result", "tool_use_id": "1"}])])[1]["content"] == ""
    for content, told in (([1, "a", None], "1anull"), ({"b": 2}, '{"b": 2}'), (3, "3")):
        block = {"type": "tool_result", "tool_use_id": "1", "content": content}
        assert to_chat([before, HumanMessage([block])])[1]["content"] == told


def test_messages_are_left_as_they_are() -> None:
    message = AIMessage(["x"], tool_calls=[ADD])
    before = message.model_copy(deep=True)
    [turn] = to_chat([message])
    turn["tool_calls"][0]["function"]["arguments"]["a"] = 2
    assert message == before


def test_calls_as_openai_gives_them() -> None:
    given = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    message = AIMessage("", additional_kwargs={"tool_calls": [given]})
    assert to_chat([message]) == [{"role": "assistant", "content": "", "tool_calls": [CALLED]}]
