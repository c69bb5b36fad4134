"""What a graph keeps of delegation: totals that only fall, ledgers and traces in which a call counts once."""

from __future__ import annotations

import functools
import json
import math
from typing import Any

import pytest
from budgeted import ASK, THREAD, chain, charge, charges, disagreeing, graph_of, node, run, spent
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Overwrite

from delegate_llm import PolicyError, RequestError
from delegate_llm.graph import DelegationInput, DelegationState, record
from delegate_llm.graph.state import add_spent, add_traces, either, lower_total, merge_grants

counts = st.integers(0, 50)
ledgers = st.dictionaries(
    st.sampled_from("uvwxyz"),
    st.builds(charge, counts, node=st.sampled_from("ab"), asks=counts, allotted=st.none() | counts),
).map(lambda calls: {"calls": calls})

BAD_COUNTS = [-1, math.nan, math.inf, 2.5, True, "8", [8], b"8"]
BAD_BUDGETS = [
    *BAD_COUNTS,
    {"takeovers": -1},
    {"takeovers": True},
    {"takeovers": 3, "asks": -1},
    {"takeovers": 3, "asks": math.nan},
    {"takeovers": 3, "more": 1},
    {"takeovers": 3, "account": 7},
    {"asks": 3},
]
BAD_LEDGERS = [
    *BAD_COUNTS,
    {"takeovers": 3},
    {"calls": [charge(1)]},
    {"calls": {"x": 3}},
    {"calls": {"x": {"takeovers": 3}}},
    {"calls": {"x": charge(-100)}},
    {"calls": {"x": charge(asks=-100)}},
    {"calls": {"x": {**charge(), "takeovers": math.nan}}},
]

# --- The total ---


@pytest.mark.parametrize(
    ("given", "takeovers", "asks"),
    [
        (8, 8, None),
        (0, 0, None),
        ({"takeovers": 8}, 8, None),
        ({"takeovers": 8, "asks": None}, 8, None),
        ({"takeovers": 8, "asks": 0}, 8, 0),
    ],
)
def test_a_total_is_a_count_or_a_dict(given: Any, takeovers: int, asks: int | None) -> None:
    for held in (None, {}):
        total = lower_total(held, given)
        assert total.pop("account")
        assert total == {"takeovers": takeovers, "asks": asks}


@pytest.mark.parametrize("given", [None, {}])
def test_no_total_changes_nothing(given: Any) -> None:
    held = lower_total(None, 8)
    assert lower_total(held, given) == held
    assert lower_total(None, given) is None


@pytest.mark.parametrize("given", BAD_BUDGETS, ids=repr)
def test_a_budget_that_is_none_is_refused_with_its_value(given: Any) -> None:
    for held in (None, lower_total(None, 8)):
        with pytest.raises(PolicyError, match="delegation_budget"):
            lower_total(held, given)
    with pytest.raises(PolicyError, match="delegation_budget"):
        chain("a").compile().invoke({**ASK, "delegation_budget": given})


@given(st.lists(st.tuples(counts, st.none() | counts), min_size=1))
def test_a_total_only_ever_falls(given: list[tuple[int, int | None]]) -> None:
    totals = [{"takeovers": takeovers, "asks": asks} for takeovers, asks in given]
    first = lower_total(None, totals[0])
    total = functools.reduce(lower_total, totals[1:], first)
    capped = [asks for _, asks in given if asks is not None]
    assert total == {
        "takeovers": min(takeovers for takeovers, _ in given),
        "asks": min(capped, default=None),
        "account": first["account"],
    }


def test_the_part_of_a_branch_is_no_total() -> None:
    held = lower_total(None, 8)
    assert lower_total(held, {"takeovers": 1, "asks": None, "account": f"{held['account']}/1"}) == held
    assert lower_total(held, {**held, "takeovers": 5})["takeovers"] == 5


def test_each_total_has_an_account_of_its_own() -> None:
    assert lower_total(None, 8)["account"] != lower_total(None, 8)["account"]


# --- What was spent ---


@given(ledgers, ledgers, ledgers)
def test_ledgers_are_united(one: Any, two: Any, three: Any) -> None:
    made = add_spent(add_spent(one, two), three)
    assert made == add_spent(one, add_spent(two, three))
    assert made == add_spent(made, three) == add_spent(made, two) == add_spent(made, one)  # each counts once
    calls = {**three["calls"], **two["calls"], **one["calls"]}
    assert made["calls"] == calls  # as they were first written
    assert [*made["calls"]] == [*dict.fromkeys([*one["calls"], *two["calls"], *three["calls"]])]
    assert made["takeovers"] == sum(each["takeovers"] for each in calls.values())
    assert made["asks"] == sum(each["asks"] for each in calls.values())
    assert json.loads(json.dumps(made)) == made


def test_a_plain_count_is_a_call_more_each_time() -> None:
    made = add_spent(add_spent(None, 2), 3)
    assert (made["takeovers"], made["asks"], len(made["calls"])) == (5, 5, 2)
    assert add_spent(made, 0) == made == add_spent(made, None)


