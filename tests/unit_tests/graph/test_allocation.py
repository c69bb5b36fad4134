"""Who may spend how much: pure functions of the state, never more than is left, and errors for nonsense."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
from budgeted import ASK, THREAD, chain, charge, charges
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.memory import InMemorySaver

from delegate_llm import PolicyError
from delegate_llm.graph import (
    Adaptive,
    ByRole,
    DelegationContext,
    Even,
    FrontLoaded,
    ModelContext,
    Outlook,
    allot,
    remaining,
    remaining_asks,
    split,
)

BAD_SHARES = [-0.1, 1.1, math.nan, math.inf, True, "0.5", None, 1 + 1e-3]


def state(budget: Any = 10, *calls: Any, **more: Any) -> dict[str, Any]:
    """A state in which these calls were made."""
    held = {"calls": {str(at): each for at, each in enumerate(calls)}}
    return {"delegation_budget": budget, "delegation_spent": held, **more}


def takeovers(held: Any, node: str = "a", **settings: Any) -> int:
    return allot(held, node, **settings).takeovers


# --- What is left ---


@pytest.mark.parametrize(
    ("held", "total", "left"),
    [
        (state(10), None, 10),
        (state(10, charge(3), charge(4, node="b")), None, 3),
        (state(10, charge(3)), 5, 2),  # the smaller total stands
        (state(5, charge(3)), 10, 2),
        (state(None, charge(3)), 5, 2),
        (state({}, charge(3)), 5, 2),
        (state(10, charge(3)), 2, 0),  # resumed with less than was spent
        (state(10, charge(12)), None, 0),
        (state(2, charge(2), delegation_grants={"x": 3, "y": 1}), None, 4),
        (state(10, charge(3), delegation_grants={"x": 3}), 5, 5),
        ({"delegation_budget": 4}, None, 4),
    ],
)
def test_what_is_left(held: Any, total: int | None, left: int) -> None:
    assert remaining(held, DelegationContext(total=total)) == left
    assert takeovers(held, context=DelegationContext(total=total)) == left


@pytest.mark.parametrize("held", [{}, {"delegation_budget": None}, {"delegation_budget": {}}])
def test_a_run_without_a_total_is_told_how_to_give_one(held: Any) -> None:
    for ask in (remaining, remaining_asks, lambda held: allot(held, "a"), lambda held: split(held, 2)):
        with pytest.raises(PolicyError, match=r"context=DelegationContext\(total=8\)"):
            ask(held)
    with pytest.raises(PolicyError, match="delegation_budget"):
        chain("a").compile().invoke(ASK)


@pytest.mark.parametrize(
    ("held", "asks", "left"),
    [
        (state(10), None, None),
        (state({"takeovers": 10, "asks": 30}, charge(1, asks=20)), None, 10),
        (state({"takeovers": 10, "asks": 30}, charge(1, asks=40)), 50, 0),
        (state(10, charge(1, asks=20)), 25, 5),
        # What is granted brings the asks that it needs.
        (state({"takeovers": 10, "asks": 30}, charge(10, asks=30), delegation_grants={"x": 2}), None, 6),
        (state({"takeovers": 0, "asks": 0}, delegation_grants={"x": 2}), None, 2),
    ],
)
def test_asks_that_are_left(held: Any, asks: int | None, left: int | None) -> None:
    assert remaining_asks(held, DelegationContext(asks=asks)) == left


# --- A node's own part ---


@pytest.mark.parametrize(
    ("calls", "settings", "allotted"),
    [
        ([], {"share": 0.25}, 3),  # rounded
        ([], {"share": 0.0}, 0),
        ([], {"share": 1}, 10),
        ([charge(2)], {"share": 0.5}, 3),  # of the total, over the whole run
        ([charge(5)], {"share": 0.5}, 0),
        ([charge(7, node="b")], {"share": 0.5}, 3),  # never more than is left
        ([], {"budget": 4}, 4),
        ([charge(3)], {"budget": 4}, 1),
        ([charge(9, node="b")], {"budget": 4}, 1),
        ([charge(9)], {"budget": 4}, 0),
        ([], {"budget": 0}, 0),
        ([], {"share": 0.5, "strategy": "front-loaded"}, 3),
        ([charge(1), charge(1)], {"budget": 6, "strategy": Even(calls=4)}, 2),
    ],
)
def test_a_nodes_part(calls: Any, settings: Any, allotted: int) -> None:
    assert takeovers(state(10, *calls), **settings) == allotted


def test_the_contexts_shares_replace_the_nodes_own() -> None:
    context = DelegationContext(shares={"a": 0.3, "b": 0})
    for own in ({}, {"share": 1.0}, {"budget": 9}, {"strategy": ByRole({"a": 1.0})}):
        assert takeovers(state(10), context=context, **own) == 3
        assert takeovers(state(10), "b", context=context, **own) == 0


def test_a_node_that_the_context_does_not_know_is_an_error() -> None:
    context = DelegationContext(total=10, shares={"planner": 0.5, "critic": 0.5})
    with pytest.raises(PolicyError, match=r"'planer' is not among 'planner', 'critic'.*0 for the base alone"):
        allot({}, "planer", context=context)
    with pytest.raises(PolicyError, match="node 'a'"):
        chain("a").compile().invoke(ASK, context=context)


def test_who_goes_on_alone_gets_nothing() -> None:
    held = state({"takeovers": 10, "asks": 5}, delegation_alone=True)
    assert allot(held, "a", budget=3) == (0, 0)
    assert [each["takeovers"] for each in split(held, 2)] == [0, 0]


# --- Strategies ---


@pytest.mark.parametrize(
    ("strategy", "calls", "allotted"),
    [
        ("all", [charge(3)], 9),
        ("even", [], 2),  # of twelve, among eight calls
        (Even(calls=4), [], 3),
        (Even(calls=4), [charge(0), charge(3, node="b")], 3),
        (Even(calls=2), [charge(1)] * 5, 7),  # more calls than were thought of share what is left
        ("front-loaded", [charge(3)], 5),
        (FrontLoaded(1.0), [charge(3)], 9),
        (FrontLoaded(0), [], 0),
        (ByRole({"a": 0.5, "b": 0.5}), [charge(2), charge(3, node="b")], 4),
        ("adaptive", [], 3),
        (Adaptive(start=1.0), [], 12),
        ("adaptive", [charge(2, allotted=2)], 4),  # it disagreed densely
        ("adaptive", [charge(1, allotted=4)], 2),
        ("adaptive", [charge(0, allotted=1)], 1),
        ("adaptive", [charge(6, allotted=6)], 6),  # no more than is left
        ("adaptive", [charge(2, allotted=4), charge(0, allotted=0)], 2),  # was allowed nothing: tells nothing
        ("adaptive", [charge(0, allotted=0)], 3),
        ("adaptive", [charge(2, allotted=None)], 3),
        ("adaptive", [charge(1, allotted=4), charge(3, node="b", allotted=3)], 6),
    ],
)
def test_strategies(strategy: Any, calls: Any, allotted: int) -> None:
    assert takeovers(state(12, *calls), strategy=strategy) == allotted


def test_a_runs_strategy_replaces_the_nodes_own() -> None:
    assert takeovers(state(12), strategy="all", context=DelegationContext(strategy="front-loaded")) == 6


def test_a_strategy_is_any_function_of_the_outlook() -> None:
    seen: list[Outlook] = []

    def third(outlook: Outlook) -> int:
        seen.append(outlook)
        return len(outlook.of_node)

    assert takeovers(state(12, charge(1), charge(2, node="b")), budget=5, strategy=third) == 1
    (outlook,) = seen
    assert (outlook.node, outlook.total, outlook.remaining, len(outlook.charges)) == ("a", 12, 4, 2)


@given(
    budget=st.integers(0, 20),
    asks=st.none() | st.integers(0, 40),
    calls=st.lists(
        st.builds(
            charge,
            st.integers(0, 6),
            node=st.sampled_from("ab"),
            asks=st.integers(0, 9),
            allotted=st.none() | st.integers(0, 6),
        ),
        max_size=6,
    ),
    strategy=st.sampled_from(["all", "even", "front-loaded", "adaptive", ByRole({"a": 0.7})])
    | st.integers(-9, 99).map(lambda count: lambda _: count),
    own=st.sampled_from([{}, {"share": 0.4}, {"budget": 3}]),
)
def test_no_strategy_gets_more_than_is_left(
    budget: int, asks: int | None, calls: Any, strategy: Any, own: Any
) -> None:
    held = state({"takeovers": budget, "asks": asks}, *calls)
    part = allot(held, "a", strategy=strategy, **own)
    assert 0 <= part.takeovers <= remaining(held)
    assert (part.asks is None) == (asks is None)
    if part.asks is not None:
        assert 0 <= part.asks <= remaining_asks(held)
        assert part.takeovers > 0 or part.asks == 0  # nobody is asked for nothing


@pytest.mark.parametrize("given", [True, 2.0, None, "2", math.nan], ids=repr)
def test_a_strategy_that_gives_no_count_is_an_error(given: Any) -> None:
    with pytest.raises(PolicyError, match="instead of a count"):
        takeovers(state(12), strategy=lambda _: given)


@pytest.mark.parametrize(
    "make",
    [
        lambda: takeovers(state(12), strategy="evn"),
        lambda: takeovers(state(12), strategy=7),
        lambda: DelegationContext(strategy="by-role"),  # it has no shares
        lambda: Even(calls=0),
        lambda: Even(calls=2.5),
        lambda: ByRole({"a": 0.5})(Outlook("b", 8, 8)),
        lambda: ByRole({"a": 0.7, "b": 0.4}),
        lambda: ByRole(["a"]),
        *[lambda bad=bad: FrontLoaded(bad) for bad in BAD_SHARES],
        *[lambda bad=bad: Adaptive(bad) for bad in BAD_SHARES],
        *[lambda bad=bad: ByRole({"a": bad}) for bad in BAD_SHARES],
    ],
)
def test_a_strategy_that_is_none_is_refused(make: Any) -> None:
    with pytest.raises(PolicyError):
        make()


def test_a_thread_goes_on_where_its_last_turn_stopped() -> None:
    """The call before this one is the last of the run, whatever the thread had before."""
    graph = chain("a", "b", takeovers=1, strategy="adaptive").compile(checkpointer=InMemorySaver())
    graph.invoke({**ASK, "delegation_budget": 16}, THREAD)
    calls = [*graph.invoke(ASK, THREAD)["delegation_spent"]["calls"].values()]
    assert [each["allotted"] for each in calls] == [4, 2, 1, 2]


# --- Parts of branches ---


@given(
    budget=st.integers(0, 30),
    asks=st.none() | st.integers(0, 30),
    taken=st.integers(0, 12),
    count=st.integers(0, 9),
)
def test_parts_come_to_what_is_left(budget: int, asks: int | None, taken: int, count: int) -> None:
    held = state({"takeovers": budget, "asks": asks}, charge(taken, asks=taken))
    parts = split(held, count)
    assert len(parts) == count == len({each["account"] for each in parts})
    for name, left in (("takeovers", remaining(held)), ("asks", remaining_asks(held))):
        values = [each[name] for each in parts]
        if left is None:
            assert set(values) <= {None}
        elif parts:
            assert sum(values) == left
            assert values == sorted(values, reverse=True)
            assert values[0] - values[-1] <= 1


# --- The context ---


@pytest.mark.parametrize(
    "bad",
    [
        *({"total": each} for each in (-1, math.nan, 2.5, True, "8")),
        *({"asks": each} for each in (-1, math.nan, 2.5, True, "8")),
        *({"threshold": each} for each in (-1, math.nan, True, "8")),
        *({"shares": {"a": each}} for each in BAD_SHARES),
        {"shares": {"a": 0.7, "b": 0.4}},
        {"shares": [0.5]},
        {"strategy": "evn"},
    ],
    ids=repr,
)
def test_a_context_out_of_range_is_refused(bad: Any) -> None:
    (name,) = bad
    with pytest.raises(PolicyError, match=name):
        DelegationContext(**bad)
    with pytest.raises(PolicyError, match=name):
        DelegationContext.of(bad)
    with pytest.raises(PolicyError, match=name):
        chain("a").compile().invoke({**ASK, "delegation_budget": 2}, context=bad)


def test_shares_may_come_to_the_whole_by_rounding() -> None:
    tenths = {str(at): 0.1 for at in range(10)}
    assert sum(tenths.values()) != 1
    assert DelegationContext(shares=tenths).shares == ByRole(tenths).shares == tenths


@dataclass
class Other:
    """A context of the user's own."""

    user: str = "Ann"
    total: int = 3


def test_a_context_is_read_from_what_has_it() -> None:
    assert DelegationContext.of(None) == DelegationContext()
    assert DelegationContext.of({"total": 3, "more": 1}) == DelegationContext(total=3)
    own = ModelContext(total=3, max_tokens=9)
    assert ModelContext.of(own) is own
    assert ModelContext.of(DelegationContext(total=5)).total == 5
    assert ModelContext.of(None).total == 16
    assert DelegationContext.of(Other()) == DelegationContext()  # whose words may mean something else


@pytest.mark.parametrize("context", [{"total": 3}, DelegationContext(total=3)])
def test_a_total_may_come_with_the_run(context: Any) -> None:
    graph = chain("a", "b", takeovers=2).compile(checkpointer=InMemorySaver())
    assert charges(graph.invoke(ASK, THREAD, context=context)) == [("a", 2), ("b", 1)]
    assert charges(graph.invoke(ASK, THREAD, context={"total": 4}))[2:] == [("a", 1), ("b", 0)]
    assert charges(graph.invoke(ASK, THREAD, context={"total": 1}))[4:] == [("a", 0), ("b", 0)]
