"""The same problems for an agent: three tools, and how a model calls them.

Qwen and Hermes write a call as `<tool_call>` with one JSON object inside. Results go back as
messages of the role `tool`. Nothing here evaluates what a model wrote: a call is parsed, looked up,
and done with plain arithmetic.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

__all__ = [
    "FUNCTIONS",
    "MAX_TOKENS",
    "TOOLS",
    "TURNS",
    "add",
    "execute",
    "multiply",
    "parse_calls",
    "subtract",
]

TURNS: Final = 8
"""Assistant turns that a problem may take."""
MAX_TOKENS: Final = 160
"""Tokens that a turn may have: twice what the longest good answer to a problem needs."""

Message: TypeAlias = dict[str, Any]

_CALL: Final = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def subtract(a: int, b: int) -> int:
    """Subtract b from a."""
    return a - b


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


FUNCTIONS: Final = (add, subtract, multiply)
"""The tools as functions, for agents that run them."""
_BY_NAME: Final[Mapping[str, Callable[[int, int], int]]] = {each.__name__: each for each in FUNCTIONS}


def _tool(function: Callable[[int, int], int]) -> Message:
    # The keys stand in the order in which LangChain describes `def add(a: int, b: int)`, so that
    # a user's own tools of these names give the very prompt that the models were trained on.
    numbers = {"a": {"type": "integer"}, "b": {"type": "integer"}}
    parameters = {"properties": numbers, "required": ["a", "b"], "type": "object"}
    described = {"name": function.__name__, "description": function.__doc__, "parameters": parameters}
    return {"type": "function", "function": described}


TOOLS: Final[list[Message]] = [_tool(each) for each in FUNCTIONS]
"""The tools in the form that chat templates and chat APIs take."""


def parse_calls(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The tool calls in an assistant's text, in order.

    Raises:
        ValueError: If a call is not closed, not JSON, or not a name with arguments.
    """
    bodies = _CALL.findall(text)
    if text.count("<tool_call>") != len(bodies) or text.count("</tool_call>") != len(bodies):
        msg = f"A tool call is not closed: {text!r}"
        raise ValueError(msg)
    calls = []
    for body in bodies:
        match json.loads(body):
            case {"name": str(name), "arguments": dict(arguments)}:
                calls.append((name, arguments))
            case _:
                msg = f"A tool call needs a name and arguments: {body!r}"
                raise ValueError(msg)
    return calls


def execute(name: str, arguments: Mapping[str, Any]) -> int:
    """What a tool answers.

    Raises:
        ValueError: If there is no such tool, or the arguments are not two integers `a` and `b`.
    """
    if name not in _BY_NAME:
        msg = f"There is no tool {name!r}, only {', '.join(_BY_NAME)}."
        raise ValueError(msg)
    # The exact type: JSON's true would pass for the integer 1.
    if set(arguments) != {"a", "b"} or any(type(value) is not int for value in arguments.values()):
        msg = f"{name} takes two integers a and b, not {arguments!r}."
        raise ValueError(msg)
    return _BY_NAME[name](arguments["a"], arguments["b"])
