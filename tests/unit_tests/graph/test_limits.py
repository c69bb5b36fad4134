"""Limits of a thread and its runs, as pure functions: whatever calls do with their part, none is exceeded."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from delegate_llm.graph.allocation import DelegationContext
from delegate_llm.graph.limits import KINDS, Limits, so_far
from delegate_llm.graph.state import Charge, add_spent, as_spent
from delegate_llm.graph.strategies import STRATEGIES, strategy_named

NAMES = ("thread_limit", "run_limit", "thread_asks", "run_asks")


@st.composite
def limits(draw: st.DrawFn) -> Limits:
    count = st.none() | st.integers(0, 12)
    given = {name: draw(count) for name in NAMES}
    given[draw(st.sampled_from(NAMES))] = draw(st.integers(0, 12))
    share = draw(st.none() | st.floats(0, 1))
    shares = None if share is None else {"tool_call": share, "final": (1 - share) * draw(st.floats(0, 1))}
    strategy = strategy_named(draw(st.sampled_from(list(STRATEGIES))))
    return Limits(node="model", shares=shares, strategy=strategy, **given)


@st.composite
def contexts(draw: st.DrawFn) -> DelegationContext:
    count = st.none() | st.integers(0, 12)
    return DelegationContext(total=draw(count), asks=draw(count))


def within(most: int | None, value: int) -> bool:
    return most is None or value <= most


@given(limits=limits(), runs=st.lists(st.tuples(contexts(), st.integers(1, 6)), max_size=4), data=st.data())
def test_no_limit_is_ever_exceeded(limits: Limits, runs: list[Any], data: st.DataObject) -> None:
    state: dict[str, Any] = {"delegation_spent": as_spent({})}
    for context, calls in runs:
        state["delegation_before"] = so_far(state)
        for _ in range(calls):
            part = limits.part(state, context)
            if limits.spent_out(state, context):
                assert not any(part.takeovers.values()) or part.asks == 0
            node = data.draw(st.sampled_from(limits.nodes))
            # An answer may turn out to be of the other kind than its takeovers were allowed for.
            takeovers = data.draw(st.integers(0, max(part.takeovers.values())))
            most = 99 if part.asks is None else part.asks
            takeovers = min(takeovers, most)
            asks = data.draw(st.integers(takeovers, most))
            charge = Charge(node=node, takeovers=takeovers, asks=asks, tokens=9, allotted=None)
            call = {f"call {len(so_far(state))}": charge}
            state["delegation_spent"] = add_spent(state["delegation_spent"], as_spent(call))
        thread = state["delegation_spent"]
        run = as_spent(
            {name: each for name, each in thread["calls"].items() if name not in state["delegation_before"]}
        )
        assert within(limits.thread_limit, thread["takeovers"])
        assert within(limits.thread_asks, thread["asks"])
        for most in (limits.run_limit, context.total):
            assert within(most, run["takeovers"])
        for most in (limits.run_asks, context.asks):
            assert within(most, run["asks"])


@given(limits=limits(), context=contexts(), grant=st.integers(1, 12))
def test_a_fresh_grant_always_gives_something(limits: Limits, context: DelegationContext, grant: int) -> None:
    limits = Limits(node="model", **{name: getattr(limits, name) for name in NAMES})
    part = limits.part({"delegation_grants": {"g": grant}}, context)
    assert part.takeovers["model"] >= grant
    assert part.asks is None or part.asks >= grant
    assert (
        not limits.part({"delegation_grants": {"g": grant}, "delegation_alone": True}, context).left < grant
    )


def test_a_kind_that_spent_more_than_its_share_leaves_the_other_less() -> None:
    limits = Limits(node="model", run_limit=10, shares={"tool_call": 0.8, "final": 0.2})
    charge = Charge(node="tool_call", takeovers=9, asks=9, tokens=9, allotted=8)
    part = limits.part({"delegation_spent": as_spent({"a": charge})}, DelegationContext())
    assert part.takeovers == {"tool_call": 0, "final": 1}
    assert limits.nodes == KINDS


def test_nobody_takes_over_where_nobody_may_be_asked() -> None:
    part = Limits(node="model", run_asks=7).part({}, DelegationContext())
    assert part == ({"model": 7}, 7, 7)


def test_what_is_left_is_what_the_tighter_limit_leaves() -> None:
    limits = Limits(node="model", thread_limit=5, run_limit=3)
    charge = Charge(node="model", takeovers=4, asks=9, tokens=9, allotted=4)
    state = {"delegation_spent": as_spent({"a": charge})}
    assert limits.part(state, DelegationContext()).left == 0
    state["delegation_before"] = so_far(state)
    assert limits.part(state, DelegationContext()) == ({"model": 1}, None, 1)
