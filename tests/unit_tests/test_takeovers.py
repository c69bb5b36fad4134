"""The method, on paper: who is heard where, what it costs, and where an answer ends."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from scripts import END, OP, PIECES, POLICY, ST, A, B, C, says, scripted

from delegate_llm import DelegationPolicy, Pair

# --- The method, on paper ---


def test_one_token_takeover_then_straight_back() -> None:
    two = scripted(says(A, A, A, A, END), says(A, B, A, A, END))
    made = two.generate("x", policy=POLICY, trace="full")
    assert made.text == "abaa"
    assert made.finish_reason == "stop"
    assert [each.takeover for each in made.trace.decisions] == [False, True, False, False, False]
    taken = made.trace.decisions[1]
    assert (taken.token, taken.base_token, taken.reasoner_token) == ("b", "a", "b")
    assert taken.changed
    assert made.trace.summary.model_dump() == {
        "tokens": 5, "takeovers": 1, "changed": 1, "asked": 5, "share": 0.2,
    }  # fmt: skip


def test_a_takeover_that_agrees_changes_nothing_and_drops_no_draft() -> None:
    two = scripted(says(A, B, C, ST, END), says(A, B, C, ST, END, sure=3.0))
    made = two.generate("x", policy=DelegationPolicy(threshold=0.1), trace="full")
    summary = made.trace.summary
    assert (summary.takeovers, summary.changed) == (5, 0)
    assert made.usage.base_tokens == 5  # the prompt and four words, each read once
    assert made.usage.base_forwards == 3  # the reasoner's next word was a good guess twice


def test_trace_levels() -> None:
    two = scripted(says(A, A, A, END), says(A, B, A, END))
    kept = {
        level: two.generate("x", policy=POLICY, trace=level).trace for level in ("takeovers", "full", "off")
    }
    assert [len(trace.decisions) for trace in kept.values()] == [1, 4, 0]
    assert len({trace.summary for trace in kept.values()}) == 1
    assert kept["full"].takeovers == kept["takeovers"].decisions
    for trace in kept.values():
        assert type(trace).from_json(trace.to_json()) == trace


def test_budget_zero_runs_no_reasoner() -> None:
    two = scripted(says(A, A, END), says(B, B, END))
    made = two.generate("x", policy=DelegationPolicy(threshold=0, budget=0))
    assert made.text == "aa"
    assert (made.usage.reasoner_forwards, made.trace.summary.asked) == (0, 0)


def test_a_spent_budget_stops_the_reasoner() -> None:
    two = scripted(says(*[A] * 30, END), says(*[B] * 30, END))
    made = two.generate("x", policy=DelegationPolicy(threshold=1.0, budget=2))
    assert made.text == "bb" + "a" * 28
    assert made.trace.summary.asked == 2
    assert made.usage.reasoner_forwards <= 2


def test_closed_gates_cost_no_reasoner_forward_until_they_open() -> None:
    two = scripted(says(*[A] * 20, END), says(*[B] * 20, END))
    policy = DelegationPolicy(threshold=1.0, gates=lambda view: view.position == 12)
    made = two.generate("x", policy=policy)
    assert made.text == "a" * 12 + "b" + "a" * 7
    assert (made.usage.reasoner_forwards, made.trace.summary.asked) == (1, 1)


@pytest.mark.parametrize("name", ["random", "entropy", "top1"])
def test_controls_ask_only_where_they_take_over(name: str, pair: Pair) -> None:
    given = pair.score("the", "the hen. 12 eggs, go", policy=DelegationPolicy(divergence=name))
    median = statistics.median(each.score or 0.0 for each in given.decisions)
    made = pair.generate("the", policy=DelegationPolicy(divergence=name, threshold=median), max_tokens=60)
    assert 0 < made.trace.summary.takeovers < made.trace.summary.tokens
    assert made.trace.summary.asked == made.trace.summary.takeovers


def test_random_takes_its_share() -> None:
    two = scripted(says(*[A] * 600), says(*[B] * 600))
    policy = DelegationPolicy(divergence="random", threshold=0.9)
    made = two.generate("x", policy=policy, max_tokens=600, seed=4, ignore_eos=True)
    assert 0.06 < made.trace.summary.share < 0.14


# --- Where an answer ends ---


@pytest.mark.parametrize("schedule", ["draft", "lockstep"])
@pytest.mark.parametrize(
    ("stop", "text", "reason"),
    [
        ("STOP", "ab", "stop"),  # split over two tokens
        (["zz", "TOP"], "abS", "stop"),
        ("OPa", "abST", "stop"),
        ("c", "abSTOPa", "stop"),
        (None, "abSTOPac", "stop"),
    ],
)
def test_stop_strings(schedule: str, stop: Any, text: str, reason: str) -> None:
    two = scripted(says(A, B, ST, OP, A, C, END), says(A, B, ST, OP, A, C, END))
    made = two.generate("x", policy=POLICY, stop=stop, schedule=schedule)
    assert (made.text, made.finish_reason) == (text, reason)
    pieces = list(two.stream("x", policy=POLICY, stop=stop, schedule=schedule))
    assert "".join(each.text for each in pieces[:-1]) == text


def test_a_stop_inside_a_draft_that_is_taken_over_is_no_stop() -> None:
    """The base would have said the stop string; the reasoner did not."""
    two = scripted(says(A, ST, OP, A, END), says(A, ST, B, A, END))
    made = two.generate("x", policy=POLICY, stop="STOP")
    assert (made.text, made.finish_reason) == ("aSTba", "stop")


def test_an_end_inside_a_draft_that_is_taken_over_is_no_end() -> None:
    two = scripted(says(A, END, A, END), says(A, B, A, END))
    assert two.generate("x", policy=POLICY).text == "aba"


def test_max_tokens_and_context() -> None:
    forever = says(A)
    assert scripted(forever, forever).generate("x", policy=POLICY, max_tokens=1).finish_reason == "length"
    made = scripted(forever, forever, context=10).generate("xxx", policy=POLICY, max_tokens=100)
    assert (len(made.token_ids), made.finish_reason) == (7, "length")


def test_a_loop_is_noticed() -> None:
    def cycle(seen: Any) -> list[float]:
        return [9.0 if each == len(seen) % 3 else 0.0 for each in range(len(PIECES))]

    made = scripted(cycle, cycle).generate("x", policy=POLICY, max_tokens=1000)
    assert made.finish_reason == "repetition"
    assert len(made.token_ids) < 200
    going_on = scripted(cycle, cycle).generate("x", policy=POLICY, max_tokens=300, ignore_eos=True)
    assert (len(going_on.token_ids), going_on.finish_reason) == (300, "length")
