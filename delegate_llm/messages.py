"""LangChain messages as the dicts that chat templates render.

LangChain's messages carry content of many providers in many shapes; a template of Hugging Face knows roles,
text, tool calls and, if it is one of a reasoner, reasoning. What the models cannot read (pictures, sound,
files) is refused, never left out in silence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from delegate_llm.errors import PromptError

__all__ = ("to_chat",)

_ROLES = {SystemMessage: "system", HumanMessage: "user", AIMessage: "assistant", ToolMessage: "tool"}
_SPOKEN_ROLES = {
    **{role: role for role in _ROLES.values()},
    "developer": "system",
    "human": "user",
    "ai": "assistant",
}
_CALLS = {
    *("tool_use", "tool_call", "tool_call_chunk", "function_call"),
    *("server_tool_use", "server_tool_call", "server_tool_call_chunk"),
}
_REASONING = {"reasoning", "thinking"}
# Without meaning for another model: encrypted, or said again in a field of the message.
_SKIPPED = {"redacted_thinking", "invalid_tool_call"}
_MEDIA = {
    *("image", "image_url", "input_image", "audio", "input_audio", "video", "video_url"),
    *("file", "input_file", "document", "media"),
}


def to_chat(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """LangChain messages as chat templates take them.

    The keys of a dict are `role` and `content` (always text), and where there is something to tell `name`,
    `tool_calls`, `reasoning_content` and `tool_call_id`. Some things are put into other words:

    - The text parts of one message are joined without anything between them, as providers do.
    - System messages at the start become one, with blank lines between; later ones stay where they are.
    - Call blocks that `AIMessage.tool_calls` does not know become calls; `thinking` and `reasoning` blocks
      of an `AIMessage` become its `reasoning_content`.
    - `tool_result` blocks of a `HumanMessage` become messages of the role `tool`, before what else it says.
    - A call in `AIMessage.invalid_tool_calls` stays in the history as one with no arguments, so that the
      `ToolMessage` that says what was wrong answers something.
    - What a tool returned that is neither text nor media is told as JSON.

    Args:
        messages: The conversation; chunks of messages will do.

    Raises:
        PromptError: If there is no message, one is of a type or has content that the models cannot read, or
            a tool's result answers no call made before.
    """
    if not messages:
        msg = "messages: there are none; give at least one, such as HumanMessage('...')"
        raise PromptError(msg)
    chat: list[dict[str, Any]] = []
    calls: dict[str, str] = {}
    for position, message in enumerate(messages):
        for turn in _turns(message, f"messages[{position}] ({type(message).__name__})"):
            _link(turn, calls, f"messages[{position}]")
            chat.append(turn)
    return _one_system(chat)


@dataclass
class _Content:
    """What one message says."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)


def _turns(message: BaseMessage, where: str) -> list[dict[str, Any]]:
    """The dicts that one message becomes: one, or more if a user passes on results of tools."""
    role = _role(message, where)
    content = _Content()
    for block in [message.content] if isinstance(message.content, str) else message.content:
        _read(content, block, role, where)
    turn: dict[str, Any] = {"role": role, "content": "".join(content.text)}
    if message.name is not None:
        turn["name"] = message.name
    if isinstance(message, ToolMessage):
        turn["tool_call_id"] = message.tool_call_id
    if role == "assistant":
        turn |= _said_besides(message, content)
    return content.results if content.results and not turn["content"] else [*content.results, turn]


def _role(message: BaseMessage, where: str) -> str:
    if isinstance(message, ChatMessage):
        if message.role in _SPOKEN_ROLES:
            return _SPOKEN_ROLES[message.role]
        msg = f"{where}: the role {message.role!r} is none of {', '.join(_SPOKEN_ROLES)}"
        raise PromptError(msg)
    for kind, role in _ROLES.items():
        if isinstance(message, kind):
            return role
    advice = "give the result of a tool as ToolMessage(..., tool_call_id=...)"
    if not isinstance(message, FunctionMessage):
        advice = f"give {', '.join(kind.__name__ for kind in _ROLES)} or ChatMessage"
    msg = f"{where}: messages of this type cannot be put before a model; {advice}"
    raise PromptError(msg)


