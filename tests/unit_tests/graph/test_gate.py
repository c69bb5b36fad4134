"""The gate: a person is asked once the budget is spent, before anything is generated, and answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from budgeted import ASK, THREAD, charges, graph_of, node, run, spent
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START
from langgraph.types import Command, Overwrite

from delegate_llm.graph import BudgetQuestion, DelegationContext, budget_gate, remaining

both = pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
NONSENSE = [
    True,
    0,
    "grant",
    "grant 4",
    [],
    ["grant", 4],
    {"action": "give"},
    {"action": None},
    {"takeovers": 4},
    {"action": "grant"},
    *({"action": "grant", "takeovers": each} for each in (0, -4, 2.5, "4", True, None, float("nan"))),
]


def gated(rounds: int = 3, **settings: Any) -> Any:
    """A gate before each of so many calls of a node; a stopped run says goodbye."""
    graph = graph_of({"bye": lambda _: {"messages": ["bye"]}, "a": node("a")}, (START, "gate"))
    gate = budget_gate(then="a", otherwise="bye", **settings)
    graph.add_node("gate", gate, destinations=("a", "bye"))
    graph.add_conditional_edges(
        "a",
        lambda state: "gate" if len(state["messages"]) <= rounds else "__end__",
        ["gate", "__end__"],
    )
    return graph.compile(checkpointer=InMemorySaver())


def question(state: Any) -> BudgetQuestion | None:
    """What a person is asked, if anything."""
    (waiting,) = state.get("__interrupt__") or [None]
    return waiting and waiting.value


def asked(total: int = 3, *, sync: bool = True, **settings: Any) -> tuple[Any, Any]:
    """A graph whose budget is spent by its first call, and what it came back with."""
    graph = gated(**settings)
    return graph, run(graph, {**ASK, "delegation_budget": total}, THREAD, sync=sync)


# --- The question ---


def test_nobody_is_asked_while_there_is_budget() -> None:
    graph = gated(rounds=2)
    state = graph.invoke({**ASK, "delegation_budget": 10}, THREAD)
    assert question(state) is None
    assert charges(state) == [("a", 8), ("a", 2)]


@both
def test_the_question_comes_before_anything_is_generated(sync: bool) -> None:
    _, state = asked(sync=sync)
    said = question(state)
    assert (said["type"], said["total"], said["spent"]) == ("delegation_budget", 3, 3)
    assert "error" not in said
    assert json.loads(json.dumps(said)) == said
    assert len(state["messages"]) == 2
    assert charges(state) == [("a", 3)]


def test_every_answer_that_it_offers_is_one() -> None:
    _, state = asked()
    for offered in question(state)["answers"]:
        graph, _ = asked()
        assert "error" not in (question(graph.invoke(Command(resume=json.loads(offered)), THREAD)) or {})


@pytest.mark.parametrize("budget", [0, {"takeovers": 4, "asks": 0}])
def test_a_budget_that_is_spent_from_the_start_asks_first(budget: Any) -> None:
    graph = gated()
    state = graph.invoke({**ASK, "delegation_budget": budget}, THREAD)
    assert question(state)
    assert len(state["messages"]) == 1


# --- The answers ---


@both
def test_who_grants_is_asked_again_once_that_is_spent(sync: bool) -> None:
    graph, _ = asked(sync=sync)
    state = run(graph, Command(resume={"action": "grant", "takeovers": 2}), THREAD, sync=sync)
    assert charges(state) == [("a", 3), ("a", 2)]
    assert (question(state)["total"], question(state)["spent"]) == (5, 5)
    assert list(state["delegation_grants"].values()) == [2]
    assert state["delegation_budget"]["takeovers"] == 3
    state = run(graph, Command(resume={"action": "grant", "takeovers": 20}), THREAD, sync=sync)
    assert charges(state) == [("a", 3), ("a", 2), ("a", 8)]
    assert question(state) is None
    assert remaining(state) == 12


@both
def test_who_answers_base_is_not_asked_again(sync: bool) -> None:
    graph, _ = asked(sync=sync)
    state = run(graph, Command(resume={"action": "base"}), THREAD, sync=sync)
    assert question(state) is None
    assert charges(state) == [("a", 3), ("a", 0), ("a", 0)]
    assert all(each["reasoner_forwards"] == 0 for each in state["delegation_traces"][1:])
    state = run(graph, ASK, THREAD, sync=sync)
    assert question(state) is None
    graph.update_state(THREAD, {"delegation_alone": Overwrite(value=False)})
    assert question(run(graph, ASK, THREAD, sync=sync))


@both
def test_who_stops_the_run_ends_it_there(sync: bool) -> None:
    graph, _ = asked(sync=sync)
    state = run(graph, Command(resume={"action": "stop"}), THREAD, sync=sync)
    assert question(state) is None
    assert charges(state) == [("a", 3)]
    assert [each.text for each in state["messages"][-2:]] == ["bbbaaaaa", "bye"]


def test_a_stop_ends_the_graph_by_itself() -> None:
    graph = graph_of({"a": node("a")}, (START, "gate"))
    graph.add_node("gate", budget_gate(then="a"), destinations=("a", "__end__"))
    compiled = graph.compile(checkpointer=InMemorySaver())
    compiled.invoke({**ASK, "delegation_budget": 0}, THREAD)
    assert len(compiled.invoke(Command(resume={"action": "stop"}), THREAD)["messages"]) == 1


@pytest.mark.parametrize("answer", NONSENSE, ids=repr)
@both
def test_nonsense_is_asked_again_with_what_was_wrong(answer: Any, sync: bool) -> None:
    graph, first = asked(sync=sync)
    state = run(graph, Command(resume=answer), THREAD, sync=sync)
    said = dict(question(state))
    error = said.pop("error")
    assert said == question(first)
    counted = isinstance(answer, dict) and answer.get("action") == "grant"
    assert repr(answer.get("takeovers") if counted else answer) in error
    assert charges(state) == [("a", 3)]  # nothing was generated meanwhile
    again = run(graph, Command(resume="more nonsense"), THREAD, sync=sync)
    assert "more nonsense" in question(again)["error"]
    state = run(graph, Command(resume={"action": "grant", "takeovers": 1}), THREAD, sync=sync)
    assert charges(state) == [("a", 3), ("a", 1)]
    assert "error" not in question(state)


def test_a_grant_helps_where_the_asks_are_spent() -> None:
    graph, state = asked({"takeovers": 20, "asks": 2})
    assert question(state)["spent"] == 2
    assert question(state)["asked"] == question(state)["asks"]
    state = graph.invoke(Command(resume={"action": "grant", "takeovers": 2}), THREAD)
    assert charges(state) == [("a", 2), ("a", 2)]
    assert state["delegation_spent"]["asks"] == 4


# --- What surrounds it ---


def test_the_total_may_be_the_contexts() -> None:
    graph, context = gated(), DelegationContext(total=3)
    state = graph.invoke(ASK, THREAD, context=context)
    assert question(state)["total"] == 3
    granted = Command(resume={"action": "grant", "takeovers": 2})
    assert charges(graph.invoke(granted, THREAD, context=context)) == [("a", 3), ("a", 2)]


def test_a_run_that_is_resumed_with_more_needs_no_answer() -> None:
    graph = gated()
    graph.invoke(ASK, THREAD, context={"total": 3})
    state = graph.invoke(Command(resume={"action": "stop"}), THREAD, context={"total": 20})
    assert [each["takeovers"] for each in state["delegation_spent"]["calls"].values()] == [3, 8, 8]


def test_a_run_that_is_resumed_with_less_than_was_spent_asks() -> None:
    graph = gated(rounds=1)
    graph.invoke(ASK, THREAD, context={"total": 8})
    state = graph.invoke(ASK, THREAD, context={"total": 5})
    assert (question(state)["total"], question(state)["spent"]) == (5, 8)
    grant = Command(resume={"action": "grant", "takeovers": 3})
    state = graph.invoke(grant, THREAD, context={"total": 5})
    assert (question(state)["total"], question(state)["spent"]) == (8, 8)  # which is not enough yet
    state = graph.invoke(grant, THREAD, context={"total": 5})
    assert charges(state) == [("a", 8), ("a", 3)]
    assert list(state["delegation_grants"].values()) == [3, 3]


@both
def test_two_gates_of_one_step_are_answered_each(sync: bool) -> None:
    def inner(name: str) -> Any:
        graph = graph_of({name: node(name, 2)}, (START, "gate"))
        graph.add_node("gate", budget_gate(then=name), destinations=(name, "__end__"))
        return graph.compile()

    graph = graph_of({"x": inner("a"), "y": inner("b")}, (START, "x"), (START, "y"))
    for second, takeovers in (({"action": "base"}, [0, 0]), ({"action": "grant", "takeovers": 2}, [0, 2])):
        compiled = graph.compile(checkpointer=InMemorySaver())
        state = run(compiled, {**ASK, "delegation_budget": 0}, THREAD, sync=sync)
        one, two = (each.id for each in state["__interrupt__"])
        state = run(compiled, Command(resume={one: {"action": "base"}, two: second}), THREAD, sync=sync)
        assert sorted(each for _, each in charges(state)) == takeovers
        assert state["delegation_alone"] is True
        assert spent(state) == sum(takeovers)


def test_without_a_checkpointer_the_run_ends_with_the_question() -> None:
    graph = graph_of({"a": node("a")}, (START, "gate"))
    graph.add_node("gate", budget_gate(then="a"), destinations=("a", "__end__"))
    state = graph.compile().invoke({**ASK, "delegation_budget": 0})
    assert question(state)
    assert len(state["messages"]) == 1


def test_the_question_has_a_schema_of_its_answers() -> None:
    _, state = asked()
    (waiting,) = state["__interrupt__"]
    schema = getattr(waiting, "response_schema", None)
    assert schema is None or set(schema["properties"]) == {"action", "takeovers"}
