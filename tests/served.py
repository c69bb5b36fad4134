"""The graphs that `langgraph dev` serves, fresh problems for them, and what their books must always show."""

from __future__ import annotations

from typing import Any

import pytest

from delegate_llm.graph import ModelContext
from delegate_llm.tiny.problems import Problem, grade, problems
from graphs import human_budget, map_reduce, plan_execute, react_agent

GRAPHS = {
    "human_budget": human_budget,
    "map_reduce": map_reduce,
    "plan_execute": plan_execute,
    "react_agent": react_agent,
}
AGENTS = ["human_budget", "plan_execute", "react_agent"]
# The executor of plan_execute reads the numbers as the base does, which may take one that does not count.
FRESH = [
    each
    for each in problems(20, seed=77, split="test")
    if all(fact.operation is not None for fact in each.facts)
][:4]
HARD = max(FRESH, key=lambda each: sum(step.operation != "add" for step in each.steps))
MANY = problems(6, seed=78, split="test")
PLENTY = ModelContext(total=64)

by_name = pytest.mark.parametrize("name", GRAPHS)
by_agent = pytest.mark.parametrize("name", AGENTS)


def asked(*questions: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "\n".join(questions)}], **more}


def thread(name: str = "t") -> dict[str, Any]:
    return {"configurable": {"thread_id": name}}


def said(state: dict[str, Any]) -> str:
    return state["messages"][-1].text


def takeovers(state: dict[str, Any]) -> int:
    """What was spent, by each of the books."""
    spent, traces = state["delegation_spent"], state["delegation_traces"]
    assert spent["takeovers"] == sum(each["takeovers"] for each in spent["calls"].values())
    assert spent["takeovers"] == sum(len(each["takeovers"]) for each in traces)
    assert [each["id"] for each in traces] == list(spent["calls"])
    for each in traces:
        assert len(each["takeovers"]) <= each["allotted"]
        assert each["allotted"] or not (each["reasoner_forwards"] or each["reasoner_tokens"])
    return spent["takeovers"]


def all_right(state: dict[str, Any], asked_for: list[Problem]) -> bool:
    lines = said(state).splitlines()
    return len(lines) == len(asked_for) and all(map(grade, asked_for, lines))
