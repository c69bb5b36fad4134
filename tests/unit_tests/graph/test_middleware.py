"""The budget of a `create_agent` agent: what it may spend, what happens then, and what nobody can change."""

from __future__ import annotations

from typing import Any

import pytest
from counting import (
    ASK,
    NEEDED,
    PETS,
    RUNS,
    SAID,
    THREAD,
    Pets,
    Run,
    agent,
    by_call,
    question,
    said,
    saver,
    spent,
)
from langchain.agents.structured_output import ToolStrategy
from langgraph.types import Command

from delegate_llm import DelegatedChatModel
from delegate_llm.errors import PolicyError
from delegate_llm.graph import DelegationContext, DelegationMiddleware, remaining
from delegate_llm.tiny.agent import FUNCTIONS
from delegate_llm.tiny.problems import grade, problems


@pytest.fixture
def kept() -> dict[str, Any]:
    return {"checkpointer": saver()}


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest) -> Run:
    """Invokes an agent, in both ways."""
    return RUNS[request.param]


# --- Limits ---


@pytest.mark.parametrize("limit", range(5))
def test_a_run_stays_within_its_limit(run: Run, limit: int) -> None:
    result = run(agent(run_limit=limit))
    assert spent(result) == min(limit, NEEDED)
    assert by_call(result) == [min(limit, 1), max(0, min(limit - 1, 2))]
    assert said(result) == SAID[min(limit, NEEDED)]
    assert [each["allotted"] for each in result["delegation_traces"]] == [limit, limit - min(limit, 1)]
    assert [each["call"] for each in result["delegation_traces"]] == [0, 1]


def test_where_nothing_is_left_no_reasoner_runs(run: Run) -> None:
    result = run(agent(run_limit=1))
    costs = [each["reasoner_forwards"] for each in result["delegation_traces"]]
    assert costs[0] > 0
    assert costs[1] == 0


def test_a_thread_stays_within_its_limit_over_its_runs(run: Run, kept: dict[str, Any]) -> None:
    counting = agent(thread_limit=4, of=kept)
    results = [run(counting, config=THREAD) for _ in range(3)]
    assert [spent(each) for each in results] == [3, 4, 4]
    assert by_call(results[-1]) == [1, 2, 1, 0, 0, 0]
    assert [said(each) for each in results] == [SAID[3], SAID[1], SAID[0]]
    assert run(counting, config={"configurable": {"thread_id": "2"}})["delegation_spent"]["takeovers"] == 3


def test_each_run_of_a_thread_has_a_limit_of_its_own(run: Run, kept: dict[str, Any]) -> None:
    counting = agent(run_limit=2, of=kept)
    results = [run(counting, config=THREAD) for _ in range(3)]
    assert [spent(each) for each in results] == [2, 4, 6]
    assert {said(each) for each in results} == {SAID[2]}


def test_both_limits_hold_together(run: Run, kept: dict[str, Any]) -> None:
    counting = agent(run_limit=2, thread_limit=5, of=kept)
    assert [spent(run(counting, config=THREAD)) for _ in range(4)] == [2, 4, 5, 5]


def test_without_a_checkpointer_every_run_is_a_thread_of_its_own(run: Run) -> None:
    counting = agent(thread_limit=2)
    assert [spent(run(counting)) for _ in range(2)] == [2, 2]


def test_a_run_that_is_resumed_elsewhere_is_still_the_same_run(run: Run, kept: dict[str, Any]) -> None:
    settings = {"run_limit": 2, "of": {**kept, "interrupt_before": ["tools"]}}
    run(agent(run_limit=2, of=kept), config=THREAD)
    paused = run(agent(**settings), config=THREAD)
    assert paused["messages"][-1].tool_calls
    result = run(agent(**settings), None, THREAD)
    assert by_call(result) == [1, 1, 1, 1]
    assert said(result) == SAID[2]


def test_time_travel_forks_the_budget_too(run: Run, kept: dict[str, Any]) -> None:
    counting = agent(run_limit=3, of=kept)
    first = run(counting, config=THREAD)
    (before,) = [each for each in counting.get_state_history(THREAD) if each.next == ("tools",)]
    assert spent(before.values) == 1
    again = run(counting, None, before.config)
    assert by_call(again) == by_call(first) == [1, 2]
    assert again["delegation_spent"]["calls"].keys() != first["delegation_spent"]["calls"].keys()