def _read(content: _Content, block: Any, role: str, where: str) -> None:
    """Add one block of a message."""
    if isinstance(block, str):
        content.text.append(block)
        return
    kind = block.get("type")
    if kind in _MEDIA:
        msg = (
            f"{where}: there is a block of type {kind!r}, and the models read text only; "
            "leave it out, or put what it shows into words"
        )
        raise PromptError(msg)
    if kind in {None, "text", "text-plain"} and isinstance(block.get("text"), str):
        content.text.append(block["text"])
    elif role == "assistant" and kind in _CALLS | _REASONING | _SKIPPED:
        _read_of_assistant(content, block)
    elif role == "user" and kind == "tool_result":
        content.results.append(_result(block, where))
    elif role == "tool":
        value = {key: each for key, each in block.items() if key != "cache_control"}
        if kind in {None, "json"} and "json" in block:
            value = block["json"]
        content.text.append(json.dumps(value, ensure_ascii=False, default=str))
    else:
        msg = (
            f"{where}: a block of type {kind!r} has no meaning in a message of the role {role!r}; "
            "give its content as text"
        )
        raise PromptError(msg)


def _read_of_assistant(content: _Content, block: Mapping[str, Any]) -> None:
    kind = block["type"]
    if kind in _CALLS:
        # Anthropic's name, OpenAI's name, LangChain's name.
        arguments = block.get("input", block.get("arguments", block.get("args")))
        call_id = block.get("call_id", block.get("id"))
        content.calls.append(_call(call_id, block.get("name"), arguments))
    elif kind in _REASONING:
        text = block.get(kind)
        if not isinstance(text, str):  # as OpenAI gives it
            said = [each for each in block.get("summary") or () if isinstance(each, Mapping)]
            text = "\n\n".join(each.get("text", "") for each in said)
        content.reasoning.append(text)


def _call(call_id: Any, name: Any, arguments: Any) -> dict[str, Any]:
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = {}
    function = {
        "name": name if isinstance(name, str) and name else "unknown",
        "arguments": dict(arguments) if isinstance(arguments, Mapping) else {},
    }
    return {"id": call_id, "type": "function", "function": function}


def _result(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Anthropic's way to give the result of a tool."""
    inside, content = _Content(), block.get("content") or ""
    for each in content if isinstance(content, list) else [content]:
        _read(inside, each if isinstance(each, str | Mapping) else {"json": each}, "tool", where)
    return {"role": "tool", "content": "".join(inside.text), "tool_call_id": block.get("tool_use_id")}


def _said_besides(message: BaseMessage, content: _Content) -> dict[str, Any]:
    """Reasoning and calls of an assistant."""
    calls = [_call(each["id"], each["name"], each["args"]) for each in getattr(message, "tool_calls", ())]
    calls += [_call(each["id"], each["name"], {}) for each in getattr(message, "invalid_tool_calls", ())]
    # A block without an id cannot be told from a call of the fields, which are complete if there are any.
    known = {each["id"] for each in calls} | ({None} if calls else set())
    calls += [each for each in content.calls if each["id"] not in known]
    reasoning = "".join(content.reasoning) or message.additional_kwargs.get("reasoning_content")
    besides: dict[str, Any] = {}
    if isinstance(reasoning, str) and reasoning:
        besides["reasoning_content"] = reasoning
    if calls:
        besides["tool_calls"] = calls
    return besides


def _link(turn: dict[str, Any], calls: dict[str, str], where: str) -> None:
    """Note the calls of a message, or find the call that a result answers."""
    calls.update({each["id"]: each["function"]["name"] for each in turn.get("tool_calls", ())})
    if "tool_call_id" not in turn:
        return
    call_id = turn["tool_call_id"]
    if call_id not in calls:
        msg = (
            f"{where}: a tool's result answers the call {call_id!r}, which no message before it makes; "
            "keep the AIMessage with the call in the conversation, or leave out the result too"
        )
        raise PromptError(msg)
    turn.setdefault("name", calls[call_id])


def _one_system(chat: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation with its leading system messages made one, as many templates demand."""
    first = next((at for at, turn in enumerate(chat) if turn["role"] != "system"), len(chat))
    if first < 2:  # noqa: PLR2004 - nothing to merge
        return chat
    text = "\n\n".join(turn["content"] for turn in chat[:first] if turn["content"])
    return [{"role": "system", "content": text}, *chat[first:]]