@pytest.mark.parametrize("given", BAD_LEDGERS, ids=repr)
def test_a_ledger_that_is_none_is_refused(given: Any) -> None:
    with pytest.raises(PolicyError, match="delegation_spent"):
        add_spent(None, given)
    with pytest.raises(PolicyError, match="delegation_spent"):
        chain("a").compile().invoke({**ASK, "delegation_budget": 2, "delegation_spent": given})


# --- Traces, grants, and a person's word ---


def test_each_trace_is_kept_once_in_order() -> None:
    one, two, three = ({"id": name} for name in "abc")
    assert add_traces([one], [two, one, three, two]) == [one, two, three]
    assert add_traces(None, None) == []


@pytest.mark.parametrize("given", [3, "x", {"id": "a"}, [{"node": "a"}], [3], [None]], ids=repr)
def test_traces_that_are_none_are_refused(given: Any) -> None:
    with pytest.raises(PolicyError, match="delegation_traces"):
        add_traces([], given)


def test_grants_add_up_and_each_counts_once() -> None:
    held = merge_grants({"a": 2}, {"b": 3})
    assert merge_grants(held, {"a": 2}) == held == {"a": 2, "b": 3}
    assert sorted(merge_grants(held, 4).values()) == [2, 3, 4]
    assert merge_grants(None, None) == {}


@pytest.mark.parametrize("given", [*BAD_COUNTS, {"a": -1}, {"a": True}, {"a": "2"}], ids=repr)
def test_grants_that_are_none_are_refused(given: Any) -> None:
    with pytest.raises(PolicyError, match="delegation_grants"):
        merge_grants({}, given)


def test_what_a_person_decided_stands() -> None:
    assert either(either(None, True), False) is True
    assert either(False, False) is False


# --- What makes them ---


def test_a_record_may_be_applied_any_number_of_times() -> None:
    message = disagreeing(3).invoke("go?")
    made = record(message, node="a", step=2, call=1, allotted=5)
    twice = add_spent(made["delegation_spent"], record(message)["delegation_spent"])
    assert twice == made["delegation_spent"]
    assert charges({"delegation_spent": twice}) == [("a", 3)]
    (trace,) = add_traces(made["delegation_traces"], record(message)["delegation_traces"])
    assert trace["id"] == message.response_metadata["delegation"]["id"] == next(iter(twice["calls"]))
    assert (trace["node"], trace["step"], trace["call"], trace["allotted"]) == ("a", 2, 1, 5)
    assert json.loads(json.dumps(made, allow_nan=False)) == made


def test_only_an_answer_of_a_delegated_model_has_a_record() -> None:
    message = disagreeing().invoke("go?")
    message.response_metadata.pop("delegation")
    with pytest.raises(RequestError, match="no record of delegation"):
        record(message)


# --- In a graph ---


def test_a_later_input_cannot_raise_its_own_limit() -> None:
    graph = chain("a").compile(checkpointer=InMemorySaver())
    first = graph.invoke({**ASK, "delegation_budget": 3}, THREAD)
    assert spent(first) == 3
    (call,) = first["delegation_spent"]["calls"]
    for more in (
        {"delegation_budget": 100},
        {"delegation_budget": {**first["delegation_budget"], "takeovers": 100}},
        {"delegation_budget": {"takeovers": 100, "account": "another"}},
        {"delegation_spent": {"calls": {call: charge(0)}}},  # as if it had been cheaper
    ):
        assert spent(graph.invoke({**ASK, **more}, THREAD)) == 3
    lower = graph.invoke({**ASK, "delegation_budget": 1}, THREAD)
    assert lower["delegation_budget"]["takeovers"] == 1
    assert spent(lower) == 3  # it was spent; nothing more is


def test_an_input_schema_keeps_callers_out_of_the_books() -> None:
    graph = graph_of({"a": node("a")}, input_schema=DelegationInput).compile()
    forged = {"delegation_grants": 9, "delegation_spent": {"calls": {"x": charge(1)}}}
    state = graph.invoke({**ASK, "delegation_budget": 3, "delegation_alone": True, **forged})
    assert charges(state) == [("a", 3)]
    assert not state.get("delegation_alone")


def test_whoever_may_write_state_can_begin_anew() -> None:
    graph = chain("a").compile(checkpointer=InMemorySaver())
    graph.invoke({**ASK, "delegation_budget": 3}, THREAD)
    fresh = {"delegation_budget": Overwrite(value=5), "delegation_spent": Overwrite(value={})}
    graph.update_state(THREAD, fresh)
    assert charges(graph.invoke(ASK, THREAD)) == [("a", 5)]
    lower = graph.invoke({**ASK, "delegation_budget": 4}, THREAD)
    assert lower["delegation_budget"]["takeovers"] == 4


@pytest.mark.parametrize("sync", [True, False])
def test_all_that_is_kept_is_json(sync: bool) -> None:
    graph = chain("a", "b", takeovers=3).compile(checkpointer=InMemorySaver())
    budget = {"takeovers": 5, "asks": 40}
    state = run(graph, {**ASK, "delegation_budget": budget, "delegation_grants": 1}, THREAD, sync=sync)
    kept = {name: state[name] for name in DelegationState.__annotations__ if name != "messages"}
    assert kept.keys() >= {"delegation_budget", "delegation_spent", "delegation_traces", "delegation_grants"}
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept
    assert [trace["node"] for trace in kept["delegation_traces"]] == ["a", "b"]
