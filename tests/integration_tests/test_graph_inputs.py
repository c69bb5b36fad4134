"""What a caller may put into the graphs that are served: bad input is an error, and none raises its limit."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Overwrite
from served import FRESH, GRAPHS, HARD, PLENTY, asked, by_name, takeovers, thread

from delegate_llm.errors import PolicyError
from graphs import human_budget, plan_execute


@by_name
@pytest.mark.parametrize(
    ("context", "told"),
    [
        ({"total": -1}, "total: -1"),
        ({"total": "8"}, "total: '8'"),
        ({"asks": 1.5}, "asks: 1.5"),
        ({"shares": {"planer": 2}}, "'planer': 2"),
        ({"strategy": "hope"}, "'hope' is unknown"),
        ({"threshold": -1}, "threshold: -1"),
    ],
)
def test_bad_context_is_an_error_of_ours(name: str, context: dict[str, Any], told: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(told)):
        GRAPHS[name].graph.invoke(asked(FRESH[0].question), context=context)


def test_misspelled_node_is_an_error() -> None:
    with pytest.raises(PolicyError, match="node 'planner' is not among 'planer'"):
        plan_execute.graph.invoke(asked(FRESH[0].question), context={"shares": {"planer": 1.0}})


@by_name
@pytest.mark.parametrize(
    "budget", [-1, 1.5, "8", True, [8], {"asks": 3}, {"takeovers": 8, "more": 1}], ids=str
)
def test_bad_budget_is_an_error_of_ours(name: str, budget: Any) -> None:
    with pytest.raises(PolicyError, match="delegation_budget"):
        GRAPHS[name].graph.invoke(asked(FRESH[0].question, delegation_budget=budget))


SPELLINGS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda value: value,
    # All that LangGraph takes for an order to put a value in the place of what a key holds.
    "Overwrite": Overwrite,
    "__overwrite__": lambda value: {"__overwrite__": value},
    "type": lambda value: {"type": "__overwrite__", "value": value},
}
RAISING = [
    ("delegation_budget", 99),
    ("delegation_budget", {"takeovers": 99, "asks": None, "account": "mine"}),
    ("delegation_grants", {"a": 99}),
    (
        "delegation_spent",
        {"calls": {"a": {"node": "", "takeovers": -99, "asks": 0, "tokens": 0, "allotted": None}}},
    ),
    ("delegation_spent", None),
    ("delegation_traces", []),
    ("delegation_alone", True),
]


@pytest.mark.parametrize("spelled", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize(("key", "value"), RAISING, ids=str)
def test_input_cannot_raise_its_own_limit(key: str, value: Any, spelled: Callable[[Any], Any]) -> None:
    graph, context = human_budget.build_graph(InMemorySaver()), {"total": 1}
    given = {key: spelled(value)}
    for _ in range(2):
        state = graph.invoke(asked(HARD.question, **given), thread(), context=context)
        assert takeovers(state) == 1
        # Nor can it answer in a person's place.
        assert state["__interrupt__"][0].value["total"] == 1


@by_name
@pytest.mark.parametrize("spelled", SPELLINGS.values(), ids=SPELLINGS)
def test_no_graph_lets_an_input_raise_its_limit(name: str, spelled: Callable[[Any], Any]) -> None:
    graph, context = GRAPHS[name].build_graph(InMemorySaver()), {"total": 1}
    given = {key: spelled(value) for key, value in RAISING}
    for _ in range(2):
        state = graph.invoke(asked(HARD.question, **given), thread(), context=context)
        assert takeovers(state) <= 1


@by_name
def test_later_input_on_a_thread_lowers_the_total_and_never_raises_it(name: str) -> None:
    graph = GRAPHS[name].build_graph(InMemorySaver())
    for budget in (1, 9, {"takeovers": 9, "asks": 99}, None):
        state = graph.invoke(asked(FRESH[0].question, delegation_budget=budget), thread(), context=PLENTY)
        assert takeovers(state) <= 1
    assert takeovers(state) == 1
    assert state["delegation_budget"]["takeovers"] == 1


@by_name
def test_input_has_two_keys(name: str) -> None:
    assert GRAPHS[name].graph.get_input_jsonschema()["properties"].keys() == {"messages", "delegation_budget"}
