"""Reasons: a replay of the policy along a trace says why each decision was made, and never contradicts it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegate_llm import Budget, DelegationPolicy, Pair
from delegate_llm.gates import GateView
from delegate_llm.report.reasons import Verdict, gate_name, verdicts
from delegate_llm.trace import Decision

PROMPT = "the cat sat on the mat and "
CONTRADICTED = "the trace was made with another"


def odd_positions(view: GateView) -> bool:
    """A gate of a user's own."""
    return view.position % 2 == 1


POLICIES = {
    "plain": DelegationPolicy(threshold=4.15),
    "spike": DelegationPolicy(threshold=0.5, spike=1.2, spike_window=4),
    "limit": DelegationPolicy(threshold=0.5, budget=3),
    "rate": DelegationPolicy(threshold=4.1, budget=Budget(rate=0.1, burst=2)),
    "asks": DelegationPolicy(threshold=1.0, budget=Budget(asks=7)),
    "none": DelegationPolicy(budget=0),
    "window": DelegationPolicy(threshold=0.5, gates={"window": 10}),
    "entropy": DelegationPolicy(threshold=0.5, gates={"entropy": 3.59}, budget=Budget(rate=0.2, burst=3)),
    "boundary": DelegationPolicy(threshold=0.1, gates="boundary"),
    "turn": DelegationPolicy(threshold=0.5, gates={"turn": {"final": 2}}),
    "own": DelegationPolicy(threshold=0.5, gates=(odd_positions,)),
    "random": DelegationPolicy(divergence="random", threshold=0.7, budget=5),
    "base only": DelegationPolicy(divergence="entropy", threshold=2.0, budget=Budget(rate=0.1)),
}


def judged(pair: Pair, policy: DelegationPolicy, level: Any = "full") -> list[tuple[Decision, Verdict]]:
    answer = pair.generate(PROMPT, policy=policy, max_tokens=40, temperature=1.0, seed=7, trace=level)
    decisions = answer.trace.decisions
    return list(zip(decisions, verdicts(decisions, policy), strict=True))


def decided(position: int, **fields: Any) -> Decision:
    return Decision(position=position, token=" a", token_id=1, base_token=" a", base_token_id=1, **fields)


@pytest.mark.parametrize("name", POLICIES)
def test_every_decision_of_a_whole_trace_has_a_reason_that_agrees(pair: Pair, name: str) -> None:
    policy = POLICIES[name]
    found = judged(pair, policy)
    assert found
    for decision, verdict in found:
        assert verdict.cause is not None
        assert CONTRADICTED not in verdict.cause
        assert verdict.bar is not None
        assert verdict.level is not None
        assert verdict.cause.startswith("A takeover") is decision.takeover
        if decision.takeover:
            assert decision.score is not None
            assert decision.score > verdict.bar
            assert verdict.level > 0.99
        elif decision.score is not None:
            assert decision.score <= verdict.bar or verdict.level < 1
    if name != "none":
        assert any(decision.takeover for decision, _ in found)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("plain", "the score was not above the threshold"),
        ("spike", "the score was not above 1.2 times the mean of the scores before"),
        ("limit", "the reasoner is not run any more: all 3 takeovers are spent"),
        ("rate", "but the budget held no takeover"),
        ("asks", "all 7 positions at which it may be asked are spent"),
        ("none", "the reasoner is not run any more: it has no budget"),
        ("window", "only the first 10 tokens are open to it"),
        ("entropy", "a gate was shut: the base's entropy above 3.59 nats"),
        ("boundary", "a gate was shut: the start of a sentence, line, tool call"),
        ("own", "a gate was shut: a gate of your own, odd_positions"),
    ],
)
def test_reasons_name_what_decided(pair: Pair, name: str, reason: str) -> None:
    causes = [verdict.cause for _, verdict in judged(pair, POLICIES[name])]
    assert any(reason in (cause or "") for cause in causes)


