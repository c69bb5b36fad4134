"""The loop of an agent, spelled out: an independent account of what the shipped pair was trained for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from delegate_llm.tiny.agent import TOOLS, TURNS, execute, parse_calls
from delegate_llm.tiny.problems import Problem, grade, messages

Message = dict[str, Any]
Chat = Callable[[list[Message], list[Message]], str]
"""Answers messages, given tools, with the assistant's text, tool calls included."""


@dataclass(frozen=True)
class Outcome:
    """How an agent's attempt at a problem ended."""

    correct: bool
    messages: list[Message]
    """The whole chat: the question, every assistant turn, every tool's answer."""
    error: str | None = None
    """What broke, if anything did: a malformed call, or no end within the turns allowed."""


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
