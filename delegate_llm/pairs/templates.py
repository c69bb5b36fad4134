"""Chat templates: what one can show, and conversations rendered within that.

Templates are programs that come with a model. None says what it supports, but whether its source ever
looks at `tools` or `tool_calls` tells whether it can show them, and a strict one raises.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from delegate_llm.errors import PromptError
from delegate_llm.pairs.conversation import (
    Message,
    Messages,
    alternating,
    calls_as_text,
    has_calls,
    tools_as_text,
    with_short_ids,
)

__all__ = ("answer_stops", "is_thinking", "reads_calls", "reads_tools", "write_chat")


_remembered = functools.lru_cache(maxsize=32)


# --- What a template can show ---


class _Generation(Extension):
    """`{% generation %}`, with which transformers marks what the assistant said."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


@_remembered
def reads_tools(template: str) -> bool:
    """Whether the template looks at the tools it is given."""
    parsed = _parsed(template)
    try:
        if parsed is not None:
            return "tools" in meta.find_undeclared_variables(parsed)
    except jinja2.TemplateError:  # a filter or test that only the model's own code has
        pass
    return re.search(r"\btools\b", template) is not None


@_remembered
def reads_calls(template: str) -> bool:
    """Whether the template looks at the `tool_calls` of a message."""
    parsed = _parsed(template)
    if parsed is None:
        return re.search(r"\btool_calls\b", template) is not None
    return any(each.attr == "tool_calls" for each in parsed.find_all(nodes.Getattr)) or any(
        each.value == "tool_calls" for each in parsed.find_all(nodes.Const)
    )


@_remembered
def answer_stops(template: str) -> tuple[str, ...]:
    """Strings that end an answer, as the template says itself: `{% set stops = ["..."] %}`.

    Only templates without control tokens need them, such as the one that ships.
    """
    parsed = _parsed(template)
    for each in parsed.body if parsed is not None else ():
        if isinstance(each, nodes.Assign) and isinstance(each.target, nodes.Name):
            found = _constant(each.node) if each.target.name == "stops" else None
            if isinstance(found, list) and all(isinstance(stop, str) and stop for stop in found):
                return tuple(found)
    return ()


def _constant(node: nodes.Node) -> object:
    """What an expression comes to, if that can be told without rendering."""
    try:
        value: object = node.as_const() if isinstance(node, nodes.Expr) else None
    except nodes.Impossible:
        return None
    return value


def _parsed(template: str) -> nodes.Template | None:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    try:
        return environment.parse(template)
    except jinja2.TemplateError:
        return None


# --- Rendering ---


def write_chat(
    template: str,
    messages: Messages,
    tools: Messages | None,
    write: Callable[[list[Message], list[Message] | None], str],
) -> str:
    """The text of a conversation, made to fit the template where it is strict or knows no tools.

    Args:
        template: Jinja source, to see what it knows.
        messages: The conversation.
        tools: JSON schemas.
        write: Renders messages and tools with that template.

    Returns:
        The prompt, up to where the answer starts.

    Raises:
        PromptError: If the template renders the messages in no form.
    """
    messages, tools = _within(template, messages, tools)
    listed = [dict(each) for each in tools or ()] or None
    first: Exception | None = None
    for form in _forms(messages):
        try:
            return write(form(), listed)
        except Exception as error:  # noqa: BLE001 - a template is a program and may fail in any way
            first = first or error
    msg = f"prompt: the chat template cannot render these messages: {first}"
    raise PromptError(msg) from first


def _forms(messages: Messages) -> Iterator[Callable[[], list[Message]]]:
    """What is tried in turn: most templates take messages as they are, and strict ones just raise."""
    yield lambda: list(map(dict, messages))
    yield lambda: with_short_ids(alternating(messages))
    yield lambda: with_short_ids(alternating(messages, system=False))
    if has_calls(messages):  # as where the user speaks before the assistant has told what a tool said
        yield lambda: alternating(calls_as_text(messages))
        yield lambda: alternating(calls_as_text(messages), system=False)


def _within(template: str, messages: Messages, tools: Messages | None) -> tuple[Messages, Messages | None]:
    """Tools, calls and results as text, where the template would leave them out."""
    knows = reads_tools(template)
    # A template that is told no tools was made for another form of calls than the one we describe.
    if has_calls(messages) and not (knows and reads_calls(template)):
        messages = calls_as_text(messages)
    return (tools_as_text(messages, tools), None) if tools and not knows else (messages, tools)


def is_thinking(text: str) -> bool:
    """Whether a rendered prompt ends inside an open `<think>`."""
    return text.rstrip().endswith("<think>")
