"""A real run of an agent, dumped to JSON: every call is shown, in order, under the node that made it."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.load import dumpd

from delegate_llm import DelegatedChatModel
from delegate_llm.graph import DelegationMiddleware
from delegate_llm.report import Shown, columns
from delegate_llm.report.shapes import answers_in
from graphs.plan_execute import graph
from graphs.tools import TOOLS

QUESTION = "Tom has 3 boxes with 4 pens in each. Tom sells 5 pens. How many pens does Tom have now?"
PLAINLY = [
    lambda state: {**state, "messages": [each.model_dump(mode="json") for each in state["messages"]]},
    dumpd,
]


@functools.cache
def planned() -> dict[str, Any]:
    return graph.invoke({"messages": [("user", QUESTION)], "delegation_budget": 4})


@functools.cache
def acted() -> dict[str, Any]:
    model = DelegatedChatModel("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner", trace="full")
    agent = create_agent(model, TOOLS, middleware=[DelegationMiddleware(run_limit=4)])
    return agent.invoke({"messages": [("user", QUESTION)]})


def read(value: Any) -> list[Shown]:
    return answers_in(json.loads(json.dumps(value, default=str)), "here")


@pytest.mark.parametrize("dumped", PLAINLY)
def test_the_calls_of_plan_and_execute_are_shown_as_they_were_made(dumped: Any) -> None:
    found = read(dumped(planned()))
    calls = planned()["delegation_traces"]
    assert [(each.id, each.node) for each in found] == [(each["id"], each["node"]) for each in calls]
    assert [each.node for each in found][:2] == ["planner", "executor"]
    assert [each.trace.summary.takeovers for each in found] == [len(each["takeovers"]) for each in calls]


@pytest.mark.parametrize("dumped", PLAINLY)
def test_an_agent_of_the_middleware_is_shown_with_reasons_that_agree(dumped: Any) -> None:
    found = read(dumped(acted()))
    assert [each.id for each in found] == [each["id"] for each in acted()["delegation_traces"]]
    assert {each.node for each in found} == {each["node"] for each in acted()["delegation_traces"]}
    assert sum(each.trace.summary.takeovers for each in found) > 0
    causes = [cause for each in found for cause in columns(each)["causes"]]
    assert causes
    assert not [each for each in causes if "made with another" in each or "does not say" in each]


def test_the_messages_alone_are_a_conversation() -> None:
    messages = [each.model_dump(mode="json") for each in acted()["messages"]]
    found = read(messages)
    assert [each.id for each in found] == [each["id"] for each in acted()["delegation_traces"]]
    assert {each.title for each in found} == {QUESTION}
