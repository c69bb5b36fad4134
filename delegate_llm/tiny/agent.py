"""The same problems for an agent: three tools, and the loop that lets a model call them.

Qwen and Hermes write a call as `<tool_call>` with one JSON object inside. Results go back as
messages of the role `tool`. Nothing here evaluates what a model wrote: a call is parsed, looked up,
and done with plain arithmetic.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from delegate_llm.tiny.problems import Problem, grade, messages

__all__ = [
    "FUNCTIONS",
    "TOOLS",
    "TURNS",
    "Chat",
    "Outcome",
    "add",
    "execute",
    "multiply",
    "parse_calls",
    "solve_with_tools",
    "subtract",
]

TURNS: Final = 8
"""Assistant turns that a problem may take."""

Message: TypeAlias = dict[str, Any]
Chat: TypeAlias = Callable[[list[Message], list[Message]], str]
"""Answers messages, given tools, with the assistant's text, tool calls included."""

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


@dataclass(frozen=True)
class Outcome:
    """How an agent's attempt at a problem ended."""

    correct: bool
    messages: list[Message]
    """The whole chat: the question, every assistant turn, every tool's answer."""
    error: str | None = None
    """What broke, if anything did: a malformed call, or no end within the turns allowed."""


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


def solve_with_tools(chat: Chat, problem: Problem, max_turns: int = TURNS) -> Outcome:
    """Lets a model work on a problem with the tools, until it answers without calling one.

    Args:
        chat: The model.
        problem: What to solve.
        max_turns: How many assistant turns there may be.

    Returns:
        The outcome; a broken call ends the attempt and is a failure.
    """
    history = messages(problem)
    for _ in range(max_turns):
        text = chat(history, TOOLS)
        try:
            calls = parse_calls(text)
            results = [execute(name, arguments) for name, arguments in calls]
        except ValueError as error:
            broken = {"role": "assistant", "content": text}
            return Outcome(correct=False, messages=[*history, broken], error=str(error))
        history = [*history, _assistant(text, calls), *map(_result, results)]
        if not calls:
            return Outcome(correct=grade(problem, text), messages=history)
    return Outcome(correct=False, messages=history, error=f"no answer within {max_turns} turns")


def _assistant(text: str, calls: list[tuple[str, dict[str, Any]]]) -> Message:
    """An assistant turn as chat templates take it: the calls apart from the words before them."""
    message: Message = {"role": "assistant", "content": text.split("<tool_call>", maxsplit=1)[0].strip()}
    if calls:
        message["tool_calls"] = [
            {"type": "function", "function": {"name": name, "arguments": arguments}}
            for name, arguments in calls
        ]
    return message


def _result(result: int) -> Message:
    return {"role": "tool", "content": str(result)}
