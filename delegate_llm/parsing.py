"""What a model wrote, taken apart while it comes: text, reasoning, tool calls.

Qwen, Hermes and their kin write reasoning as `<think>...</think>` and a call as
`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`. `AnswerParser` reads that from pieces cut
anywhere, and `part_chunk` puts each part into the form that LangChain can add up, however it streams.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, cast

from langchain_core.messages import AIMessage, AIMessageChunk, message_chunk_to_message
from langchain_core.messages.tool import tool_call_chunk

__all__ = (
    "AnswerParser",
    "BrokenCall",
    "Call",
    "Part",
    "Reasoning",
    "Text",
    "answer_message",
    "new_call_id",
    "part_chunk",
)


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer proper; pieces in a row belong together."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of what stood in `<think>`; pieces in a row belong together."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that can be run."""

    name: str
    arguments: str
    """JSON text of an object."""


@dataclass(frozen=True, slots=True)
class BrokenCall:
    """A tool call that cannot be run."""

    name: str | None
    """The tool, if that much can be read."""
    arguments: str
    """What stood between the tags, the whitespace around it stripped."""
    error: str
    """What is wrong with it."""


Part = Text | Reasoning | Call | BrokenCall

_SPACE = " \t\r\n"
_CLOSE_CALL = "</tool_call>"
_TAGS = {
    "text": ("<think>", "</think>", "<tool_call>", _CLOSE_CALL),
    # A call that is only thought about is a thought.
    "think": ("<think>", "</think>"),
}
_TAG = {mode: re.compile("|".join(tags)) for mode, tags in _TAGS.items()}