@pytest.mark.parametrize("settings", [{"run_asks": 7}, {"thread_asks": 7}, {"run_limit": 3, "run_asks": 7}])
def test_positions_asked_can_be_limited(run: Run, settings: dict[str, int]) -> None:
    result = run(agent(**settings))
    assert result["delegation_spent"]["asks"] == 7
    assert said(result) == SAID[0]


def test_strategies_divide_what_is_left(run: Run) -> None:
    result = run(agent(run_limit=4, strategy="front-loaded"))
    assert [each["allotted"] for each in result["delegation_traces"]] == [2, 2]
    result = run(agent(run_limit=9, strategy=lambda outlook: len(outlook.charges)))
    assert [each["allotted"] for each in result["delegation_traces"]] == [0, 1]


def test_a_tool_agent_of_the_shipped_pair_solves_problems() -> None:
    model = DelegatedChatModel("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner", max_tokens=160)
    right = {}
    for limit in (0, 8):
        solving = agent(model=model, tools=FUNCTIONS, run_limit=limit)
        made = [
            (each, solving.invoke({"messages": [("user", each.question)]}))
            for each in problems(6, seed=5, split="test")
        ]
        assert all(spent(result) <= limit for _, result in made)
        right[limit] = sum(grade(problem, result["messages"][-1].text) for problem, result in made)
    assert right[8] >= right[0] + 4


# --- Shares ---


@pytest.mark.parametrize(
    ("tool_call", "final", "taken", "words"),
    [(0.0, 1.0, [0, 1], "8 cats"), (1.0, 0.0, [1, 0], "8 cars"), (0.5, 0.5, [1, 1], "3 cars")],
)
def test_calls_and_answers_have_their_shares(
    run: Run, tool_call: float, final: float, taken: list[int], words: str
) -> None:
    result = run(agent(run_limit=2, shares={"tool_call": tool_call, "final": final}))
    assert by_call(result) == taken
    assert said(result) == words
    traces = result["delegation_traces"]
    assert [each["node"] for each in traces] == ["tool_call", "final"]
    assert [each["allotted"] for each in traces] == [round(2 * tool_call), round(2 * final)]


def test_shares_hold_over_a_thread(run: Run, kept: dict[str, Any]) -> None:
    counting = agent(thread_limit=4, shares={"tool_call": 0.5, "final": 0.5}, of=kept)
    results = [run(counting, config=THREAD) for _ in range(3)]
    assert by_call(results[-1]) == [1, 2, 1, 0, 0, 0]


def test_shares_that_are_spent_are_a_spent_budget(run: Run) -> None:
    counting = agent(run_limit=4, shares={"tool_call": 0.25, "final": 0}, on_exhausted="stop")
    result = run(counting)
    assert by_call(result) == [1]
    assert said(result) == "Stopped: the budget of takeovers is spent (1 of 4)."


def test_an_answer_in_the_form_of_a_call_is_charged_as_one(run: Run) -> None:
    shares = {"tool_call": 0.5, "final": 0.5}
    result = run(
        agent(tools=(), run_limit=2, shares=shares, of={"response_format": ToolStrategy(Pets)}), PETS
    )
    assert result["delegation_traces"][0]["node"] == "tool_call"


# --- Once nothing is left ---


def test_a_spent_budget_can_stop_the_run(run: Run, kept: dict[str, Any]) -> None:
    counting = agent(thread_limit=1, on_exhausted="stop", of=kept)
    result = run(counting, config=THREAD)
    assert [each.type for each in result["messages"]] == ["human", "ai", "tool", "ai"]
    assert said(result) == "Stopped: the budget of takeovers is spent (1 of 1)."
    again = run(counting, config=THREAD)
    assert [each.type for each in again["messages"]][4:] == ["human", "ai"]
    assert by_call(again) == [1]


