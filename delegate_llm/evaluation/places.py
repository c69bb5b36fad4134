"""Where takeovers fell: in the name of a tool, in its arguments, or in prose.

Models write a call as `<tool_call>` with a JSON object inside, and what they write may break off or be no
JSON at all. So nothing is parsed as a whole: a place is told from the text before it, which any text has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final, Literal

__all__ = ("PLACES", "Place", "takeover_places")

Place = Literal["name", "arguments", "prose"]
"""`name`: of a tool, up to its closing quote. `arguments`: the rest of the call. `prose`: all else, words of
a plan, a thought or an answer, and the tag that opens a call, which is the choice to call at all."""
PLACES: Final[Mapping[Place, str]] = {"name": "tool name", "arguments": "arguments", "prose": "prose"}
"""All of them, with what they are called in tables and pictures."""

# What is thought counts as prose, calls and all; the prompt may have opened the thought.
_SPANS: Final = re.compile(
    r"\A(?:(?!<think>).)*?</think>|<think>.*?(?:</think>|\Z)|<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL
)

_PIECES: Final = re.compile(r'"(?:[^"\\]|\\.)*"?|.', re.DOTALL)
"""Of JSON: strings, which the end of an answer may cut off, and single characters."""


def takeover_places(decisions: Sequence[Mapping[str, Any]]) -> list[Place]:
    """The place of each takeover of an answer.

    A takeover lies where its token parts from the base's own: a token may end one thing and begin the next.

    Args:
        decisions: All of the answer's, in order, as a record has them with `trace="full"`:
            `message.response_metadata["delegation"]["decisions"]`.

    Returns:
        One place for each takeover, in order.
    """
    places = _places("".join(each["token"] for each in decisions))
    found: list[Place] = []
    start = 0
    for each in decisions:
        if each["takeover"]:
            shared = _shared(each["token"], each["base_token"]) if each["changed"] else 0
            found.append(places[start + shared])
        start += len(each["token"])
    return found


def _shared(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    alike = takewhile(lambda both: both[0] == both[1], zip(one, other, strict=False))
    return sum(1 for _ in alike)


def _places(text: str) -> list[Place]:
    """Where one is before each character of an answer, and at its end."""
    places: list[Place] = ["prose"] * (len(text) + 1)
    for span in _SPANS.finditer(text):
        if span[1] is not None:
            inside = list(_within_call(span[1]))
            closing = [inside[-1]] * (span.end() - span.end(1) - 1)
            places[span.start(1) : span.start(1) + len(inside) + len(closing)] = [*inside, *closing]
    return places


def _within_call(body: str) -> Iterator[Place]:
    """Where one is before each character between the tags, and at the end.

    A member's value belongs to its key. Between members comes the tool's name, unless it is there already.
    """
    call = 2 if body.lstrip().startswith("[") else 1  # how deep a call's members are: a list may hold many
    depth, word, key, named = 0, "", "", False
    place: Place = "name"
    for piece in _PIECES.findall(body):
        yield from [place] * len(piece)
        if piece.startswith('"'):
            word = piece.strip('"')
        elif piece in "{[":
            depth += 1
            named = named and not (piece == "{" and depth == call)
        elif depth == call and piece == ":":
            key = key or word
        elif depth == call and piece in ",}]":
            named, key = named or key == "name", ""
        depth -= piece in "}]"
        place = "name" if key == "name" or not (key or named) else "arguments"
    yield place
