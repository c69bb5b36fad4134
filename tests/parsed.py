"""Answers in parts, however they are cut, and pieces of which answers with tags are made."""

from __future__ import annotations

import itertools

from delegate_llm.parsing import AnswerParser, Call, Part, Reasoning, Text

ADD = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
ADDED = Call("add", '{"a": 1, "b": 2}')
PIECES = [
    *(
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        ADD,
        "<",
        "</t",
        "<tool",
        "\n",
        "  ",
        "a",
        "é水 b",
    ),
    *(
        '"',
        "\\",
        "{",
        "}",
        '{"name": "f", "arguments": {"a": "',
        '"}}',
        "[",
        "]",
        "1",
        "\\u00",
        '{"name": "f"}',
    ),
]


def parse(text: str, *cuts: int, thinking: bool = False, formed: bool = False) -> list[Part]:
    """The parts of a text pushed in pieces."""
    parser, parts = AnswerParser(thinking=thinking, formed=formed), []
    for start, end in itertools.pairwise([0, *sorted(cuts), len(text)]):
        parts += parser.push(text[start:end])
    return joined([*parts, *parser.finish()])


def joined(parts: list[Part]) -> list[Part]:
    """The parts with neighbouring pieces made one."""
    whole: list[Part] = []
    for part in parts:
        before = whole[-1] if whole else None
        if isinstance(part, Text | Reasoning) and type(before) is type(part):
            whole[-1] = type(part)(before.text + part.text)
        else:
            whole.append(part)
    return whole