@pytest.mark.parametrize("name", ["plain", "limit", "rate", "window", "turn", "random", "base only"])
def test_a_trace_of_takeovers_alone_gives_the_same_budgets(pair: Pair, name: str) -> None:
    policy = POLICIES[name]
    whole = [(each, verdict) for each, verdict in judged(pair, policy) if each.takeover]
    kept = judged(pair, policy, level="takeovers")
    assert [each for each, _ in kept] == [each for each, _ in whole]
    assert [one.level for _, one in kept] == pytest.approx([one.level for _, one in whole])
    assert all(CONTRADICTED not in (verdict.cause or "") for _, verdict in kept)


def test_a_spike_is_not_known_behind_a_gap() -> None:
    policy = DelegationPolicy(threshold=1.0, spike=2.0)
    first, second = verdicts(
        [decided(0, score=3.0, takeover=True), decided(5, score=9.0, takeover=True)], policy
    )
    assert first.bar == 1.0
    assert second.bar is None
    assert (
        second.cause
        == "A takeover: its score was above the bar, every gate was open, and the budget held one."
    )


@pytest.mark.parametrize("positions", [(5, 3), (2, 2), (0, 10**15)])
def test_positions_that_cannot_be_leave_nothing_known(positions: tuple[int, ...]) -> None:
    policy = DelegationPolicy(threshold=1.0, budget=Budget(rate=0.1))
    *_, last = verdicts([decided(each, score=2.0, takeover=True) for each in positions], policy)
    assert last == Verdict()


@pytest.mark.parametrize(
    ("decision", "policy"),
    [
        (decided(0, score=1.0, takeover=True), DelegationPolicy(threshold=2.0)),
        (decided(0, score=3.0, takeover=True), DelegationPolicy(threshold=2.0, budget=0)),
        (decided(0, score=3.0, takeover=True), DelegationPolicy(threshold=2.0, gates={"window": 0})),
        (decided(0, score=3.0, asked=True), DelegationPolicy(threshold=2.0)),
    ],
)
def test_a_trace_of_another_policy_is_found_out(decision: Decision, policy: DelegationPolicy) -> None:
    (verdict,) = verdicts([decision], policy)
    assert CONTRADICTED in str(verdict.cause) or "not run any more" in str(verdict.cause)


def test_rounding_of_a_record_is_no_contradiction() -> None:
    (verdict,) = verdicts([decided(0, score=1.9997, takeover=True)], DelegationPolicy(threshold=1.99973))
    assert CONTRADICTED not in str(verdict.cause)


def test_an_entropy_that_rounding_put_above_a_gate_is_not_told() -> None:
    policy = DelegationPolicy(gates={"entropy": 0.49998})  # 0.49997 is 0.5 in a record
    (verdict,) = verdicts([decided(0, base_entropy=0.5)], policy)
    assert "whether a gate was shut cannot be told" in str(verdict.cause)


def test_a_gate_that_raises_is_one_of_which_nothing_is_known() -> None:
    def broken(view: GateView) -> bool:
        raise LookupError(view.position)

    (verdict,) = verdicts([decided(0)], DelegationPolicy(gates=(broken,)))
    assert "whether a gate was shut cannot be told" in str(verdict.cause)
    assert gate_name(broken) in str(verdict.cause)


@given(
    st.lists(
        st.builds(
            decided,
            st.integers(0, 60),
            score=st.none() | st.floats(0, 20) | st.just(math.inf) | st.just(math.nan),
            base_entropy=st.none() | st.floats(0, 10),
            takeover=st.booleans(),
            asked=st.booleans(),
        ),
        max_size=20,
    ),
    st.sampled_from(list(POLICIES.values())),
)
def test_any_trace_gets_one_verdict_a_decision(decisions: list[Decision], policy: DelegationPolicy) -> None:
    found = list(verdicts(decisions, policy))
    assert len(found) == len(decisions)
    assert all(each.level is None or not math.isnan(each.level) for each in found)
