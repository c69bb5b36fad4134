"""Conversations made to fit a chat template that cannot show all of it.

Two kinds of templates need that: those that know no tools, where tools, calls and results become text in
the form of Hermes and Qwen, the commonest there is; and strict ones, which raise where roles do not
alternate, where there is a system message, or at a call's id. Everything here is a pure function of
role/content messages; what it is given is never changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from delegate_llm.errors import PromptError

__all__ = ("alternating", "calls_as_text", "has_calls", "tools_as_text", "with_short_ids")

Message = dict[str, Any]
Messages = Sequence[Mapping[str, Any]]

_TOOLS: Final = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


# --- Templates without tools ---


def has_calls(messages: Messages) -> bool:
    """Whether a tool was called, or answered."""
    return any(each.get("tool_calls") or each["role"] == "tool" for each in messages)


def tools_as_text(messages: Messages, tools: Messages) -> list[Message]:
    """The tools as a system message, in front of what the system message says already."""
    text = _TOOLS.format(tools="\n".join(_json("tools", each) for each in tools))
    system = {"role": "system", "content": text}
    if messages and messages[0]["role"] == "system":
        return [_joined(system, messages[0]), *map(dict, messages[1:])]
    return [system, *map(dict, messages)]


def calls_as_text(messages: Messages) -> list[Message]:
    """Calls as text of the assistant, results as text of the user: results in a row are one message."""
    told: list[Message] = []
    answering = False
    for each in messages:
        if each["role"] != "tool":
            told.append(_spelled(each))
            answering = False
            continue
        result = f"<tool_response>\n{_text(each)}\n</tool_response>"
        if answering:
            told[-1]["content"] += f"\n{result}"
        else:
            told.append({"role": "user", "content": result})
        answering = True
    return told


def _spelled(message: Mapping[str, Any]) -> Message:
    """A message with its calls in its content."""
    calls = list(map(_call, _calls(message)))
    spelled = {key: value for key, value in message.items() if key != "tool_calls"}
    if calls:
        spelled["content"] = "\n".join(filter(None, [_text(message), *calls]))
    return spelled


def _calls(message: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The calls of a message, if they have the form of calls."""
    calls = message.get("tool_calls") or ()
    for each in calls if isinstance(calls, list | tuple) else (None,):
        if not isinstance(each, Mapping) or not isinstance(each.get("function") or each, Mapping):
            msg = (
                f"prompt: tool_calls: {calls!r:.80} is no list of calls such as "
                "{'function': {'name': ..., 'arguments': {...}}}"
            )
            raise PromptError(msg)
    return calls


def _call(call: Mapping[str, Any]) -> str:
    function = call.get("function") or call
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError, RecursionError):  # no JSON is shown as the model wrote it
            arguments = json.loads(arguments)
    written = _json("tool_calls", {"name": function.get("name"), "arguments": arguments})
    return f"<tool_call>\n{written}\n</tool_call>"


def _json(what: str, value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        msg = f"prompt: {what} cannot be written as JSON: {error}"
        raise PromptError(msg) from None
    except RecursionError:
        msg = f"prompt: {what} are nested too deeply to be written as JSON; make them flatter"
        raise PromptError(msg) from None


# --- Strict templates ---


def alternating(messages: Messages, *, system: bool = True) -> list[Message]:
    """Messages in a row that have one role become one, with a blank line between; tool results stay apart.

    Args:
        messages: The conversation.
        system: Whether a system message at the start may stay one. All others become the user's.
    """
    turns: list[Message] = []
    for each in _without_system(messages, keep_first=system):
        if turns and turns[-1]["role"] == each["role"] != "tool":
            turns[-1] = _joined(turns[-1], each)
        else:
            turns.append(dict(each))
    return turns


def with_short_ids(messages: Messages) -> list[Message]:
    """Ids of calls in nine letters and digits, the only ones that Mistral's templates take."""
    return [_shortened(each) for each in messages]


def _shortened(message: Mapping[str, Any]) -> Message:
    short = dict(message)
    if "tool_call_id" in short:
        short["tool_call_id"] = _short(short["tool_call_id"])
    if short.get("tool_calls"):
        short["tool_calls"] = [{**each, "id": _short(each.get("id"))} for each in short["tool_calls"]]
    return short


def _short(given: object) -> str:
    text, length = str(given), 9
    if len(text) == length and text.isalnum():
        return text
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _without_system(messages: Messages, *, keep_first: bool) -> list[Message]:
    """System messages as the user's: all of them, or those behind the start."""
    turns: list[Message] = []
    for each in map(dict, messages):
        if each["role"] != "system":
            keep_first = False
            turns.append(each)
        elif keep_first:
            turns.append(each)
        else:
            _ask(turns, {**each, "role": "user"})
    return turns


def _ask(turns: list[Message], message: Message) -> None:
    """Add a user message; behind a result, where the assistant has to speak, to the question before it."""
    asked = [at for at, each in enumerate(turns) if each["role"] == "user"]
    if asked and turns[-1]["role"] == "tool":
        turns[asked[-1]] = _joined(turns[asked[-1]], message)
    else:
        turns.append(message)


# --- Messages ---


def _joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> Message:
    """Two messages of one role as one."""
    joined = {**first, **second, "content": _paragraphs(_text(first), _text(second))}
    if first.get("reasoning_content") and second.get("reasoning_content"):
        joined["reasoning_content"] = _paragraphs(first["reasoning_content"], second["reasoning_content"])
    if calls := [*(first.get("tool_calls") or ()), *(second.get("tool_calls") or ())]:
        joined["tool_calls"] = calls
    return joined


def _paragraphs(*texts: str) -> str:
    return "\n\n".join(filter(None, texts))


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        msg = (
            f"prompt: the content of a {message['role']!r} message is {type(content).__name__}, not text; "
            "this chat template needs text"
        )
        raise PromptError(msg)
    return content or ""