def test_spent_positions_stop_the_run_as_well(run: Run) -> None:
    result = run(agent(run_limit=3, run_asks=9, on_exhausted="stop"))
    assert said(result) == "Stopped: the budget of takeovers is spent (0 of 3, asked at 9 of 9 positions)."


def test_a_person_grants_more(run: Run, kept: dict[str, Any]) -> None:
    counting = agent(run_limit=1, thread_limit=1, on_exhausted="interrupt", of=kept)
    asked = question(run(counting, config=THREAD))
    assert (asked["type"], asked["total"], asked["spent"]) == ("delegation_budget", 1, 1)
    result = run(counting, Command(resume={"action": "grant", "takeovers": 2}), THREAD)
    assert by_call(result) == [1, 2]
    assert said(result) == SAID[3]


def test_a_grant_is_the_threads_but_only_this_runs(run: Run, kept: dict[str, Any]) -> None:
    counting = agent(run_limit=1, thread_limit=9, on_exhausted="interrupt", of=kept)
    run(counting, config=THREAD)
    run(counting, Command(resume={"action": "grant", "takeovers": 1}), THREAD)
    asked = question(run(counting, config=THREAD))
    assert (asked["total"], asked["spent"]) == (1, 1)
    result = run(counting, Command(resume={"action": "base"}), THREAD)
    assert by_call(result) == [1, 1, 1, 0]


def test_a_person_lets_the_base_go_on_for_this_run(run: Run, kept: dict[str, Any]) -> None:
    counting = agent(thread_limit=0, on_exhausted="interrupt", of=kept)
    for runs in (1, 2):
        assert question(run(counting, config=THREAD))["total"] == 0
        result = run(counting, Command(resume={"action": "base"}), THREAD)
        assert said(result) == SAID[0]
        assert by_call(result) == [0, 0] * runs
        assert not any(each["reasoner_forwards"] for each in result["delegation_traces"])


def test_alone_is_alone_even_if_a_resumed_run_has_more(run: Run, kept: dict[str, Any]) -> None:
    settings = {**kept, "context_schema": DelegationContext}
    counting = agent(run_limit=3, on_exhausted="interrupt", of=settings)
    run(counting, config=THREAD, context={"total": 0})
    result = run(counting, Command(resume={"action": "base"}), THREAD, context={"total": 0})
    assert by_call(result) == [0, 0]
    paused = agent(run_limit=3, on_exhausted="interrupt", of={**settings, "interrupt_before": ["model"]})
    run(paused, config=THREAD, context={"total": 0})
    run(paused, Command(resume={"action": "base"}), THREAD, context={"total": 0})
    assert by_call(run(counting, None, THREAD, context={"total": 3})) == [0, 0, 0, 0]


def test_a_person_stops_the_run(run: Run, kept: dict[str, Any]) -> None:
    counting = agent(run_limit=1, on_exhausted="interrupt", of=kept)
    run(counting, config=THREAD)
    result = run(counting, Command(resume={"action": "stop"}), THREAD)
    assert said(result) == "Stopped: the budget of takeovers is spent (1 of 1)."
    assert spent(run(counting, config=THREAD)) == 2


@pytest.mark.parametrize("nonsense", ["yes", {"action": "grant"}, {"action": "grant", "takeovers": -1}])
def test_nonsense_is_asked_again(run: Run, kept: dict[str, Any], nonsense: Any) -> None:
    counting = agent(run_limit=1, on_exhausted="interrupt", of=kept)
    assert "error" not in question(run(counting, config=THREAD))
    asked = question(run(counting, Command(resume=nonsense), THREAD))
    assert repr(nonsense)[:9] in asked["error"] or "takeovers" in asked["error"]
    result = run(counting, Command(resume={"action": "grant", "takeovers": 2}), THREAD)
    assert said(result) == SAID[3]


def test_a_grant_that_leaves_nothing_is_not_enough(run: Run, kept: dict[str, Any]) -> None:
    run(agent(thread_limit=3, of=kept), config=THREAD)
    smaller = agent(thread_limit=1, on_exhausted="interrupt", of=kept)
    asked = question(run(smaller, config=THREAD))
    assert (asked["total"], asked["spent"]) == (1, 3)
    asked = question(run(smaller, Command(resume={"action": "grant", "takeovers": 2}), THREAD))
    assert (asked["total"], asked["spent"]) == (3, 3)
    result = run(smaller, Command(resume={"action": "grant", "takeovers": 3}), THREAD)
    assert by_call(result) == [1, 2, 1, 2]