class AnswerParser:
    """Takes one growing answer apart.

    The parts do not depend on where the text was cut, except that a text or a reasoning may come in more
    pieces. What may be the start of a tag, or whitespace that may not belong to the answer, is held back
    until what follows settles it.

    A call ends at the first `</tool_call>` that does not stand in a JSON string. If what is before that is
    not JSON, the quotes cannot be trusted either, and it ends at the first `</tool_call>` of all.

    Not content: whitespace around reasoning, before a call, and between calls. Tags that close nothing are
    dropped, and so is a tag that the end of the answer cuts off.
    """

    def __init__(self, *, thinking: bool = False, spaced: bool = False, formed: bool = False) -> None:
        """Start an empty answer.

        Args:
            thinking: Whether the prompt already opened `<think>`.
            spaced: Whether whitespace at the start is no content, as behind "Assistant:".
            formed: Whether a grammar gives the answer its form: a tag behind other text is text of it then,
                as in a string of JSON.
        """
        self._formed = formed
        self._mode: Literal["text", "think", "call"] = "think" if thinking else "text"
        self._rest = ""  # not settled yet; in a call, its body so far
        self._seen = 0  # before this no `</tool_call>` ends the open call
        self._quoted = 0  # where in it the last `</tool_call>` is that stands in a string
        self._space = ""  # whitespace of which what follows decides whether it is content
        self._last: Literal["nothing", "text", "think", "call"] = "think" if spaced else "nothing"
        self._wrote = False  # whether there was any text yet

    def push(self, text: str) -> list[Part]:
        """Add some text, cut anywhere; returns what it settles."""
        self._rest += text
        return list(self._parts())

    def finish(self) -> list[Part]:
        """End the answer; returns what was held back."""
        parts = list(self._parts())
        while self._mode == "call":
            parts += self._cut_off()
            parts += self._parts()
        if self._rest == "<":  # one character may be meant; more was the start of a tag
            parts += self._words("<")
        elif self._rest:
            self._space = ""
        if self._space and self._mode == "text" and self._last in {"nothing", "text"}:
            parts.append(Text(self._space))
        self._rest = self._space = ""
        return parts

    def _parts(self) -> Iterator[Part]:
        while True:
            if self._mode == "call":
                end = self._end_of_call()
                if end is None:
                    return
                yield from self._close_call(end)
            elif found := self._next_tag():
                yield from self._words(self._rest[: found.start()])
                self._rest = self._rest[found.end() :]
                yield from self._tag(found[0])
            else:
                settled = len(self._rest) - _half_open(self._rest, _TAGS[self._mode])
                if self._is_words(self._rest[:settled]):
                    settled = len(self._rest)
                piece, self._rest = self._rest[:settled], self._rest[settled:]
                yield from self._words(piece)
                return

    def _next_tag(self) -> re.Match[str] | None:
        found = _TAG[self._mode].search(self._rest)
        return None if found and self._is_words(self._rest[: found.start()]) else found

    def _is_words(self, before: str) -> bool:
        """Whether what stands behind some unsettled text is text, whatever it looks like."""
        return self._formed and self._mode == "text" and bool(self._wrote or before.strip(_SPACE))

    def _words(self, piece: str) -> Iterator[Part]:
        """Text or reasoning, with the whitespace before it and without the whitespace after it."""
        words = piece.rstrip(_SPACE)
        if not words:
            self._space += piece
            return
        whole = self._space + words
        self._space = piece[len(words) :]
        if self._mode == "think":
            yield Reasoning(whole if self._last == "think" else whole.lstrip("\r\n"))
        elif self._last == "think" or (self._last == "call" and not self._wrote):
            yield Text(whole.lstrip(_SPACE))
        else:
            yield Text(whole)
        self._wrote |= self._mode == "text"
        self._last = self._mode

    def _tag(self, tag: str) -> Iterator[Part]:
        if tag == "<tool_call>":
            self._mode, self._space, self._seen, self._quoted = "call", "", 0, 0
        elif tag == "<think>" and self._mode == "text":
            if self._space and self._last == "text":
                yield Text(self._space)  # the text may go on behind the reasoning
            self._mode, self._last, self._space = "think", "nothing", ""
        elif tag == "</think>" and self._mode == "think":
            self._mode, self._last, self._space = "text", "think", ""

    def _end_of_call(self) -> int | None:
        """Where the body of the open call ends; None while that is not settled."""
        while (at := self._rest.find(_CLOSE_CALL, self._seen)) >= 0:
            # A quote stands for what was read before, lest it be read again at each tag.
            body = '"' + self._rest[self._quoted : at] if self._quoted else self._rest[:at]
            if not _ends_in_string(body):
                return at if _is_json(self._rest[:at]) else self._rest.find(_CLOSE_CALL)
            self._seen, self._quoted = at + len(_CLOSE_CALL), at
        self._seen = max(self._seen, len(self._rest) - len(_CLOSE_CALL) + 1)
        return None

    def _close_call(self, end: int) -> list[Part]:
        body, self._rest = self._rest[:end], self._rest[end + len(_CLOSE_CALL) :]
        self._mode, self._last = "text", "call"
        return _calls(body)

    def _cut_off(self) -> list[Part]:
        """The open call, at the end of the answer."""
        tail = _half_open(self._rest, (_CLOSE_CALL,))
        body = self._rest[: len(self._rest) - tail]
        first = self._rest.find(_CLOSE_CALL)
        if first >= 0 and not _is_json(body):
            return self._close_call(first)
        body = body if tail != 1 or _is_json(body) else self._rest
        self._mode, self._last, self._rest = "text", "call", ""
        if _is_json(body):
            return _calls(body)
        error = f"it was cut off: the answer ended before {_CLOSE_CALL}"
        return [BrokenCall(_name(body), body.strip(_SPACE), error)]


def _half_open(text: str, tags: tuple[str, ...]) -> int:
    """How many characters at the end may be the start of a tag."""
    at = text.rfind("<")  # no tag has a second one
    return len(text) - at if at >= 0 and any(tag.startswith(text[at:]) for tag in tags) else 0


_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_OPEN_STRING = re.compile(r'[^"\\]*"(?:[^"\\\x00-\x1f]|\\.)*\Z')
_NAME = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\\x00-\x1f]+)"')
# Far from where LangChain's own recursions over the arguments would fail.
_DEEPEST = 100


def _ends_in_string(body: str) -> bool:
    """Whether a body that may still become JSON stops inside a string."""
    return bool(_OPEN_STRING.match(_STRING.sub("", body)))


def _is_json(body: str) -> bool:
    try:
        _loads(body)
    except ValueError:
        return False
    return True


def _loads(body: str) -> Any:
    """Strict JSON, not too deep; raises `ValueError`."""
    try:
        value = json.loads(body, parse_constant=_not_finite, parse_float=_finite)
        deep = _deeper(value, _DEEPEST)
    except RecursionError:
        deep = True
    if deep:
        msg = f"it is nested deeper than {_DEEPEST} levels"
        raise ValueError(msg)
    return value


def _finite(text: str) -> float:
    return number if math.isfinite(number := float(text)) else _not_finite(text)


def _not_finite(text: str) -> NoReturn:
    msg = f"{text} is not a finite number"
    raise ValueError(msg)


