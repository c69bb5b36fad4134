"""The agent's loop: calls are parsed and executed, and whatever is broken is a failure."""

import json
from typing import Any

import pytest
from solving import solve_with_tools

from delegate_llm.tiny.agent import TOOLS, execute, parse_calls
from delegate_llm.tiny.problems import problems

PROBLEM = problems(1, seed=0, split="test")[0]


def call(name: str, a: int, b: int) -> str:
    body = json.dumps({"name": name, "arguments": {"a": a, "b": b}})
    return f"<tool_call>\n{body}\n</tool_call>"


def script(*turns: str) -> Any:
    """A chat that says `turns`, one after the other."""
    rest = iter(turns)
    return lambda messages, tools: next(rest)


PLAN = [call(step.operation, step.a, step.b) for step in PROBLEM.steps]


def test_the_right_plan_is_right() -> None:
    outcome = solve_with_tools(script(*PLAN, f"The answer is {PROBLEM.answer}."), PROBLEM)
    assert outcome.correct
    assert outcome.error is None
    results = [m["content"] for m in outcome.messages if m["role"] == "tool"]
    assert results == [str(step.result) for step in PROBLEM.steps]
    first = outcome.messages[1]["tool_calls"][0]["function"]
    assert first["name"] == PROBLEM.steps[0].operation
    assert first["arguments"] == {"a": PROBLEM.steps[0].a, "b": PROBLEM.steps[0].b}


def test_a_wrong_answer_is_wrong_without_an_error() -> None:
    outcome = solve_with_tools(script("The answer is 12345."), PROBLEM)
    assert not outcome.correct
    assert outcome.error is None


def test_two_calls_in_one_turn_are_both_answered() -> None:
    turn = "Let me see.\n" + call("add", 1, 2) + "\n" + call("multiply", 3, 4)
    outcome = solve_with_tools(script(turn, "The answer is 0."), PROBLEM)
    assert [m["content"] for m in outcome.messages[1:4]] == ["Let me see.", "3", "12"]


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\n{}",
        "{}\n</tool_call>",
        "<tool_call>\nnot json\n</tool_call>",
        '<tool_call>\n{"name": "add"}\n</tool_call>',
        '<tool_call>\n["add", 1, 2]\n</tool_call>',
        '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>',
        '<tool_call>\n{"name": "add", "arguments": {"a": "1", "b": 2}}\n</tool_call>',
        '<tool_call>\n{"name": "add", "arguments": {"a": true, "b": 2}}\n</tool_call>',
        '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2, "c": 3}}\n</tool_call>',
        '<tool_call>\n{"name": "eval", "arguments": {"a": 1, "b": 2}}\n</tool_call>',
    ],
)
def test_a_broken_call_is_a_failure(text: str) -> None:
    outcome = solve_with_tools(script(text), PROBLEM)
    assert not outcome.correct
    assert outcome.error
    assert outcome.messages[-1] == {"role": "assistant", "content": text}


def test_turns_are_limited() -> None:
    outcome = solve_with_tools(lambda messages, tools: call("add", 1, 1), PROBLEM, max_turns=3)
    assert outcome.error == "no answer within 3 turns"


@pytest.mark.parametrize(("name", "result"), [("add", 9), ("subtract", 5), ("multiply", 14)])
def test_tools_compute(name: str, result: int) -> None:
    assert execute(name, {"a": 7, "b": 2}) == result


def test_text_without_calls_has_none() -> None:
    assert parse_calls("The answer is 7.") == []


def test_a_users_own_tools_are_described_alike() -> None:
    tools = pytest.importorskip("langchain_core.tools")
    calling = pytest.importorskip("langchain_core.utils.function_calling")

    def subtract(a: int, b: int) -> int:
        """Subtract b from a."""
        return a - b

    described = calling.convert_to_openai_tool(tools.tool(subtract))
    assert json.dumps(described) == json.dumps(TOOLS[1])