def test_a_grant_brings_positions_as_well(run: Run, kept: dict[str, Any]) -> None:
    counting = agent(run_limit=3, run_asks=9, on_exhausted="interrupt", of=kept)
    run(counting, config=THREAD)
    result = run(counting, Command(resume={"action": "grant", "takeovers": 30}), THREAD)
    assert 9 < result["delegation_spent"]["asks"] <= 9 + 90


def test_nobody_is_asked_while_there_is_something_left(run: Run, kept: dict[str, Any]) -> None:
    for behaviour in ("stop", "interrupt"):
        result = run(agent(run_limit=2, on_exhausted=behaviour, of={"checkpointer": saver()}), config=THREAD)
        assert said(result) == SAID[2]


# --- State ---


TRICKS = {
    "delegation_spent": 0,
    "delegation_traces": [],
    "delegation_before": ["all", "of", "it"],
    "delegation_grants": {"mine": 100},
    "delegation_alone": True,
    "delegation_budget": 100,
}


@pytest.mark.parametrize("trick", [*TRICKS, "everything"])
def test_a_caller_cannot_set_what_the_middleware_keeps(run: Run, kept: dict[str, Any], trick: str) -> None:
    counting = agent(run_limit=2, thread_limit=3, of=kept)
    tricks = TRICKS if trick == "everything" else {trick: TRICKS[trick]}
    results = [run(counting, {**ASK, **tricks}, THREAD) for _ in range(3)]
    assert [spent(each) for each in results] == [2, 3, 3]


def test_what_is_kept_is_hidden_but_what_was_spent_and_why() -> None:
    counting = agent(run_limit=2)
    assert [each for each in counting.get_input_jsonschema()["properties"] if "delegation" in each] == []
    told = {each for each in counting.get_output_jsonschema()["properties"] if "delegation" in each}
    assert told == {"delegation_spent", "delegation_traces"}
    assert told == {each for each in counting.invoke(ASK) if "delegation" in each}


def test_what_is_left_can_be_read_off_a_result(kept: dict[str, Any]) -> None:
    result = agent(thread_limit=5, of=kept).invoke(ASK, THREAD)
    assert remaining(result, DelegationContext(total=5)) == 2


# --- Settings ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give at least one of thread_limit, run_limit, thread_asks, run_asks"),
        ({"run_limit": -1}, "run_limit: -1 is not a count"),
        ({"thread_limit": 2.5}, "thread_limit: 2.5 is not a count"),
        ({"run_asks": True}, "run_asks: True is not a count"),
        ({"run_limit": 3, "thread_asks": "many"}, "thread_asks: 'many' is not a count"),
        ({"run_limit": 3, "on_exhausted": "panic"}, "'panic' is unknown; choose one of 'base', 'stop'"),
        ({"run_limit": 3, "on_exhausted": ["stop"]}, "is unknown"),
        ({"run_limit": 3, "strategy": "greedy"}, "strategy: 'greedy' is unknown"),
        ({"run_limit": 3, "shares": {"tool_call": 1.0}}, "must have both kinds"),
        ({"run_limit": 3, "shares": {"tool_call": 0.5, "final": 0.2, "plan": 0.1}}, "must have both kinds"),
        ({"run_limit": 3, "shares": {"tool_call": 0.8, "final": 0.4}}, "more than the whole"),
        ({"run_limit": 3, "shares": {"tool_call": 0.8, "final": "rest"}}, "'rest' is not a share"),
        ({"run_limit": 3, "shares": 0.8}, "no mapping"),
    ],
)
def test_settings_that_are_none_are_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        DelegationMiddleware(**settings)


def test_one_budget_is_enough() -> None:
    with pytest.raises(AssertionError, match="duplicate middleware"):
        agent(DelegationMiddleware(run_limit=3), run_limit=2)
