"""Calls side by side: together they never spend more than there is, resumed or not, and each counts once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from budgeted import ASK, THREAD, chain, charge, charges, disagreeing, graph_of, node, run, spent
from langchain_core.caches import InMemoryCache as ModelCache
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy, Command, RetryPolicy, Send, interrupt

from delegate_llm import PolicyError
from delegate_llm.graph import DelegationContext, delegated_node, fan_out, remaining, split

both = pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
EMPTY: dict[str, Any] = {"messages": []}


def nothing(_: Any) -> dict[str, Any]:
    return {}


def sending(graph: StateGraph, start: str, target: str, payloads: Sequence[Any], **settings: Any) -> None:
    """Fan out from a node."""
    graph.add_conditional_edges(
        start, lambda state: fan_out(target, payloads, state, **settings), [target, "__end__"]
    )


def pausing(inner: Any) -> Any:
    """A node that waits for a person before it does what it does."""

    def wait(state: Any) -> Any:
        interrupt("go on?")
        return inner.invoke(state)

    return wait


# --- Static edges ---


@both
@pytest.mark.parametrize("config", [None, {"max_concurrency": 1}], ids=["", "one at a time"])
def test_parallel_nodes_share_what_is_left(config: Any, sync: bool) -> None:
    names = "abcd"
    graph = graph_of({each: node(each) for each in names}, *((START, each) for each in names)).compile()
    state = run(graph, {**ASK, "delegation_budget": {"takeovers": 5, "asks": 30}}, config, sync=sync)
    assert spent(state) == 5
    assert state["delegation_spent"]["asks"] <= 30
    assert len(charges(state)) == 4


@both
def test_parallel_nodes_with_shares_get_them_whoever_comes_first(sync: bool) -> None:
    nodes = {name: node(name, share=share) for name, share in (("a", 0.5), ("b", 0.25), ("c", 0.25))}
    graph = graph_of(nodes, *((START, each) for each in nodes)).compile()
    for _ in range(5):
        state = run(graph, {**ASK, "delegation_budget": 8}, sync=sync)
        assert sorted(charges(state)) == [("a", 4), ("b", 2), ("c", 2)]


def test_threads_of_one_graph_do_not_share() -> None:
    graph = graph_of({"a": node("a"), "b": node("b")}, (START, "a"), (START, "b"))
    compiled = graph.compile(checkpointer=InMemorySaver())

    def ask(at: int) -> int:
        thread = {"configurable": {"thread_id": str(at)}}
        given = {**ASK, "delegation_budget": at} if at % 2 else ASK
        return spent(compiled.invoke(given, thread, context=None if at % 2 else {"total": at}))

    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(ask, range(9))] == [*range(9)]  # one answer has as many to spend


# --- Branches ---


@both
def test_what_branches_leave_comes_back(sync: bool) -> None:
    graph = graph_of(
        {"begin": nothing, "w": node("w", 1), "end": node("end")}, (START, "begin"), ("w", "end")
    )
    sending(graph, "begin", "w", [EMPTY] * 3)
    state = run(graph.compile(), {**ASK, "delegation_budget": {"takeovers": 8, "asks": 60}}, sync=sync)
    assert charges(state) == [("w", 1), ("w", 1), ("w", 1), ("end", 5)]
    assert [each["allotted"] for each in state["delegation_traces"]] == [3, 3, 2, 5]
    assert state["delegation_budget"]["takeovers"] == 8


@both
def test_a_branch_never_spends_more_than_its_part(sync: bool) -> None:
    graph = graph_of({"begin": nothing, "w": node("w")}, (START, "begin"))
    sending(graph, "begin", "w", [EMPTY] * 3)
    state = run(graph.compile(), {**ASK, "delegation_budget": 8}, sync=sync)
    assert sorted(charges(state)) == [("w", 2), ("w", 3), ("w", 3)]


@both
def test_a_total_may_be_the_contexts(sync: bool) -> None:
    context = DelegationContext(total=5, asks=40)
    graph = graph_of({"begin": node("begin", 1), "w": node("w"), "end": node("end")}, ("w", "end"))
    graph.add_edge(START, "begin")
    sending(graph, "begin", "w", [EMPTY] * 2, context=context)
    state = run(graph.compile(), ASK, context=context, sync=sync)
    assert sorted(charges(state)) == [("begin", 1), ("end", 0), ("w", 2), ("w", 2)]


def test_a_fan_out_of_nothing_sends_nothing() -> None:
    assert fan_out("w", [], {}) == []
    with pytest.raises(PolicyError, match="delegation_budget"):
        fan_out("w", [EMPTY], {})


def test_a_branch_does_not_bring_the_whole_graphs_books() -> None:
    held = {
        "messages": [],
        "delegation_budget": 2,
        "delegation_spent": {"calls": {"x": charge(4)}},
        "delegation_grants": {"g": 6},
        "more": 1,
    }
    first, second = fan_out("w", [held, {**held, "more": 2}], held)
    assert {**first.arg, "delegation_budget": None} == {"messages": [], "delegation_budget": None, "more": 1}
    assert (remaining(first.arg), remaining(second.arg), second.arg["more"]) == (2, 2, 2)


@both
@pytest.mark.parametrize("config", [None, {"max_concurrency": 1}], ids=["", "one at a time"])
def test_a_fan_out_sees_what_runs_beside_it(config: Any, sync: bool) -> None:
    graph = graph_of(
        {"a": node("a", budget=0), "b": node("b", 3), "w": node("w")}, (START, "a"), (START, "b")
    )
    sending(graph, "a", "w", [EMPTY] * 2)
    state = run(graph.compile(), {**ASK, "delegation_budget": 4}, config, sync=sync)
    assert 3 <= spent(state) <= 4


@both
@pytest.mark.parametrize("config", [None, {"max_concurrency": 1}], ids=["", "one at a time"])
@pytest.mark.parametrize("context", [None, DelegationContext(total=4)], ids=["state", "context"])
def test_branches_share_with_a_node_beside_them(config: Any, context: Any, sync: bool) -> None:
    graph = graph_of(
        {"a": nothing, "b": nothing, "c": node("c"), "w": node("w")}, (START, "a"), (START, "b"), ("b", "c")
    )
    sending(graph, "a", "w", [EMPTY] * 2, context=context)
    given = {**ASK, "delegation_budget": 4} if context is None else ASK
    assert spent(run(graph.compile(), given, config, context=context, sync=sync)) == 4


@both
def test_two_fan_outs_of_one_step_share(sync: bool) -> None:
    graph = graph_of({"a": nothing, "b": nothing, "w": node("w")}, (START, "a"), (START, "b"))
    for each in "ab":
        sending(graph, each, "w", [EMPTY] * 2)
    assert spent(run(graph.compile(), {**ASK, "delegation_budget": 5}, sync=sync)) <= 5


@both
@pytest.mark.parametrize("part", ["state", "budget"])
def test_branches_sent_by_hand_share_the_whole(part: str, sync: bool) -> None:
    graph = graph_of({"a": node("a", 2), "w": node("w")}, (START, "a"))

    def send(state: Any) -> list[Send]:
        given = dict(state) if part == "state" else {"delegation_budget": state["delegation_budget"]}
        return [Send("w", {**given, "messages": []})] * 3

    graph.add_conditional_edges("a", send, ["w"])
    assert spent(run(graph.compile(), {**ASK, "delegation_budget": 6}, sync=sync)) == 6


# --- Subgraphs ---


@both
def test_what_a_subgraph_shares_is_charged_once(sync: bool) -> None:
    inner = chain("b", "c", takeovers=2).compile()
    outer = graph_of({"d": node("d", 1), "inner": inner}).compile()
    graph = graph_of({"a": node("a", 1), "outer": outer, "e": node("e", 1)})
    for saver in (None, InMemorySaver()):
        compiled = graph.compile(checkpointer=saver)
        state = run(compiled, {**ASK, "delegation_budget": 6}, THREAD, sync=sync)
        assert charges(state) == [("a", 1), ("d", 1), ("b", 2), ("c", 2), ("e", 0)]
        assert [each["node"] for each in state["delegation_traces"]] == ["a", "d", "b", "c", "e"]
        assert state["delegation_budget"]["takeovers"] == 6


@both
def test_parallel_subgraphs_share(sync: bool) -> None:
    subs = {name: chain(f"{name}1", f"{name}2", takeovers=3).compile() for name in "xyz"}
    graph = graph_of(subs, *((START, each) for each in subs)).compile()
    state = run(graph, {**ASK, "delegation_budget": 7, "delegation_grants": {"g": 2}}, sync=sync)
    assert 6 <= spent(state) <= 9
    assert len(charges(state)) == 6
    alone = run(graph, {**ASK, "delegation_budget": 7, "delegation_alone": True}, sync=sync)
    assert spent(alone) == 0
    assert alone["delegation_alone"] is True


@both
def test_a_branch_may_be_a_subgraph_that_branches_again(sync: bool) -> None:
    inner = graph_of({"begin": nothing, "w": node("w", 1), "z": node("z")}, (START, "begin"), ("w", "z"))
    sending(inner, "begin", "w", [EMPTY] * 2)
    graph = graph_of({"a": node("a", 1), "sub": inner.compile(), "e": node("e")}, (START, "a"), ("sub", "e"))
    sending(graph, "a", "sub", [EMPTY] * 2)
    state = run(graph.compile(), {**ASK, "delegation_budget": 10}, sync=sync)
    assert sorted(charges(state)) == [
        ("a", 1), ("e", 0), ("w", 1), ("w", 1), ("w", 1), ("w", 1), ("z", 2), ("z", 3),
    ]  # fmt: skip
    assert state["delegation_budget"]["takeovers"] == 10  # the parts are not mistaken for it


def test_a_part_names_what_it_is_a_part_of() -> None:
    held = {"delegation_budget": {"takeovers": 4, "account": "whole"}}
    part, _ = split(held, 2)
    (smaller,) = split({"delegation_budget": part}, 1)
    assert part["account"].startswith("whole/")
    assert smaller["account"].startswith(part["account"] + "/")


# --- Resumed ---


@both
def test_a_node_that_is_resumed_sees_what_those_beside_it_spent(sync: bool) -> None:
    graph = graph_of({"a": node("a", 3), "b": pausing(node("b"))}, (START, "a"), (START, "b"))
    compiled = graph.compile(checkpointer=InMemorySaver())
    run(compiled, {**ASK, "delegation_budget": 4}, THREAD, sync=sync)
    assert charges(run(compiled, Command(resume=True), THREAD, sync=sync)) == [("a", 3), ("b", 1)]


@both
@pytest.mark.parametrize("first", [0, 1])
def test_a_subgraph_that_is_resumed_sees_one_that_is_not_done_either(first: int, sync: bool) -> None:
    """One has spent before its pause, the other would after it; a person answers one of them first."""
    before = graph_of({"a": node("a", 3), "wait": pausing(node("a2", 0))})
    after = graph_of({"wait": pausing(node("b")), "b2": node("b2")})
    graph = graph_of({"x": before.compile(), "y": after.compile()}, (START, "x"), (START, "y"))
    compiled = graph.compile(checkpointer=InMemorySaver())
    state = run(compiled, {**ASK, "delegation_budget": 4}, THREAD, sync=sync)
    waiting = [each.id for each in state["__interrupt__"]]
    for name in (waiting[first], waiting[1 - first]):
        state = run(compiled, Command(resume={name: True}), THREAD, sync=sync)
    assert sorted(charges(state)) == [("a", 3), ("a2", 0), ("b", 1), ("b2", 0)]


@both
@pytest.mark.parametrize("context", [None, DelegationContext(total=4)], ids=["state", "context"])
def test_a_branch_that_is_resumed_sees_what_those_beside_it_spent(context: Any, sync: bool) -> None:
    """The node beside the branches has taken it all; they wait, and were promised their parts."""
    worker = pausing(node("w"))
    graph = graph_of(
        {"a": nothing, "b": nothing, "c": node("c"), "w": worker}, (START, "a"), (START, "b"), ("b", "c")
    )
    sending(graph, "a", "w", [EMPTY] * 2, context=context)
    compiled = graph.compile(checkpointer=InMemorySaver())
    given = {**ASK, "delegation_budget": 4} if context is None else ASK
    state = run(compiled, given, THREAD, context=context, sync=sync)
    answers = {each.id: True for each in state["__interrupt__"]}
    state = run(compiled, Command(resume=answers), THREAD, context=context, sync=sync)
    assert sorted(charges(state)) == [("c", 4), ("w", 0), ("w", 0)]


# --- Once ---


@both
def test_a_call_that_is_tried_again_is_charged_once(sync: bool) -> None:
    """The subgraph fails twice, each time after its first node has spent."""
    failures = [ValueError(), ValueError()]

    def fail(_: Any) -> dict[str, Any]:
        if failures:
            raise failures.pop()
        return {}

    inner = graph_of({"a": node("a", 2), "fail": fail, "b": node("b", 2)}).compile()
    graph = graph_of({})
    policy = RetryPolicy(initial_interval=0, jitter=False, retry_on=ValueError)
    graph.add_node("inner", inner, retry_policy=policy)
    graph.add_edge(START, "inner")
    compiled = graph.compile(checkpointer=InMemorySaver())
    state = run(compiled, {**ASK, "delegation_budget": 9}, THREAD, sync=sync)
    assert not failures
    assert charges(state) == [("a", 2), ("b", 2)]


@both
def test_a_cached_node_is_charged_once(sync: bool) -> None:
    graph = graph_of({})
    graph.add_node("a", node("a", 2), cache_policy=CachePolicy(key_func=lambda _: "same"))
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: "a" if len(state["messages"]) < 2 else "b", ["a", "b"])
    graph.add_node("b", node("b"))
    compiled = graph.compile(cache=InMemoryCache(), checkpointer=InMemorySaver())
    run(compiled, {**ASK, "delegation_budget": 5}, THREAD, sync=sync)
    assert charges(run(compiled, ASK, THREAD, sync=sync)) == [("a", 2), ("b", 3), ("b", 0)]


@both
def test_an_answer_from_a_models_cache_is_charged_to_who_asked_first(sync: bool) -> None:
    """Else the first node would get its share back and spend it again."""
    model = disagreeing(cache=ModelCache())
    nodes = {
        name: delegated_node(model, name=name, share=0.25, prompt=lambda _: "go?", update=lambda *_: {})
        for name in "ab"
    }
    graph = graph_of(nodes).compile(checkpointer=InMemorySaver())
    first = run(graph, {**ASK, "delegation_budget": 8}, THREAD, sync=sync)
    assert charges(first) == [("a", 2)]
    second = run(graph, ASK, THREAD, sync=sync)
    assert charges(second) == [("a", 2), ("a", 0)]
    assert [each["node"] for each in second["delegation_traces"]] == ["a", "a"]