def _deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper(each, levels - 1) for each in inside)


def _calls(body: str) -> list[Part]:
    """The calls in one pair of tags, in order."""
    body = body.strip(_SPACE)
    try:
        value = _loads(body)
    except ValueError as error:
        return [BrokenCall(_name(body), body, f"it cannot be read as JSON: {error}")]
    if value == []:
        return [BrokenCall(None, body, "the list of calls is empty")]
    return [_call(each, body) for each in (value if isinstance(value, list) else [value])]


def _name(body: str) -> str | None:
    """The tool that a body names that is not JSON."""
    found = _NAME.match(body)
    return found[1] if found else None


def _call(value: Any, body: str) -> Part:
    name = None
    try:
        name = _tool(value)
        return Call(name, _arguments(value))
    except ValueError as error:
        return BrokenCall(name, body, str(error))


def _tool(value: Any) -> str:
    if not isinstance(value, dict):
        msg = f"it must be an object with 'name' and 'arguments', not {_kind(value)}"
        raise ValueError(msg)  # noqa: TRY004 - the model's mistake, not a caller's
    name = value.get("name")
    if not isinstance(name, str) or not name:
        msg = f"'name' must be the name of a tool, not {name!r:.40}"
        raise ValueError(msg)
    return _whole(name)


def _arguments(value: dict[str, Any]) -> str:
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = _loads(arguments)
        except ValueError as error:
            msg = f"'arguments' is a string that cannot be read as JSON: {error}"
            raise ValueError(msg) from None
    if not isinstance(arguments, dict):
        msg = f"'arguments' must be an object, not {_kind(arguments)}"
        raise ValueError(msg)  # noqa: TRY004 - the model's mistake, not a caller's
    return _whole(json.dumps(arguments, ensure_ascii=False))


def _whole(text: str) -> str:
    """The text, which JSON's escapes may have given half a character, that nothing could send on."""
    text.encode()  # its error is a `ValueError`
    return text


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


# LangChain tells calls in a stream from each other by this index, numbers text and reasoning blocks from 0
# by itself (`output_version="v1"`), and merges what has the same index: stay clear of it.
_FIRST_INDEX = 1_000_000
# LangChain repairs the JSON of a call that it adds up from chunks, so a broken call would come out as one to
# be run. It gives up, at once, where a bracket closes that was never opened.
_UNREPAIRABLE = "]"
_ERRORS = "tool_call_errors"


def new_call_id() -> str:
    """A name for a call that no other has."""
    return f"call_{uuid.uuid4().hex[:24]}"


def part_chunk(part: Part, number: int, *, new_id: Callable[[], str] = new_call_id) -> AIMessageChunk:
    """The chunk of a message for one part of an answer.

    The chunks of an answer may be added up with `+`, streamed with `output_version` "v0" or "v1", or sent
    through the v3 protocol: calls come out as `tool_calls`, broken ones as `invalid_tool_calls`. Chunks
    have no place for the error of a broken call; it is in `additional_kwargs["tool_call_errors"]` under the
    call's id, and the call's `args` begin with a stray "]", which keeps LangChain from repairing them.
    `answer_message` puts both right.

    Args:
        part: The part.
        number: How many calls, broken ones included, came before it in this answer.
        new_id: Names a call.
    """
    if isinstance(part, Text):
        return AIMessageChunk(content=part.text)
    if isinstance(part, Reasoning):
        return AIMessageChunk(content="", additional_kwargs={"reasoning_content": part.text})
    call_id, broken = new_id(), isinstance(part, BrokenCall)
    chunk = tool_call_chunk(
        name=part.name,
        args=_UNREPAIRABLE + part.arguments if broken else part.arguments,
        id=call_id,
        index=_FIRST_INDEX + number,
    )
    errors = {_ERRORS: {call_id: part.error}} if isinstance(part, BrokenCall) else {}
    return AIMessageChunk(content="", tool_call_chunks=[chunk], additional_kwargs=errors)


def answer_message(merged: AIMessageChunk) -> AIMessage:
    """The message that the chunks of a whole answer add up to, its broken calls with their errors."""
    message = cast("AIMessage", message_chunk_to_message(merged))
    errors = message.additional_kwargs.get(_ERRORS, {})
    for call in message.invalid_tool_calls:
        if call["id"] in errors:
            call["args"] = (call["args"] or "").removeprefix(_UNREPAIRABLE)
            call["error"] = errors[call["id"]]
    return message
